#!/bin/bash
# Puts what the migration environment needs into an initramfs: a module of dracut,
# which is run with drivers and tools in $VA_DRIVERS and $VA_TOOLS.
check() { return 0; }

depends() { echo 'base udev-rules dm lvm'; }

installkernel() {
  # One that the kernel has not, or has built in, is passed over.
  # shellcheck disable=SC2154
  for driver in $VA_DRIVERS; do hostonly='' instmods "$driver" || :; done
}

install() {
  # shellcheck disable=SC2154
  for tool in $VA_TOOLS; do
    if command -v "$tool" >/dev/null; then inst_multiple "$tool"; fi
  done
  inst_simple /usr/sbin/va-upgrade
  inst_multiple -o /etc/mke2fs.conf
  # shellcheck disable=SC2154
  inst_hook cmdline 99 "$moddir/root.sh"
  inst_hook pre-mount 01 "$moddir/start.sh"
}
