//! HPACK as RFC 7541 tells it, with whole strings: random blocks are encoded by it, and the
//! decoder must say of them what the model knows.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::{Decoder, Fields, INITIAL_TABLE};
use crate::http2::hpack::huffman;
use crate::record::Scheme;

/// How a field is written.
#[derive(Clone, Debug)]
enum Step {
    /// As an entry of the dynamic table, if there is one at this place.
    Dynamic(usize),
    /// As a literal: its name from a list, its value, indexed or not, name by index or not.
    Literal(usize, String, bool, bool),
    Resize(u32),
}

const NAMES: [&str; 10] = [
    ":authority",
    ":method",
    ":scheme",
    ":status",
    "host",
    "content-type",
    "grpc-status",
    ":path",
    "x-trace",
    "x-a-name-that-is-longer-than-any-that-is-looked-for",
];

#[derive(Default)]
struct Model {
    /// The newest first.
    table: VecDeque<(String, String)>,
    max: usize,
}

impl Model {
    fn size(&self) -> usize {
        self.table.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
    }

    fn shrink(&mut self) {
        while self.size() > self.max {
            self.table.pop_back();
        }
    }

    fn insert(&mut self, name: &str, value: &str) {
        self.table.push_front((name.to_owned(), value.to_owned()));
        self.shrink();
    }

    /// Writes the block and tells the fields in it.
    fn encode(&mut self, steps: &[Step]) -> (Vec<u8>, Vec<(String, String)>) {
        let (mut block, mut fields) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Resize(size) if fields.is_empty() => {
                    integer(&mut block, 0x20, 5, *size as usize);
                    self.max = *size as usize;
                    self.shrink();
                }
                Step::Resize(_) => {}
                Step::Dynamic(at) => {
                    if self.table.is_empty() {
                        continue;
                    }
                    let at = at % self.table.len();
                    integer(&mut block, 0x80, 7, 62 + at);
                    fields.push(self.table[at].clone());
                }
                Step::Literal(name, value, is_indexed, by_index) => {
                    let name = NAMES[name % NAMES.len()];
                    self.literal(&mut block, (name, value), *is_indexed, *by_index);
                    fields.push((name.to_owned(), value.clone()));
                }
            }
        }
        (block, fields)
    }

    fn literal(
        &mut self,
        block: &mut Vec<u8>,
        (name, value): (&str, &str),
        is_indexed: bool,
        by_index: bool,
    ) {
        let (first, prefix) = if is_indexed { (0x40, 6) } else { (0x10, 4) };
        let known = self.table.iter().position(|(n, _)| n == name);
        match known {
            Some(at) if by_index => integer(block, first, prefix, 62 + at),
            _ => {
                integer(block, first, prefix, 0);
                string(block, name);
            }
        }
        string(block, value);
        if is_indexed {
            self.insert(name, value);
        }
    }
}

fn integer(block: &mut Vec<u8>, first: u8, prefix: u8, value: usize) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        return block.push(first | value as u8);
    }
    block.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// In Huffman's code where the length is odd, so that both are met.
fn string(block: &mut Vec<u8>, text: &str) {
    if text.len().is_multiple_of(2) {
        integer(block, 0, 7, text.len());
        return block.extend(text.bytes());
    }
    let coded = huffman::tests::encode_text(text.as_bytes());
    integer(block, 0x80, 7, coded.len());
    block.extend(coded);
}

/// The last value of a name.
fn last<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    let named = fields.iter().rev().find(|(n, _)| n == name);
    named.map(|(_, value)| value.as_str())
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        Just("CONNECT".to_owned()),
        Just("https".to_owned()),
        Just("application/grpc+proto".to_owned()),
        Just("200".to_owned()),
        Just("14".to_owned()),
        "[ -~]{0,40}",
        "[a-z.]{250,300}",
    ];
    prop_oneof![
        2 => any::<usize>().prop_map(Step::Dynamic),
        4 => (any::<usize>(), value, any::<bool>(), any::<bool>())
            .prop_map(|(name, value, indexed, by_index)| Step::Literal(name, value, indexed, by_index)),
        1 => (0..=INITIAL_TABLE).prop_map(Step::Resize),
    ]
}

proptest! {
    #[test]
    fn the_decoder_says_what_the_model_knows(
        blocks in proptest::collection::vec(proptest::collection::vec(step(), 0..12), 1..12),
    ) {
        let mut model = Model { max: INITIAL_TABLE as usize, ..Model::default() };
        let (mut decoder, mut said) = (Decoder::default(), Fields::default());
        for steps in blocks {
            let (block, fields) = model.encode(&steps);
            decoder.decode(&block, &mut said).expect("a good block");
            prop_assert_eq!(decoder.table_size() as usize, model.size());
            let authority = last(&fields, ":authority").or_else(|| last(&fields, "host"));
            let authority = authority.filter(|a| a.len() <= super::super::MAX_TEXT);
            prop_assert_eq!(said.authority(), authority.unwrap_or_default().as_bytes());
            let is_connect = last(&fields, ":method") == Some("CONNECT");
            prop_assert_eq!(said.is_connect, is_connect);
            let scheme = last(&fields, ":scheme").map(|name| Scheme::of(name.as_bytes()));
            prop_assert_eq!(said.scheme, scheme);
            let is_grpc = last(&fields, "content-type") == Some("application/grpc+proto");
            prop_assert_eq!(said.is_grpc, is_grpc);
            if let Some("200") = last(&fields, ":status") {
                prop_assert_eq!(said.status, Some(200));
            }
            if let Some("14") = last(&fields, "grpc-status") {
                prop_assert_eq!(said.grpc_status, Some(14));
            }
        }
    }
}
