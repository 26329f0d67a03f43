# shellcheck shell=bash
# Processes that `up` starts, recorded by pid and start time, so that `down` ends these and no
# others even after a pid was used again. Needs lib/state.sh.

# The time the process started, in clock ticks since boot: field 22 of /proc/PID/stat, counted
# behind the command's name because that may hold spaces.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086 # the fields are to be split
    set -- $stat
    [[ $1 != Z ]] && echo "${20}"
}

# record NAME PID: remember a process.
record() {
    echo "$2 $(start_time "$2")" >"$state/pids/$1"
}

# Print the pid recorded under the name, if that very process still runs.
recorded_pid() {
    local pid started
    read -r pid started 2>/dev/null <"$state/pids/$1" || return 1
    [[ -n $started && $(start_time "$pid") == "$started" ]] && echo "$pid"
}

is_alive() { recorded_pid "$1" >/dev/null; }

# end NAME SIGNAL: signal a recorded process and wait until it is gone.
end() {
    local pid deadline=$((SECONDS + 20))
    while pid=$(recorded_pid "$1"); do
        kill "-$2" "$pid" 2>/dev/null || true
        ((SECONDS < deadline)) || die "process $pid ($1) does not end"
        sleep 0.1
    done
    rm -f "$state/pids/$1"
}
