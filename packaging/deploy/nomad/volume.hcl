# nomad volume register volume.hcl
id          = "disk1"
name        = "disk1"
type        = "csi"
plugin_id   = "iscsi-nbd"
external_id = "disk1"

capability {
  access_mode     = "single-node-writer"
  attachment_mode = "file-system"
}

mount_options {
  fs_type = "ext4"
}

context {
  targetPortal = "192.0.2.1:3260"
  iqn          = "iqn.2001-04.com.example:disk1"
  lun          = "1"
}
