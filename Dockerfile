# The three images of Weir, for publishing:
#   docker build --target proxy -t weir-proxy:dev .      (likewise webhook, operator)
# Each holds one static binary and nothing else: no shell, no package, no root.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# The commit, for proxy_build_info: --build-arg WEIR_GIT_SHA="$(git rev-parse --short HEAD)".
ARG WEIR_GIT_SHA=
# Naming the target keeps the flags away from build scripts and procedural macros.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    set -e; \
    target="$(rustc -vV | sed -n 's/^host: //p')"; \
    mkdir /out; \
    cp "$(e2e/lib/published-proxy)" /out/; \
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --profile control-plane --locked --target "$target" --package weir-webhook --package weir-operator --bins; \
    cp "target/$target/control-plane/weir-webhook" "target/$target/control-plane/weir-operator" /out/

FROM scratch AS proxy
COPY --from=build /out/weir-proxy /weir-proxy
USER 5678:5678
ENTRYPOINT ["/weir-proxy"]

FROM scratch AS webhook
COPY --from=build /out/weir-webhook /weir-webhook
USER 65532:65532
ENTRYPOINT ["/weir-webhook"]

FROM scratch AS operator
COPY --from=build /out/weir-operator /weir-operator
USER 65532:65532
ENTRYPOINT ["/weir-operator"]
