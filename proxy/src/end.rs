//! How the program ends: what it says, and with which status. Called by `main` for every command; knows none of them.

use std::fmt::Display;
use std::process::ExitCode;

use weir_proxy::config::EXIT_USAGE;

/// Says what went wrong, if anything did, and whether it was the user who was.
pub(super) fn end<E: Display>(result: Result<(), E>, is_usage: impl Fn(&E) -> bool) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("weir-proxy: {error:#}");
    ExitCode::from(if is_usage(&error) { EXIT_USAGE } else { 1 })
}
