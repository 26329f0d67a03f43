# shellcheck shell=bash
# Compile the programs of a pinned Go module once, into a cache outside the checkout.
# The caller sets: what (prefix of the cache directory), title, module (directory), packages, flags.

# A flag for programs that are linked without it (-s -w): a fifth less of Go's cache, and of CPU time a fifteenth.
# shellcheck disable=SC2034 # for the caller
no_debug_information=-gcflags=all=-dwarf=false

# The version that the module's go.mod requires of a dependency.
required_version() {
    awk -v path="$1" '$1 == "require" { sub(/^require /, "") } $1 == path { print $2; exit }' "$module/go.mod"
}

# The cache directory for this very input, built or not.
cache_directory() {
    local key
    key=$(
        cd "$module" || exit
        {
            find . -name '*.go' -o -name go.mod -o -name go.sum | LC_ALL=C sort | xargs cat
            printf '%s\n' "${packages[@]}" "${flags[@]}"
            go version
        } | sha256sum | cut -c1-16
    )
    printf '%s/%s-%s\n' "${WEIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir}" "$what" "$key"
}

# From which size on each process of the compiler collects its garbage, which would be nearly half of what it does otherwise:
# half of the memory there is for as many as there are processors and one, between 512 MiB and 2 GiB.
memory_limit() {
    awk -v processors="$(nproc)" '$1 == "MemAvailable:" { mib = int($2 / 1024 / 2 / (processors + 1)) }
        END { print (mib > 2048 ? 2048 : mib < 512 ? 512 : mib) "MiB" }' /proc/meminfo
}

build_into() {
    local target=$1 building=$1.building
    rm -rf "$building"
    mkdir -p "$building"
    echo "building $title into $target (once)" >&2
    (cd "$module" && GOGC=off GOMEMLIMIT=$(memory_limit) nice -n 10 go build "${flags[@]}" -o "$building/" "${packages[@]}") >&2
    mv "$building" "$target"
}

# compile_once [--where]: build unless it was, and print the directory; --where only prints it.
compile_once() {
    local target
    export CGO_ENABLED=0 GOFLAGS=
    if ! command -v go >/dev/null; then
        echo "error: Go $(awk '$1 == "go" { print $2 }' "$module/go.mod") or later is needed to build $title: install it and put it on PATH" >&2
        return 69
    fi
    target=$(cache_directory)
    if [[ ${1:-} != --where && ! -d $target ]]; then
        mkdir -p "$(dirname "$target")"
        exec 8>"$target.lock"
        flock 8 # another build of the same input is awaited, not repeated
        [[ -d $target ]] || build_into "$target"
        exec 8>&-
    fi
    echo "$target"
}
