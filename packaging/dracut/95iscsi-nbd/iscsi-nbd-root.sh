#!/bin/sh
# dracut's hook `initqueue/online`, and its handler of netroot=iscsi: the network is up.
. /usr/lib/iscsi-nbd/boot-functions

if iscsi_nbd_is_wanted && [ ! -e /run/iscsi-nbd/started ]; then
  mkdir -p /run/iscsi-nbd
  : >/run/iscsi-nbd/started
  iscsi_nbd_start
fi
