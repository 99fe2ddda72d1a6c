# Sets the SELinux labels that the system before could not, in the real root and
# before that takes over: no policy is loaded yet, so none refuses a label.
# Sourced where the root is mounted, by the init of initramfs-tools and by dracut.
# shellcheck shell=sh
(
  va_root=${NEWROOT:-${rootmnt:-/nowhere}}
  [ -e "$va_root/.va-upgrade-unlabelled" ] || exit 0
  mount -o bind /dev "$va_root/dev"
  mount -t proc proc "$va_root/proc"
  chroot "$va_root" /usr/sbin/va-upgrade boot --labels </dev/null >/dev/kmsg 2>&1
  umount "$va_root/proc"
  umount "$va_root/dev"
)
