//! Writes the CustomResourceDefinitions and their kustomization below `manifests/crds`.
//! Run by hand after a change of the schemas; a test of the library fails until it was. It decides nothing: what is
//! written comes from `weir_crds::kubernetes::definitions`.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use weir_crds::kubernetes::definitions::{Manifest, manifests};

fn main() -> ExitCode {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write below {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for Manifest { file, text } in manifests() {
        fs::write(directory.join(&file), text)?;
        println!("manifests/crds/{file}");
    }
    Ok(())
}
