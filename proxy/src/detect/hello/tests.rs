use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// What rustls says first to a server of this name.
fn said(name: &str) -> Vec<u8> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn tls(sni: &str) -> Hello {
    Hello::Tls {
        sni: sni.to_owned(),
    }
}

/// The same message in records of this size.
fn in_records(bytes: &[u8], size: usize) -> Vec<u8> {
    let records = bytes[5..].chunks(size).map(|fragment| {
        let len = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &len[..], fragment].concat()
    });
    records.flatten().collect()
}

#[test]
fn the_name_is_found_once_the_hello_is_whole() {
    let bytes = said("Web.Shop.Example");
    assert_eq!(hello(&bytes), tls("web.shop.example"));
    for n in 0..bytes.len() {
        assert_eq!(hello(&bytes[..n]), Hello::NeedMore, "{n}");
    }
    let more = [&bytes[..], b"\x14\x03\x03\0\x01\x01"].concat();
    assert_eq!(hello(&more), tls("web.shop.example"));
}

#[test]
fn a_hello_may_come_in_many_records() {
    let bytes = said("web.example");
    for size in [1, 3, 4, 5, 60, 200] {
        let cut = in_records(&bytes, size);
        assert_eq!(hello(&cut), tls("web.example"), "{size}");
        for n in 0..cut.len() {
            assert_eq!(hello(&cut[..n]), Hello::NeedMore, "{size}: {n}");
        }
    }
}

#[test]
fn without_a_name_it_is_for_nobody() {
    assert_eq!(hello(&said("10.1.2.3")), tls(""));
    let mut nonsense = said("web.example");
    nonsense[5 + 4 + 34] = 255;
    assert_eq!(hello(&nonsense), tls(""));
    // It announces more than is ever waited for.
    assert_eq!(hello(b"\x16\x03\x01\0\x04\x01\xff\0\0"), tls(""));
    // Something else follows its first record.
    assert_eq!(hello(b"\x16\x03\x01\0\x06\x01\0\0\xff\0\0GET"), tls(""));
}

#[test]
fn a_hello_that_fills_the_buffer_is_for_nobody_wherever_its_records_end() {
    // Not more than is waited for by its own account: the headers of its records are.
    let mut long = vec![1, 0, 0xff, 0xff];
    long.resize(4 + 0xffff, 0);
    let bytes = in_records(&[&[0; 5], &long[..]].concat(), MAX_RECORD);
    assert_eq!(hello(&bytes[..MAX_HELLO - 1]), Hello::NeedMore);
    assert_eq!(hello(&bytes[..MAX_HELLO]), tls(""));
    // One that is whole has its name, however much has come behind it.
    let mut whole = in_records(&said("web.example"), 100);
    whole.resize(MAX_HELLO, 0);
    assert_eq!(hello(&whole), tls("web.example"));
}

#[test]
fn anything_else_is_plain_from_its_first_wrong_byte() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x02",
        b"\x16\x03\x05",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\x41\0",
        b"\x16\x03\x01\0\x05\x02",
        b"\x15\x03\x01",
        b"\0",
        b"PRI * HTTP/2.0",
    ] {
        assert_eq!(hello(bytes), Hello::Plain, "{bytes:?}");
    }
    assert_eq!(hello(b""), Hello::NeedMore);
}

proptest::proptest! {
    #[test]
    fn a_verdict_never_changes_as_bytes_arrive(mut bytes: Vec<u8>, at in 0usize..300, cut in 0usize..400) {
        let real = in_records(&said("web.example"), 100);
        bytes.splice(..0, real[..at.min(real.len())].to_vec());
        let first = hello(&bytes[..cut.min(bytes.len())]);
        if first != Hello::NeedMore {
            proptest::prop_assert_eq!(hello(&bytes), first);
        }
    }
}
