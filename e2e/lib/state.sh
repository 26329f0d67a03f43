# shellcheck shell=bash
# Where a test cluster keeps its state, and how the scripts speak; sourced by every e2e script.
# Sets: e2e (the e2e directory), name, state, kubeconfig.

e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=weir-e2e
state=$(realpath -m "${WEIR_E2E_DIR:-/tmp/weir-e2e}")
kubeconfig=$state/kubeconfig
marker=$state/.weir-e2e # present only in a directory that `up` made; holds "local" or "kind"

note() { printf '%s\n' "$*" >&2; }

die() {
    note "error: $*"
    exit 1
}

# Print "local" or "kind" for the cluster whose state is here, nothing for none.
cluster_kind() {
    [[ ! -f $marker ]] || cat "$marker"
}

# Print the kind of cluster to start where nobody chose one.
pick_cluster() {
    if command -v kind >/dev/null && timeout 10 docker info >/dev/null 2>&1; then
        echo kind
    else
        echo local
    fi
}

require_cluster() {
    [[ -n $(cluster_kind) && -f $kubeconfig ]] || die "no cluster is up in $state: run e2e/up first"
}

# Make the state directory for a cluster of the given kind. Refuses a directory of someone else's.
create_state() {
    if [[ -d $state && ! -f $marker && -n $(ls -A "$state") ]]; then
        die "$state holds other files: empty it or set WEIR_E2E_DIR to another directory"
    fi
    mkdir -p "$state"
    echo "$1" >"$marker"
    mkdir -p "$state/log" "$state/pids"
}

# Remove the state directory, if it is one that `up` made.
remove_state() {
    [[ -f $marker ]] || return 0
    rm -rf --one-file-system -- "$state"
}

# Let one `up` or `down` at a time work on this state; the lock ends with the script.
# Programs started under the lock must close descriptor 9 (9<&-).
lock_state() {
    mkdir -p "$(dirname "$state")"
    exec 9<"$(dirname "$state")"
    flock --timeout "${WEIR_E2E_LOCK_TIMEOUT:-300}" 9 ||
        die "another e2e/up or e2e/down has been working on $state for ${WEIR_E2E_LOCK_TIMEOUT:-300} s"
}
