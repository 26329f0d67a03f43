//! The decoder against the examples of RFC 7541 appendix C, and against a whole model of HPACK.

use super::{BadBlock, Decoder, Fields, INITIAL_TABLE, integer};
use crate::record::Scheme;

mod model;

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Decodes blocks one after the other: what each says, and the size of the table after it.
fn decode(blocks: &[&str]) -> Vec<(Fields, u32)> {
    let mut decoder = Decoder::default();
    let decode = |block: &&str| {
        let mut fields = Fields::default();
        decoder
            .decode(&bytes(block), &mut fields)
            .expect("a good block");
        (fields, decoder.table_size())
    };
    blocks.iter().map(decode).collect()
}

#[test]
fn integers_of_appendix_c_1() {
    for (octets, prefix, value) in [
        (&[0x0a][..], 5, 10),
        (&[0x1f, 0x9a, 0x0a], 5, 1337),
        (&[0x2a], 8, 42),
        (&[0x7f, 0x00], 7, 127),
        (&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00], 7, 127),
        (&[0x0f, 0xf0, 0xff, 0xff, 0xff, 0x0f], 4, u32::MAX),
    ] {
        let mut rest = octets;
        assert_eq!(integer(&mut rest, prefix), Ok(value), "{octets:?}");
        assert!(rest.is_empty());
        for cut in 0..octets.len() {
            let cut = integer(&mut &octets[..cut], prefix);
            assert_eq!(cut, Err(BadBlock::Truncated), "{octets:?}");
        }
    }
    for octets in [
        &[0x0f, 0xf1, 0xff, 0xff, 0xff, 0x0f][..],
        &[0x0f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        &[0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        let got = integer(&mut &octets[..], 4);
        assert_eq!(got, Err(BadBlock::Integer), "{octets:?}");
    }
}

#[test]
fn fields_of_appendix_c_2() {
    for (block, size) in [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", 55),
        ("040c2f73616d706c652f70617468", 0),
        ("100870617373776f726406736563726574", 0),
        ("82", 0),
    ] {
        assert_eq!(decode(&[block])[0].1, size);
    }
}

#[test]
fn requests_of_appendix_c_3_and_c_4() {
    let plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let huffman = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    for blocks in [plain, huffman] {
        let decoded = decode(&blocks);
        let sizes: Vec<u32> = decoded.iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes, [57, 110, 164]);
        for (fields, _) in decoded {
            assert_eq!(fields.authority(), b"www.example.com");
            assert_eq!((fields.status, fields.is_connect), (None, false));
        }
    }
}

#[test]
fn responses_of_appendix_c_5_and_c_6() {
    // Each begins with the update to 256 octets that the examples assume.
    let plain = [
        "3fe1014803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ];
    let huffman = [
        "3fe101488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ];
    for blocks in [plain, huffman] {
        let said: Vec<_> = decode(&blocks)
            .into_iter()
            .map(|(fields, size)| (fields.status, size))
            .collect();
        assert_eq!(said, [(Some(302), 222), (Some(307), 222), (Some(200), 215)]);
    }
}

#[test]
fn bad_blocks_are_refused() {
    let error = |block: &str| {
        let mut decoder = Decoder::default();
        decoder
            .decode(&bytes(block), &mut Fields::default())
            .expect_err("a bad block")
    };
    assert_eq!(error("80"), BadBlock::Index(0));
    assert_eq!(error("be"), BadBlock::Index(62));
    assert_eq!(error("7e0161"), BadBlock::Index(62));
    assert_eq!(error("3fe21f"), BadBlock::TableSize(4097));
    assert_eq!(error("8220"), BadBlock::LateUpdate);
    assert_eq!(error("4005616263"), BadBlock::Truncated);
    assert_eq!(error("40"), BadBlock::Truncated);
    assert_eq!(error("ffffffffffff"), BadBlock::Integer);
    assert!(matches!(error("4081000161"), BadBlock::Huffman(_)));
}

#[test]
fn a_table_may_be_as_large_as_was_announced_and_no_larger_than_is_followed() {
    let update = |size: u32| {
        let mut block = vec![0x3f];
        let mut rest = size - 31;
        while rest >= 0x80 {
            block.push(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        block.push(rest as u8);
        block
    };
    let mut decoder = Decoder::default();
    let mut fields = Fields::default();
    decoder.announce(Some(1 << 20));
    decoder.acknowledge();
    assert_eq!(decoder.decode(&update(65_536), &mut fields), Ok(()));
    let large = decoder.decode(&update(65_537), &mut fields);
    assert_eq!(large, Err(BadBlock::TableSize(65_537)));
    decoder.announce(Some(100));
    assert_eq!(decoder.decode(&update(4096), &mut fields), Ok(()));
    decoder.acknowledge();
    let late = decoder.decode(&update(INITIAL_TABLE), &mut fields);
    assert_eq!(late, Err(BadBlock::TableSize(INITIAL_TABLE)));
    assert_eq!(decoder.decode(&update(100), &mut fields), Ok(()));
}

#[test]
fn the_authority_wins_over_the_host_whatever_their_order() {
    let host = "0004686f73740168";
    let authority = "010161";
    for (block, expected) in [
        (format!("{host}{authority}"), "a"),
        (format!("{authority}{host}"), "a"),
        (host.to_owned(), "h"),
        (String::new(), ""),
    ] {
        let (fields, _) = decode(&[&block]).remove(0);
        assert_eq!(fields.authority(), expected.as_bytes(), "{block}");
    }
}

#[test]
fn the_scheme_is_that_of_the_block_and_only_a_tunnel_has_none() {
    // Indexed, literal in upper case, another one, none, and none of a CONNECT.
    let connect = "0207434f4e4e454354".to_owned();
    for (block, expected) in [
        ("86".to_owned(), Scheme::Http),
        ("87".to_owned(), Scheme::Https),
        ("06054854545053".to_owned(), Scheme::Https),
        ("0603667470".to_owned(), Scheme::Other),
        (String::new(), Scheme::Http),
        (format!("{connect}87"), Scheme::Https),
        (connect, Scheme::Other),
    ] {
        let (fields, _) = decode(&[&block]).remove(0);
        assert_eq!(fields.target().scheme, expected, "{block}");
    }
    let indexed = decode(&["46054854545053", "be"]);
    assert!(
        indexed
            .iter()
            .all(|(fields, _)| fields.scheme == Some(Scheme::Https))
    );
}

#[test]
fn an_authority_that_is_no_label_costs_none() {
    let mut block = vec![0x41, 0x7f, 0x80 + 73, 0x01];
    block.resize(block.len() + 127 + 73 + 128, b'a');
    let mut fields = Fields::default();
    let mut decoder = Decoder::default();
    decoder.decode(&block, &mut fields).expect("a good block");
    assert_eq!(fields.authority(), b"");
    assert_eq!(decoder.table_size(), 10 + 328 + 32);
    decoder.decode(&[0xbe], &mut fields).expect("a good block");
    assert_eq!(fields.authority(), b"");
}
