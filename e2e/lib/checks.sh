# shellcheck shell=bash
# The stages of e2e/test, in their order: a title, what each needs, and a function stage_NAME that
# fails when a command in it fails. Run from the root of the checkout. Needs lib/suite.sh.

# Those that wait for what is compiled in the background come late.
stages=(tools fmt clippy unit netns images h2spec fuzz deny prometheus cluster weir stories down)
declare -A titles=(
    [tools]="what the tests need is installed"
    [fmt]="rustfmt and shellcheck have nothing to say"
    [clippy]="clippy has nothing to say"
    [unit]="unit and in-process tests, generated files compared"
    [netns]="tests with real redirection, in network namespaces"
    [images]="static binaries and their images"
    [deny]="licenses, sources and bans of the dependencies"
    [prometheus]="images of Prometheus, whose promtool accepts the shipped scrape configuration"
    [h2spec]="h2spec has nothing to say of HTTP/2 that is terminated"
    [fuzz]="a short run of every fuzz target"
    [cluster]="a real cluster"
    [weir]="kubectl apply -k manifests"
    [stories]="the stories, on that cluster"
    [down]="the cluster is ended"
)
declare -A needs=(
    [fmt]=tools [clippy]=tools [unit]=tools [netns]=tools [prometheus]=tools
    [deny]=tools [h2spec]=tools [fuzz]=tools [images]=tools [cluster]=tools [weir]="images prometheus cluster" [stories]=weir
)
images=$logs/images

# --- before the stages

announce() {
    kind=${kind:-$(pick_cluster)}
    echo "stages: ${selected[*]}"
    ! is_selected cluster || echo "the stories run on a $kind cluster"
}

# What takes minutes the first time is begun at once, while cargo has the other core.
compile_ahead() {
    is_selected cluster || is_selected deny || return 0
    echo "in the background, unless they are cached: Kubernetes, Prometheus, cargo-deny ($logs/ahead.log)"
    # shellcheck disable=SC2016 # expanded by the inner shell
    start_ahead ahead bash -c '
        [[ $1 != local ]] || e2e/cluster/binaries/build
        e2e/cluster/binaries/build-prometheus
        e2e/lib/cargo-deny' ahead "$kind"
}

# --- the stages

stage_tools() {
    local tool
    need_packages gcc=/usr/bin/cc g++=/usr/bin/c++ libc6-dev=/usr/include/stdio.h make=/usr/bin/make \
        prometheus=/usr/bin/promtool shellcheck=/usr/bin/shellcheck \
        nftables=/usr/sbin/nft iproute2=/usr/sbin/ip chromium=/usr/bin/chromium \
        python3=/usr/bin/python3
    need_packages python3-venv="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/ensurepip"
    command -v rustup >/dev/null || die "rustup is not on PATH: install Rust with it, rust-toolchain.toml says which"
    command -v go >/dev/null || die "Go is not on PATH: $(awk '$1 == "go" { print $2 }' e2e/cluster/binaries/go.mod) or later builds the test cluster"
    need_room "$(! is_selected cluster || echo "$kind")"
    for tool in rustfmt clippy; do
        rustup component list --installed | grep --quiet "^$tool" || rustup component add "$tool"
    done
    e2e/lib/prometheus-client >/dev/null
    rustc --version
    go version
    prometheus --version 2>&1 | head -n 1
    nft --version
    chromium --version
}

stage_fmt() {
    cargo fmt --all --check
    grep --recursive --files-with-matches --exclude-dir=testdata --max-count=1 '^#!/bin/bash\|^# shellcheck shell=bash' \
        .ci e2e | xargs shellcheck
}

stage_clippy() {
    cargo clippy --workspace --locked --all-targets --features weir-e2e/cluster -- -D warnings
}

# --test=NAME for every test target but those that have stages of their own.
test_targets() {
    cargo metadata --locked --no-deps --format-version 1 |
        grep --only-matching '"kind":\["test"\][^}]*"name":"[^"]*"' |
        sed 's/.*"name":"\(.*\)"/\1/' | sort --unique |
        grep --line-regexp --invert-match 'netns\|stories' | sed 's/^/--test=/'
}

stage_unit() {
    local targets
    targets=$(test_targets)
    # Without the fuzzers, which --bins would run.
    # shellcheck disable=SC2086 # one word a target
    cargo test --workspace --exclude weir-fuzz --exclude weir-operator-fuzz --locked --no-fail-fast \
        --lib --bins --examples $targets
    cargo test --workspace --locked --no-fail-fast --doc
}

stage_netns() { cargo test --workspace --locked --test netns; }

# The one that is built here judges the configuration: Debian's has no Kubernetes discovery.
stage_prometheus() {
    e2e/cluster/prometheus-image "$images/weir-prometheus.tar"
    need_packages prometheus=/usr/bin/prometheus
    e2e/cluster/prometheus-debian-image "$images/weir-prometheus-debian.tar"
    "$(e2e/cluster/binaries/build-prometheus)/promtool" check config manifests/prometheus/*-*.yaml
}

stage_deny() {
    local deny
    deny=$(e2e/lib/cargo-deny)
    "$deny" --log-level error check bans licenses sources
    if ! timeout 60 "$deny" fetch db >"$logs/advisories.log" 2>&1; then
        echo "note: the advisories were not checked, their database is out of reach"
        return 0
    fi
    "$deny" check --disable-fetch advisories
}

stage_h2spec() { e2e/h2spec/run "$logs/h2spec-cases.log"; }

# The corpora themselves are run by stage unit.
stage_fuzz() {
    e2e/lib/fuzz 10 "$logs/fuzz"
}

stage_images() {
    e2e/build-images "$images"
    e2e/lib/idle-memory
    e2e/lib/known-functions
}

stage_cluster() {
    [[ -n $keep || -z $(cluster_kind) ]] || e2e/down
    e2e/up "--$kind" "${cluster_options[@]}"
    e2e/up "--$kind" "${cluster_options[@]}" 2>&1 | grep 'is up already' # once more changes nothing
    e2e/kubectl version
}

# Onto an empty cluster the first time; again, the new images take the place of the old.
stage_weir() {
    local deployment present
    present=$(e2e/kubectl get deployments --namespace kuma-system --output name --ignore-not-found)
    compgen -G "$images/weir-prometheus*.tar" >/dev/null || die "there are no images of Prometheus yet: e2e/test --only prometheus"
    e2e/load "$images"/*.tar
    e2e/kubectl apply --kustomize manifests
    for deployment in $present; do
        e2e/kubectl rollout restart --namespace kuma-system "$deployment"
    done
    for deployment in weir-operator weir-webhook; do
        e2e/kubectl rollout status --namespace kuma-system --timeout=120s "deployment/$deployment"
    done
}

# Four at a time, but those that are told alone: most of a story is waiting for the kubelet.
stage_stories() {
    cargo test --workspace --locked --features weir-e2e/cluster --test stories -- --test-threads=4 --show-output
}

stage_down() {
    [[ -z $keep ]] || { echo "--keep: the cluster is left up"; return 0; }
    e2e/down
    leaves_nothing
}

# What e2e/down may not leave behind, on whichever cluster.
leaves_nothing() {
    local left=()
    [[ ! -e $state ]] || left+=("$state")
    [[ ! -e /sys/class/net/$name ]] || left+=("the network device $name")
    mapfile -t -O "${#left[@]}" left < <(find /sys/fs/cgroup -maxdepth 2 -name "$name*")
    ((${#left[@]} == 0)) || die "e2e/down left behind: ${left[*]}"
}
