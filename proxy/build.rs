//! Link options of the proxy's binary. Cargo runs it before it builds the package; the libraries and tests of the
//! package are linked without it.

/// Packed relative relocations (`DT_RELR`, understood by glibc 2.36 and later). A position-independent executable
/// of this size has some 25,000 of them: 0.6 MiB of table in the usual form, 7 KiB packed, all of it read when the
/// process starts and resident from then on. Linkers that do not know the option only warn.
const PACKED: &str = "-Wl,-z,pack-relative-relocs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|v| v == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins={PACKED}");
    }
}
