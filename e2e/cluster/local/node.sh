# shellcheck shell=bash
# The local cluster's node: one box of process, mount and network namespaces that holds every
# program of the cluster, so that ending the box's first process ends and unmounts all of it.
# Sourced by the scripts beside it; needs lib/state.sh, lib/stage.sh and lib/process.sh.

node=$state/node
node_ip=198.18.5.2 # of the range reserved for benchmarks, which no network should route
host_ip=198.18.5.1
pod_range=10.244.0.0/16
service_range=10.96.0.0/16
api_service_ip=10.96.0.1
dns_service_ip=10.96.0.10
cgroup=$name
export node_ip pod_range service_range api_service_ip dns_service_ip cgroup

# in_node COMMAND...: run a command inside the box.
in_node() {
    local pid
    pid=$(recorded_pid node) || die "the node is not running: e2e/down, then e2e/up"
    nsenter --target "$pid" --mount --pid --net -- "$@" 9<&-
}

# start_in_node NAME COMMAND...: start a program of the cluster inside the box, in the background.
start_in_node() {
    local component=$1 pid
    shift
    pid=$(recorded_pid node) || die "the node is not running"
    setsid nsenter --target "$pid" --mount --pid --net -- "$@" \
        >"$state/log/$component.log" 2>&1 </dev/null 9<&- &
    record "$component" $!
}

# start_node BINARIES: create the box and connect it to the host by a veth pair.
start_node() {
    local parent pid
    mkdir -p "$node"/{bin,cni/bin,cni/net.d,pki,lib,log}
    make_node_directories
    create_cgroups
    setsid unshare --fork --pid --mount --net --propagation private --mount-proc \
        "$e2e/cluster/local/node-init" "$node" "$1" \
        >"$state/log/node.log" 2>&1 </dev/null 9<&- &
    parent=$!
    for _ in {1..100}; do
        pid=$(ps -o pid= --ppid "$parent" | tr -d ' ') && break
        sleep 0.05
    done
    [[ -n $pid ]] || { explain node "could not create its namespaces"; return 1; }
    record node "$pid"
    wait_until node 10 test -e "$node/ready"
    connect_node "$pid"
}

# Directories of a node that this machine need not have: the box has its own in their place.
node_directories=(/opt/cni /opt/cni/bin /etc/cni /etc/cni/net.d)

# Make those that are missing, and note them for end_node.
make_node_directories() {
    local directory
    for directory in "${node_directories[@]}"; do
        [[ ! -d $directory ]] || continue
        mkdir "$directory"
        echo "$directory" >>"$state/node-directories"
    done
}

# Remove what was made, as far as it is empty: somebody may use it by now.
remove_node_directories() {
    local directory
    [[ -f $state/node-directories ]] || return 0
    tac "$state/node-directories" | while read -r directory; do
        rmdir --ignore-fail-on-non-empty "$directory"
    done
}

connect_node() {
    ip link add "$name" type veth peer name eth0 netns "$1"
    ip addr add "$host_ip/30" dev "$name"
    ip link set "$name" up
    in_node ip addr add "$node_ip/30" dev eth0
    in_node ip link set eth0 up
    in_node ip route add default via "$host_ip" # an answer to the host needs none; kubelet wants one
}

# Every cgroup hierarchy, one a line.
cgroup_roots() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }

# The kubelet puts all pods below one cgroup, which it expects to exist.
create_cgroups() {
    local root controller
    for root in $(cgroup_roots); do
        if [[ -f $root/cgroup.subtree_control ]]; then
            for controller in $(<"$root/cgroup.controllers"); do
                echo "+$controller" >"$root/cgroup.subtree_control" 2>/dev/null || true
            done
        fi
        mkdir -p "$root/$cgroup" 2>/dev/null || true # named hierarchies may be read-only
    done
}

# Remove the cgroups once their processes are gone; the kernel may take a moment.
remove_cgroups() {
    local root deadline=$((SECONDS + 20))
    for root in $(cgroup_roots); do
        while [[ -d $root/$cgroup ]]; do
            find "$root/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [[ -d $root/$cgroup ]] || break
            ((SECONDS < deadline)) || die "the cgroup $root/$cgroup is still in use"
            sleep 0.1
        done
    done
}

# End the box. The host's end of the veth pair would go with the network namespace, but the kernel takes those of all
# pods apart one after the other, and that takes a while where there are many.
end_node() {
    local deadline=$((SECONDS + 60))
    end node KILL
    ip link delete "$name" 2>/dev/null || true # or it is gone already
    while [[ -e /sys/class/net/$name ]]; do
        ((SECONDS < deadline)) || die "the network device $name is still there"
        sleep 0.1
    done
    remove_cgroups
    remove_node_directories
}
