# shellcheck shell=bash
# Named stages with their seconds, and waits with a deadline that say what failed.
# Sourced by e2e/up and what it runs; needs lib/state.sh.

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# stage TITLE COMMAND...: run the command and print how long it took.
stage() {
    local title=$1 started=$EPOCHREALTIME
    shift
    "$@"
    printf '  %-34s %6s s\n' "$title" "$(seconds_since "$started")" >&2
}

# explain COMPONENT WHAT: say which component failed, and show the end of its log.
explain() {
    local log=$state/log/$1.log
    note "error: $1: $2"
    [[ -s $log ]] || { note "(its log $log is empty)"; return; }
    note "--- the end of $log"
    tail -n 25 "$log" >&2
    note "--- logs are kept in $state/log; e2e/down removes what was started"
}

# wait_until COMPONENT SECONDS COMMAND...: retry the command until it succeeds. Fails at the
# deadline, or at once when the component's process has ended.
wait_until() {
    local component=$1 limit=$2 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>>"$state/log/wait.log"; do
        if [[ -f $state/pids/$component ]] && ! is_alive "$component"; then
            explain "$component" "ended while '$*' was awaited"
            return 1
        fi
        if ((SECONDS >= deadline)); then
            explain "$component" "'$*' did not succeed within $limit s"
            return 1
        fi
        sleep 0.1
    done
}
