# Sets the SELinux labels that the system before could not, in the real root and
# before that takes over: no policy is loaded yet, so none refuses a label.
# Sourced where the root is mounted, by the init of initramfs-tools and by dracut.
# shellcheck shell=sh
(
  va_root=${NEWROOT:-${rootmnt:-/nowhere}}
  [ -e "$va_root/.va-upgrade-unlabelled" ] || exit 0
  mount -o bind /dev "$va_root/dev"
  mount -t proc proc "$va_root/proc"
  # Not every initramfs has a chroot(8): the program, which needs no library, does that.
  "$va_root/usr/sbin/va-upgrade" boot --labels "$va_root" </dev/null >/dev/kmsg 2>&1
  umount "$va_root/proc"
  umount "$va_root/dev"
)
