//! The ClientHello: bytes that are judged are judged for good, a name is one, and no wait is without an end.
//!
//! The input: two bytes that say where the bytes are cut, and the bytes. Run by the fuzzer, and by `tests/corpora` on
//! what is in `corpus`.

use weir_proxy::detect::hello::{Hello, MAX_HELLO, hello};

pub(crate) fn run(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first_chunk() else {
        return;
    };
    let cut = usize::from(u16::from_le_bytes(*cut));
    let whole = hello(bytes);
    let part = hello(&bytes[..bytes.len().min(cut)]);
    if part != Hello::NeedMore {
        assert_eq!(whole, part, "what was judged is judged anew");
    }
    match whole {
        Hello::NeedMore => {
            assert!(bytes.len() < MAX_HELLO, "it is waited for without an end");
            assert!(bytes.is_empty() || bytes[0] == 22);
        }
        Hello::Plain => assert!(!bytes.is_empty()),
        Hello::Tls { sni } => {
            assert!(sni.len() <= 253);
            let has_it = sni.is_empty() || bytes.len() > sni.len();
            assert!(has_it && !sni.bytes().any(|b| b.is_ascii_uppercase()));
        }
    }
}
