//! Tests with real redirection, each in network namespaces of its own: they need root, `ip` and
//! (to compare tables) `nft`. `WEIR_NETNS_TESTS=skip` passes over them.
//! Helpers are here, one story a module.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod namespace;
mod pod;
mod stand_in;

mod fail_open;
mod rules;
