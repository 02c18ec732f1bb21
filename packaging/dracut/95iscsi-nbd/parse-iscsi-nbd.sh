#!/bin/sh
# dracut's hook `cmdline`: asks for the network when the system starts from a LUN.
. /usr/lib/iscsi-nbd/boot-functions

modprobe -q iscsi_ibft
if iscsi_nbd_is_wanted; then
  mkdir -p /etc/cmdline.d
  echo rd.neednet=1 >/etc/cmdline.d/80-iscsi-nbd.conf
  [ ! -e "$ISCSI_NBD_IBFT/target0" ] || echo rd.iscsi.ibft=1 >>/etc/cmdline.d/80-iscsi-nbd.conf
fi
