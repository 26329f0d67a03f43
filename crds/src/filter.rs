//! The filter of a metrics endpoint: what `validate` accepts is what the proxy compiles.

use regex::{Regex, RegexBuilder};

/// Most memory a compiled filter may take, in bytes; as a query it comes from whoever can reach the port.
pub const SIZE: usize = 256 * 1024;

/// Compiles a filter: an unanchored regular expression on printed family names.
///
/// # Errors
/// Where it is none, or takes more than [`SIZE`].
pub fn compile(filter: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(filter).size_limit(SIZE).build()
}
