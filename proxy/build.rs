//! Link options of the proxy's binary. Cargo runs it before it builds the package; the libraries and tests of the
//! package are linked without it.

/// Packed relative relocations (`DT_RELR`, understood by glibc 2.36 and later). A position-independent executable
/// of this size has some 25,000 of them: 0.6 MiB of table in the usual form, 7 KiB packed, all of it read when the
/// process starts and resident from then on. Linkers that do not know the option only warn.
const PACKED: &str = "-Wl,-z,pack-relative-relocs";

/// What a proxy runs of its program, side by side: `e2e/bench/order` writes this file. The kernel makes code resident
/// in blocks of 64 KiB, and in a program that is in the order of its crates nearly every block holds a function that
/// runs at the start. A name that is gone by now costs the order of one function.
const ORDER: [&str; 2] = [
    "-Wl,--symbol-ordering-file",
    "-Wl,--no-warn-symbol-ordering",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of = |part: &str| std::env::var(part).unwrap_or_default();
    let target = ["ARCH", "OS", "ENV"].map(|part| of(&format!("CARGO_CFG_TARGET_{part}")));
    let [arch, os, env] = target.each_ref().map(String::as_str);
    if (os, env) != ("linux", "gnu") {
        return;
    }
    println!("cargo::rustc-link-arg-bins={PACKED}");
    // The program that is published is linked by the toolchain's own lld; another linker may not know this.
    let features = of("CARGO_CFG_TARGET_FEATURE");
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    if arch == "x86_64" && is_static && of("PROFILE") == "release" {
        let [file, quiet] = ORDER;
        println!("cargo::rerun-if-changed=text.order");
        println!(
            "cargo::rustc-link-arg-bins={file}={}/text.order",
            of("CARGO_MANIFEST_DIR")
        );
        println!("cargo::rustc-link-arg-bins={quiet}");
    }
}
