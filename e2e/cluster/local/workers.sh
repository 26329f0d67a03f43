# shellcheck shell=bash
# What a Kubernetes node runs: containerd, the kubelet, kube-proxy, and CoreDNS as a host process.
# Sourced by cluster/local/up; needs node.sh and control-plane.sh.

pause_image=docker.io/library/weir-pause:dev

start_containerd() {
    cat >"$node/containerd.toml" <<EOF
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
EOF
    cp /usr/lib/cni/* "$node/cni/bin/"
    # Pods are routed one by one (ptp), so Services work without the br_netfilter module.
    cat >"$node/cni/net.d/10-weir-e2e.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "$name", "plugins": [
  {"type": "ptp", "mtu": 1500, "ipam": {"type": "host-local",
    "ranges": [[{"subnet": "$pod_range"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
    start_in_node containerd containerd --config "$node/containerd.toml"
    wait_until containerd 20 in_node ctr version
    "$e2e/image" "$pause_image" "$node/pause.tar" --entrypoint /pause "$binaries/pause:/pause"
    in_node ctr --namespace k8s.io images import "$node/pause.tar" >"$state/log/load.log"
}

start_kubelet() {
    : >"$node/resolv.conf" # pods inherit no name server and no search domain of this machine
    cat >"$node/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
featureGates: {KubeletInUserNamespace: true}
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
enforceNodeAllocatable: [pods]
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: $node_ip
healthzBindAddress: 127.0.0.1
tlsCertFile: $pki/kubelet-server.crt
tlsPrivateKeyFile: $pki/kubelet-server.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [$dns_service_ip]
resolvConf: $node/resolv.conf
evictionHard: {memory.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100 # images come by e2e/load only and must stay
EOF
    start_in_node kubelet "$node/bin/kubelet" --config="$node/kubelet.yaml" \
        --kubeconfig="$pki/kubelet.kubeconfig" --hostname-override="$name" --node-ip="$node_ip"
}

start_proxy() {
    cat >"$node/proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $name
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
clusterCIDR: $pod_range
bindAddress: $node_ip
metricsBindAddress: 127.0.0.1:10249
healthzBindAddress: 127.0.0.1:10256
iptables: {minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s} # settings of the host, left alone
EOF
    start_in_node kube-proxy "$node/bin/kube-proxy" --config="$node/proxy.yaml"
}

start_dns() {
    cat >"$node/Corefile" <<EOF
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    bind $node_ip
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $pki/dns.kubeconfig
        pods insecure
        ttl 5
    }
    cache 5
}
.:53 {
    bind $node_ip
    errors
    template ANY ANY . { # no other name exists here
        rcode NXDOMAIN
    }
}
EOF
    sed -e "s/NODE_IP/$node_ip/; s/DNS_SERVICE_IP/$dns_service_ip/" "$e2e/cluster/local/dns.yaml" >"$node/dns.yaml"
    kubectl_as_admin apply --filename "$node/dns.yaml" >"$state/log/apply.log"
    start_in_node coredns "$node/bin/coredns" -conf "$node/Corefile"
}

# Whether pods can be created, run and resolve names.
wait_for_workers() {
    wait_until kubelet 60 node_is_ready
    wait_until kube-controller-manager 30 kubectl_as_admin get serviceaccount default
    wait_until coredns 30 names_resolve
}

node_is_ready() {
    local path='{.status.conditions[?(@.type=="Ready")].status}'
    [[ $(kubectl_as_admin get node "$name" -o jsonpath="$path") == True ]]
}

# Through the Service's address, so it takes kube-proxy and CoreDNS both.
names_resolve() {
    in_node "$BASH" -c "$(<"$e2e/cluster/local/resolve")" resolve \
        "$dns_service_ip" kubernetes.default.svc.cluster.local "$api_service_ip"
}
