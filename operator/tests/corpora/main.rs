//! The inputs that the fuzzer has found worth keeping (`fuzz/corpus`), run through the body of its
//! target by the compiler that builds everything else. A crash it finds becomes a file there.

#[path = "../../fuzz/bodies/signing_request.rs"]
mod signing_request;

use std::fs;
use std::path::Path;

use weir_operator::serve::identity::request;

/// The corpus may have this many bytes.
const MOST_BYTES: usize = 100 * 1024;

#[test]
fn the_target_survives_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/signing_request");
    let (mut bytes, mut taken) = (0, 0);
    for file in fs::read_dir(corpus).expect("a corpus") {
        let path = file.expect("an entry").path();
        let input = fs::read(&path).expect("a file");
        bytes += input.len();
        taken += usize::from(input[0] % 3 == 0 && request::read(&input[1..]).is_ok());
        let survived = std::panic::catch_unwind(|| signing_request::run(&input));
        assert!(survived.is_ok(), "{}", path.display());
    }
    assert!(taken > 0, "some are good requests");
    assert!(
        bytes <= MOST_BYTES,
        "{bytes} bytes: minimise them (cargo fuzz cmin)"
    );
}
