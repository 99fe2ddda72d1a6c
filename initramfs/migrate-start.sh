#!/bin/sh
# Starts the migration before anything looks for a root: run by initramfs-tools with
# init-premount, sourced by dracut with pre-mount. The program restarts the machine,
# unless the disk holds no system; one that could not run at all is made up for here.
if [ "${1:-}" != prereqs ]; then
  export PATH=/sbin:/usr/sbin:/bin:/usr/bin
  /usr/sbin/va-upgrade boot --migrate </dev/null >/dev/kmsg 2>&1
  while [ -e /run/va-upgrade.no-return ]; do
    echo 'va-upgrade: this disk starts no system; do not restart this machine' >/dev/console
    setsid -c sh -i </dev/console >/dev/console 2>&1 || sh -i </dev/console >/dev/console 2>&1
    sleep 1
  done
  echo 'va-upgrade M00 the program did not run; the old system starts again' >/dev/kmsg
  sleep 10
  echo s >/proc/sysrq-trigger
  echo b >/proc/sysrq-trigger
  sleep 60
fi
