# shellcheck shell=bash
# Debian packages that a script needs: installed when it runs as root, else named in one error.
# Services of new packages are neither started nor left enabled. Needs lib/state.sh.

# missing_packages PACKAGE=FILE...: print the packages whose file is not there.
missing_packages() {
    local pair
    for pair in "$@"; do
        [[ -e ${pair#*=} ]] || echo "${pair%%=*}"
    done | sort -u
}

# need_packages PACKAGE=FILE...: install what is missing.
need_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null || ((EUID != 0)); then
        die "these Debian packages are missing: ${missing[*]}; install them (apt-get install ${missing[*]}) or run this as root"
    fi
    note "installing Debian packages: ${missing[*]}"
    install_without_services "${missing[@]}"
    mapfile -t missing < <(missing_packages "$@")
    ((!${#missing[@]})) || die "installed, but still without their files: ${missing[*]}"
}

# apt-get with a policy that forbids starting services; what it enabled for the next boot is
# disabled again. The policy is removed afterwards if it was put there by us.
install_without_services() {
    local policy=/usr/sbin/policy-rc.d ours='' unit
    if [[ ! -e $policy ]]; then
        ours=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if ! run_apt "$@"; then
        [[ -z $ours ]] || rm -f "$ours"
        die "apt-get could not install: $*"
    fi
    [[ -z $ours ]] || rm -f "$ours"
    command -v systemctl >/dev/null || return 0
    for unit in $(dpkg-query --listfiles "$@" | sed -n 's#.*/systemd/system/\([^/@]*\.\(service\|timer\)\)$#\1#p'); do
        systemctl --quiet disable "$unit" 2>/dev/null || true
    done
}

run_apt() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2 >&2 &&
        apt-get install --yes --quiet=2 --no-install-recommends -o Dpkg::Use-Pty=0 "$@" 9<&- >&2
}
