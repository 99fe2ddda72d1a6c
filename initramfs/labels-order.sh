# Has the init of initramfs-tools, which reads this first, source the script for
# SELinux labels last of what it does in the real root.
# shellcheck shell=sh
mkdir -p /scripts/init-bottom
echo '. /conf/va-upgrade-labels.sh' >>/scripts/init-bottom/ORDER
