# shellcheck shell=bash
# The local cluster's control plane: etcd, the API server, the controllers and the scheduler.
# Sourced by cluster/local/up; needs node.sh.

pki=$node/pki

start_etcd() {
    start_in_node etcd etcd --data-dir=/var/lib/etcd --unsafe-no-fsync --logger=zap \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380
    wait_until etcd 20 in_node curl --silent --fail --noproxy '*' http://127.0.0.1:2379/health
}

start_apiserver() {
    start_in_node kube-apiserver "$node/bin/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$node_ip" --secure-port=6443 \
        --service-cluster-ip-range="$service_range" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --allow-privileged \
        --client-ca-file="$pki/ca.crt" \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
        --kubelet-certificate-authority="$pki/ca.crt" \
        --kubelet-client-certificate="$pki/kubelet-client.crt" \
        --kubelet-client-key="$pki/kubelet-client.key" \
        --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$pki/service-account.pub" \
        --service-account-signing-key-file="$pki/service-account.key"
    wait_until kube-apiserver 60 kubectl_as_admin get --raw /readyz
}

start_controllers() {
    start_in_node kube-controller-manager "$node/bin/kube-controller-manager" \
        --kubeconfig="$pki/controller-manager.kubeconfig" --leader-elect=false \
        --bind-address=127.0.0.1 --use-service-account-credentials \
        --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/service-account.key" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key"
    start_in_node kube-scheduler "$node/bin/kube-scheduler" \
        --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
}

kubectl_as_admin() {
    "$state/kubectl" --kubeconfig="$kubeconfig" --request-timeout=10s "$@" 9<&-
}
