# Has dracut look for no root: there is none. Sourced by it behind all that reads root=.
# shellcheck shell=sh disable=SC2034
root=va-migrate
rootok=1
