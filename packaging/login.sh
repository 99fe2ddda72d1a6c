# Tells of a system on trial, or of one that did not stay, where pam_motd has not.
case $- in
*i*)
    if [ "${MOTD_SHOWN-}" != pam ] && [ -r /run/va-upgrade.banner ]; then
        cat /run/va-upgrade.banner
    fi
    ;;
esac
