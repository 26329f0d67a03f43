//! The inputs that the fuzzer has found worth keeping (`fuzz/corpus`), run through the bodies of its targets by the
//! compiler that builds everything else. A crash it finds becomes a file there.

mod book;
#[path = "../../fuzz/bodies/chunked.rs"]
mod chunked;
#[path = "../../fuzz/bodies/cni.rs"]
mod cni;
#[path = "../../fuzz/bodies/detect.rs"]
mod detect;
#[path = "../../fuzz/bodies/documents.rs"]
mod documents;
#[path = "../../fuzz/bodies/exposition.rs"]
mod exposition;
#[path = "../../fuzz/bodies/hello.rs"]
mod hello;
#[path = "../../fuzz/bodies/hpack.rs"]
mod hpack;
#[path = "../../fuzz/bodies/http2_frames.rs"]
mod http2_frames;
#[path = "../exposition/parser.rs"]
mod parser;
#[path = "../../fuzz/bodies/request_head.rs"]
mod request_head;
#[path = "../../fuzz/bodies/response_head.rs"]
mod response_head;
#[path = "../../fuzz/bodies/routes.rs"]
mod routes;
#[path = "../../fuzz/bodies/session.rs"]
mod session;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

type Body = fn(&[u8]);

/// Each target by its name, as `cargo fuzz list` has it.
const TARGETS: &[(&str, Body)] = &[
    ("chunked", chunked::run),
    ("cni", cni::run),
    ("detect", detect::run),
    ("documents", documents::run),
    ("exposition", exposition::run),
    ("hello", hello::run),
    ("hpack", hpack::run),
    ("http2_frames", http2_frames::run),
    ("request_head", request_head::run),
    ("response_head", response_head::run),
    ("routes", routes::run),
    ("session", session::run),
];

/// All corpora together may have this many bytes.
const MOST_BYTES: usize = 200 * 1024;

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = fuzz().join("corpus").join(target);
    let files =
        fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    files
        .map(|file| file.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect()
}

#[test]
fn every_target_survives_its_corpus() {
    let mut bytes = 0;
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for (path, input) in inputs {
            bytes += input.len();
            let survived = std::panic::catch_unwind(|| run(&input));
            assert!(survived.is_ok(), "{}", path.display());
        }
    }
    assert!(
        bytes <= MOST_BYTES,
        "{bytes} bytes: minimise them (cargo fuzz cmin)"
    );
}

/// The names of what is in a directory of the fuzzer, without their extensions.
fn names(directory: &str) -> BTreeSet<String> {
    let files = fs::read_dir(fuzz().join(directory)).expect("a directory");
    files
        .map(|file| file.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into())
        .collect()
}

#[test]
fn every_target_of_the_fuzzer_has_its_body_and_its_corpus_here() {
    let here: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for directory in ["fuzz_targets", "bodies", "corpus"] {
        assert_eq!(names(directory), here, "{directory}");
    }
}
