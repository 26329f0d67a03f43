# shellcheck shell=bash
# How e2e/test runs its stages: each under a heading with its seconds and its log, none that needs
# a failed one, and a summary at the end. The stages themselves are in checks.sh.
# Needs lib/state.sh and lib/stage.sh.

suite_started=$EPOCHREALTIME
logs=$PWD/target/e2e
mkdir -p "$logs"
selected=() failed=() ahead=()
declare -A outcome=() took=()

list_stages() {
    local name
    for name in "${stages[@]}"; do
        printf '%-10s %s\n' "$name" "${titles[$name]}"
    done
}

# select_stages NAMES: fill `selected` with the stages named, separated by commas, or with all.
select_stages() {
    local name
    selected=("${stages[@]}")
    [[ -n $1 ]] || return 0
    IFS=, read -ra selected <<<"$1"
    for name in "${selected[@]}"; do
        [[ -n ${titles[$name]:-} ]] || die "no stage is called '$name': e2e/test --list names them"
    done
}

is_selected() { [[ " ${selected[*]} " == *" $1 "* ]]; }

# run_stage NAME: run stage_NAME unless what it needs has failed; remember how it went.
run_stage() {
    local name=$1 needed started=$EPOCHREALTIME status
    printf '\n=== %s: %s\n' "$name" "${titles[$name]}"
    for needed in ${needs[$name]:-}; do
        [[ -z ${outcome[$needed]:-} || ${outcome[$needed]} == passed ]] && continue
        echo "not run, for it needs $needed"
        outcome[$name]="not run"
        failed+=("$name")
        return 0
    done
    outcome[$name]=interrupted # until it has ended: `finish` ends a cluster that is half up, too
    set +e # errexit holds inside the stage only if the stage is no condition
    (
        set -e
        "stage_$name"
    ) 2>&1 | tee "$logs/$name.log"
    status=${PIPESTATUS[0]}
    set -e
    took[$name]=$(seconds_since "$started")
    outcome[$name]=passed
    if ((status)); then
        outcome[$name]=failed
        failed+=("$name")
    fi
    printf -- '--- %s %s after %s s\n' "$name" "${outcome[$name]}" "${took[$name]}"
}

# start_ahead LOG COMMAND...: run a command in the background, with what the stages leave of the processors, ended with this
# script. Where Linux groups processes by their sessions, it is the group that has to be nice.
start_ahead() {
    local log=$logs/$1.log
    shift
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid nice -n 19 bash -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null || true; exec "$@"' ahead "$@" \
        >"$log" 2>&1 </dev/null &
    ahead+=($!)
}

# finish: end what still runs, then the cluster, then say how everything went. The trap on EXIT.
finish() {
    local status=$? pid
    trap - EXIT INT TERM
    for pid in "${ahead[@]}"; do
        kill -- "-$pid" 2>/dev/null || true # its own process group, by setsid
    done
    if is_selected down && [[ -n ${outcome[cluster]:-} && -z $keep && -n $(cluster_kind) ]]; then
        e2e/down || status=1
    fi
    ((${#outcome[@]})) || exit "$status"
    summarise
    ((status || ${#failed[@]} == 0)) || status=1
    exit "$status"
}

summarise() {
    local name
    printf '\n=== summary\n'
    for name in "${selected[@]}"; do
        printf '%-10s %-8s %8s s\n' "$name" "${outcome[$name]:-not run}" "${took[$name]:--}"
    done
    printf 'in all %s s; the logs are in %s\n' "$(seconds_since "$suite_started")" "$logs"
    for name in "${failed[@]}"; do
        printf 'FAILED: %s, alone again by: e2e/test --only %s\n' "$name" "$name"
    done
    count_tests
}

# The sum of what the test runs of the stages closed with, in the words of such a closing line.
count_tests() {
    local name files=()
    for name in "${!outcome[@]}"; do
        [[ ! -f $logs/$name.log || ${outcome[$name]} == "not run" ]] || files+=("$logs/$name.log")
    done
    cat "${files[@]}" </dev/null | awk -v stages="${#failed[@]}" '
        /^test result:/ { for (i = 2; i <= NF; i++) { word = $i; sub(/;/, "", word)
            if (word == "passed") passed += $(i-1); if (word == "failed") failed += $(i-1)
            if (word == "ignored") ignored += $(i-1) } }
        END { if (stages && !failed) failed = stages
            printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }'
}
