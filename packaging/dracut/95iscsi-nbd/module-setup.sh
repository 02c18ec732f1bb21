#!/bin/bash
# dracut.modules(7): root on an iSCSI LUN, with the boot scripts of initramfs-tools' hook. Ask for it
# with add_dracutmodules+=" iscsi-nbd "; a system whose root is on such a LUN has it without.

check() {
  local root
  [[ -x /usr/lib/iscsi-nbd/boot/make-capsule ]] || return 1
  # Large as it is, it is left to those who need it.
  root=$(sed -n 's|^/dev/\(nbd[0-9]*\)[p0-9]* / .*|\1|p' /proc/mounts 2>/dev/null | tail -n 1)
  [[ $root ]] && grep -qs '^iscsi-nbd:' "/sys/block/$root/backend" && return 0
  return 255
}

depends() {
  echo network rootfs-block
}

installkernel() {
  hostonly='' instmods nbd iscsi_ibft
}

install() {
  # Set by dracut: the folder of the initramfs, and that of this module.
  # shellcheck disable=SC2154
  local library=/usr/lib/iscsi-nbd place=$initdir here=$moddir
  "$library/boot/make-capsule" "$place$library/capsule"
  inst_simple "$library/boot/run-capsule" "$library/run-capsule"
  inst_simple "$library/boot/boot-functions" "$library/boot-functions"
  inst_multiple sh unshare chroot setsid mount mkdir mv sed grep sleep
  inst_rules 60-iscsi-nbd.rules
  inst_hook cmdline 80 "$here/parse-iscsi-nbd.sh"
  inst_script "$here/iscsi-nbd-root.sh" /sbin/iscsi-nbd-root
  # What dracut calls for netroot=iscsi:… where its own module for open-iscsi is not there.
  dracut_module_included iscsi || inst_script "$here/iscsi-nbd-root.sh" /sbin/iscsiroot
  inst_hook initqueue/online 80 "$here/iscsi-nbd-root.sh"
}
