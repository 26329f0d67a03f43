# shellcheck shell=bash
# Room on the disks for what e2e/test writes: a compiler that finds none says so late and in many ways.
# Needs lib/state.sh.

# takes MIB VARIABLE PATH: a line of a place that is written to, of the disk it is on, and of the variable that moves it.
takes() {
    local there=$3
    until [[ -e $there ]]; do there=$(dirname "$there"); done
    printf '%s %s %s %s=%s\n' "$(stat --file-system --format=%i "$there")" \
        "$(df --output=avail --block-size=1M "$there" | tail -n 1)" "$1" "$2" "$3"
}

# What a run takes that finds nothing there (2026-11), less what is there. $1: the kind of the cluster, or nothing.
places() {
    local target binaries has=0
    target=$(e2e/lib/target-directory)
    [[ ! -d $target ]] || has=$(du --summarize --block-size=1M "$target" | cut -f 1)
    takes "$((has < 6100 ? 6100 - has : 0))" CARGO_TARGET_DIR "$target"
    [[ $1 == local ]] || return 0
    takes 700 WEIR_E2E_DIR "$state"
    binaries=$(e2e/cluster/binaries/build --where)
    [[ ! -d $binaries ]] || return 0
    takes 900 WEIR_CACHE "$(dirname "$binaries")"
    takes 3900 GOCACHE "$(go env GOCACHE)"
    takes 1400 GOMODCACHE "$(go env GOMODCACHE)"
    takes 3000 TMPDIR "${TMPDIR:-/tmp}" # while programs are linked
}

# need_room [KIND]: fail where what is written to one disk is more than what it has room for.
need_room() {
    places "${1:-}" | awk '
        { has[$1] = $2; need[$1] += $3; rest = $0; sub(/^[^ ]+ +[^ ]+ +[^ ]+ /, "", rest)
          where[$1] = where[$1] sprintf("\n  %6d MiB  %s", $3, rest) }
        END { for (disk in need) if (has[disk] < need[disk]) { full = 1
            printf "error: a disk has room for %d MiB, and up to %d would be written to it:%s\n", has[disk], need[disk], where[disk]
            print "make room there, or set one of these variables to a directory of another disk" }
            exit full }'
}
