#!/bin/sh
# Puts what the migration environment needs into an initramfs: a hook of
# initramfs-tools, which is run with drivers and tools in $VA_DRIVERS and $VA_TOOLS.
set -eu
case ${1:-} in
  prereqs)
    echo 'udev'
    exit 0
    ;;
esac
# shellcheck source=/dev/null
. /usr/share/initramfs-tools/hook-functions
for driver in $VA_DRIVERS; do
  # One that the kernel has not, or has built in, is passed over.
  manual_add_modules "$driver" || :
done
for tool in $VA_TOOLS; do
  path=$(command -v "$tool") || continue
  copy_exec "$path" "/sbin/$tool"
done
copy_exec /usr/sbin/va-upgrade /usr/sbin/va-upgrade
if [ -e /etc/mke2fs.conf ]; then
  mkdir -p "$DESTDIR/etc"
  cp /etc/mke2fs.conf "$DESTDIR/etc/"
fi
