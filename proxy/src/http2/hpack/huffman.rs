//! Huffman's code for strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols,
//! and the first of a length follows the last of the one before. So the lengths are all there is
//! to know; the tables are made of them when this is compiled.

/// Bits of the code of each symbol; the last is EOS.
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Bits of the longest code.
const LONGEST: usize = 30;
/// Bits that the fast table takes at once; every code of a letter, a digit or a common sign fits.
const FAST: u32 = 8;
/// The symbol that no string may hold.
const EOS: u16 = 256;

/// The symbols in the order of their codes, and where each length begins in it.
struct Code {
    symbols: [u16; 257],
    /// The first code of each length, and how many symbols have shorter ones.
    first: [u32; LONGEST + 1],
    before: [u16; LONGEST + 1],
    count: [u16; LONGEST + 1],
}

static CODE: Code = code();
/// Symbol and bits of the code that eight bits begin with; no bits where it is longer.
static SHORT: [(u8, u8); 1 << FAST] = short();

const fn code() -> Code {
    let mut code = Code {
        symbols: [0; 257],
        first: [0; LONGEST + 1],
        before: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
    };
    let (mut next, mut at, mut bits) = (0, 0, 1);
    while bits <= LONGEST {
        next <<= 1;
        code.first[bits] = next;
        code.before[bits] = at;
        let mut symbol = 0;
        while symbol < BITS.len() {
            if BITS[symbol] as usize == bits {
                code.symbols[at as usize] = symbol as u16;
                code.count[bits] += 1;
                at += 1;
                next += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    code
}

const fn short() -> [(u8, u8); 1 << FAST] {
    let code = code();
    let mut table = [(0, 0); 1 << FAST];
    let mut bits = 1;
    while bits <= FAST {
        let mut n = 0;
        while n < code.count[bits as usize] as u32 {
            let symbol = code.symbols[code.before[bits as usize] as usize + n as usize];
            let start = (code.first[bits as usize] + n) << (FAST - bits);
            let mut at = 0;
            while at < 1 << (FAST - bits) {
                table[(start + at) as usize] = (symbol as u8, bits as u8);
                at += 1;
            }
            n += 1;
        }
        bits += 1;
    }
    table
}

/// A string that is not in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a string is not in Huffman's code")]
pub struct BadHuffman;

/// Decodes a string, symbol by symbol.
pub fn decode(mut bytes: &[u8], mut put: impl FnMut(u8)) -> Result<(), BadHuffman> {
    // The next bits, the first of them at the top; zeros below.
    let (mut window, mut have) = (0u64, 0u32);
    loop {
        if have < LONGEST as u32 {
            refill(&mut window, &mut have, &mut bytes);
        }
        let (symbol, bits) = SHORT[(window >> (64 - FAST)) as usize];
        let (symbol, bits) = match bits {
            0 => long(window)?,
            _ => (u16::from(symbol), u32::from(bits)),
        };
        if bits > have {
            return padding(window, have);
        }
        if symbol == EOS {
            return Err(BadHuffman);
        }
        // Below 256, as EOS is the only symbol that is not.
        put(symbol as u8);
        window <<= bits;
        have -= bits;
    }
}

fn refill(window: &mut u64, have: &mut u32, bytes: &mut &[u8]) {
    if let Some((word, rest)) = bytes.split_first_chunk::<4>() {
        *window |= u64::from(u32::from_be_bytes(*word)) << (32 - *have);
        *have += 32;
        *bytes = rest;
        return;
    }
    for byte in *bytes {
        *window |= u64::from(*byte) << (56 - *have);
        *have += 8;
    }
    *bytes = &[];
}

/// A code of more than eight bits: its symbol and its bits.
fn long(window: u64) -> Result<(u16, u32), BadHuffman> {
    for bits in FAST as usize + 1..=LONGEST {
        let value = (window >> (64 - bits)) as u32;
        let offset = value.wrapping_sub(CODE.first[bits]);
        if offset < u32::from(CODE.count[bits]) {
            let at = usize::from(CODE.before[bits]) + offset as usize;
            return Ok((CODE.symbols[at], bits as u32));
        }
    }
    Err(BadHuffman)
}

/// What is left must be the beginning of EOS, and less than an octet.
fn padding(window: u64, have: u32) -> Result<(), BadHuffman> {
    match have {
        0 => Ok(()),
        1..8 if window >> (64 - have) == (1 << have) - 1 => Ok(()),
        _ => Err(BadHuffman),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{BITS, BadHuffman, CODE, LONGEST, decode};

    /// The code of a symbol, found in the tables the other way round.
    fn code_of(symbol: u16) -> (u32, u8) {
        let bits = usize::from(BITS[usize::from(symbol)]);
        let start = usize::from(CODE.before[bits]);
        let end = start + usize::from(CODE.count[bits]);
        let at = CODE.symbols[start..end].iter().position(|s| *s == symbol);
        let offset = u32::try_from(at.unwrap()).unwrap();
        (CODE.first[bits] + offset, BITS[usize::from(symbol)])
    }

    fn encode(symbols: &[u16]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for symbol in symbols {
            let (code, n) = code_of(*symbol);
            bits.extend((0..n).rev().map(|at| code >> at & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        let byte = |eight: &[bool]| eight.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        bits.chunks(8).map(byte).collect()
    }

    pub(in crate::http2::hpack) fn encode_text(text: &[u8]) -> Vec<u8> {
        let symbols: Vec<u16> = text.iter().map(|b| u16::from(*b)).collect();
        encode(&symbols)
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, BadHuffman> {
        let mut out = Vec::new();
        decode(bytes, |symbol| out.push(symbol)).map(|()| out)
    }

    #[test]
    fn the_codes_are_those_of_appendix_b() {
        for (symbol, code, bits) in [
            (u16::from(b'0'), 0x0, 5),
            (u16::from(b't'), 0x9, 5),
            (u16::from(b' '), 0x14, 6),
            (u16::from(b'u'), 0x2d, 6),
            (u16::from(b':'), 0x5c, 7),
            (u16::from(b'&'), 0xf8, 8),
            (u16::from(b'Z'), 0xfd, 8),
            (u16::from(b'!'), 0x3f8, 10),
            (0, 0x1ff8, 13),
            (u16::from(b'\\'), 0x7fff0, 19),
            (249, 0x0fff_fffe, 28),
            (10, 0x3fff_fffc, 30),
            (256, 0x3fff_ffff, 30),
        ] {
            assert_eq!(code_of(symbol), (code, bits), "{symbol}");
        }
        let kraft: u64 = BITS
            .iter()
            .map(|b| 1u64 << (LONGEST - usize::from(*b)))
            .sum();
        assert_eq!(kraft, 1 << LONGEST, "the code is complete");
    }

    #[test]
    fn bad_padding_and_eos_are_refused() {
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        // 'a' is 00011; its padding must be ones, and less than an octet.
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(BadHuffman));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(BadHuffman));
        assert_eq!(decoded(&[0xff]), Err(BadHuffman));
        assert_eq!(decoded(&[0xff; 4]), Err(BadHuffman));
        assert_eq!(decoded(&encode(&[97, 256, 97])), Err(BadHuffman));
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_comes_back(text: Vec<u8>) {
            proptest::prop_assert_eq!(decoded(&encode_text(&text)), Ok(text));
        }

        #[test]
        fn what_decodes_is_the_encoding_of_what_comes_out(bytes: Vec<u8>) {
            if let Ok(text) = decoded(&bytes) {
                proptest::prop_assert_eq!(encode_text(&text), bytes);
            }
        }
    }
}
