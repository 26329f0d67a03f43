//! Reads the corpora: named bytes with what is to become of them. The format is described in `requests.txt`.

/// One entry of a corpus.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// Messages that are followed before the verdict.
    pub(crate) messages: usize,
    /// Empty where there is nothing but these.
    pub(crate) verdict: &'static str,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn requests() -> Vec<Entry> {
    read(include_str!("requests.txt"))
}

pub(crate) fn responses() -> Vec<Entry> {
    read(include_str!("responses.txt"))
}

fn read(text: &'static str) -> Vec<Entry> {
    text.split("\n== ").skip(1).map(entry).collect()
}

fn entry(text: &'static str) -> Entry {
    let (title, rest) = text.split_once('\n').expect("bytes below the title");
    let (name, expected) = title.split_once(": ").expect("NAME: N VERDICT");
    let (messages, verdict) = expected.split_once(' ').unwrap_or((expected, ""));
    let lines = rest.split('\n').take_while(|line| !line.is_empty());
    Entry {
        name,
        messages: messages.parse().expect("a number"),
        verdict,
        bytes: unescape(&lines.collect::<String>()),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend(plain.as_bytes());
        let (kind, after) = escaped.split_at(1);
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
                rest = &after[2..];
            }
            "{" => {
                let (repeated, after) = after.split_once('}').expect("a closing brace");
                let (times, piece) = repeated.split_once('*').expect("N*TEXT");
                let times = times.parse().expect("a number");
                bytes.extend(unescape(piece).repeat(times));
                rest = after;
            }
            other => panic!("an unknown escape: {other:?}"),
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

#[test]
fn escapes_are_read() {
    assert_eq!(
        unescape(r"a\r\n\t\0\\\x7f\{2*b\n}c"),
        b"a\r\n\t\0\\\x7fb\nb\nc"
    );
    let entries = requests();
    assert!(entries.len() > 100, "{}", entries.len());
    let names: std::collections::BTreeSet<_> = entries.iter().map(|e| e.name).collect();
    assert_eq!(names.len(), entries.len(), "a name occurs twice");
}
