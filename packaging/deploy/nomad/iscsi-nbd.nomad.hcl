# The node plugin on every client; the daemon runs as a service of the host (the Debian package).
job "iscsi-nbd" {
  type = "system"

  group "node" {
    task "plugin" {
      driver = "docker"

      config {
        image      = "registry.example/iscsi-nbd:0.1.0"
        args       = ["csi", "--endpoint", "unix:///csi/csi.sock", "--node-id", "${attr.unique.hostname}"]
        privileged = true
        # The lock of one writer a host holds between processes of one network namespace.
        network_mode = "host"
        volumes = [
          "/var/lib/iscsi-nbd:/var/lib/iscsi-nbd",
          "/run/iscsi-nbd:/run/iscsi-nbd",
          "/dev:/dev",
        ]
      }

      csi_plugin {
        id        = "iscsi-nbd"
        type      = "node"
        mount_dir = "/csi"
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
