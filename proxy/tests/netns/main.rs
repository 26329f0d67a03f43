//! Tests with real redirection, each in network namespaces of its own: they need root, `ip` and
//! (to compare tables) `nft`. `WEIR_NETNS_TESTS=skip` passes over them.
//! Helpers are here, one story a module.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod mesh;
mod namespace;
#[allow(dead_code, reason = "the tests of the client use the rest")]
#[path = "../control/operator.rs"]
mod operator;
#[allow(dead_code, reason = "the tests of the exposition use the rest")]
#[path = "../exposition/parser.rs"]
mod parser;
mod pod;
mod stand_in;

mod cni;
mod discovery;
mod fail_open;
mod redirection;
mod routes;
mod rules;
