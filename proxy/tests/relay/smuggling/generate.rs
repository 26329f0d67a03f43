//! Makes messages whose framing is a little wrong: fields, line ends, chunks and lengths that look like right
//! ones, put together at random.

use proptest::prelude::*;
use proptest::sample::select;

type Bytes = Vec<u8>;

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    select(from)
}

/// Mostly the first, sometimes one of the others.
fn mostly(
    first: &'static str,
    others: &'static [&'static str],
) -> impl Strategy<Value = &'static str> {
    prop_oneof![9 => Just(first), 1 => pick(others)]
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![40 => Just("\r\n"), 1 => pick(&["\n", "\r", "\r\r\n", "\n\r\n", "\r\n ", ""])]
}

fn framing_field() -> impl Strategy<Value = String> {
    let name = pick(&[
        "Content-Length",
        "Transfer-Encoding",
        "content-length",
        "TRANSFER-ENCODING",
    ]);
    let colon = mostly(
        ": ",
        &[":", " : ", "\t:", ":\t", ": \t", ":  ", ":\x0b", " ", "::"],
    );
    let value = pick(&[
        "0",
        "1",
        "5",
        "5",
        "11",
        "11",
        "005",
        "5, 5",
        "5,6",
        "+5",
        "-1",
        "5 ",
        "0x5",
        "99999999999999999999",
        "",
        "chunked",
        "chunked",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "xchunked",
        "chunked,",
        ",chunked",
        "chunked chunked",
        "chunked, chunked",
    ]);
    (name, colon, value, line_end()).prop_map(|(n, c, v, e)| format!("{n}{c}{v}{e}"))
}

fn other_field() -> impl Strategy<Value = String> {
    let field = pick(&[
        "Host: a",
        "Host: b",
        "Connection: close",
        "Connection: keep-alive",
        "Upgrade: x",
        "Connection: Upgrade",
        "Expect: 100-continue",
        "X: y",
        "X:",
        "X : y",
        " folded",
        "X: \0",
        "X",
        ": y",
    ]);
    (field, line_end()).prop_map(|(f, e)| format!("{f}{e}"))
}

fn chunk() -> impl Strategy<Value = String> {
    let size = mostly(
        "5",
        &[
            "05",
            "0x5",
            " 5",
            "5 ",
            "5\t",
            "+5",
            "6",
            "4",
            "0",
            "5;a",
            "5;a=\"b\"",
            "5;\"",
            "ffffffffffffffff5",
        ],
    );
    let data = mostly("hello", &["hell", "hello!", "", "he\r\no"]);
    (size, line_end(), data, line_end()).prop_map(|(s, a, d, b)| format!("{s}{a}{d}{b}"))
}

fn last_chunk() -> impl Strategy<Value = String> {
    let size = mostly("0", &["00", "0;a", "0 ", "-0", ""]);
    let trailer = mostly(
        "",
        &[
            "A: b\r\n",
            "Content-Length: 5\r\n",
            " A: b\r\n",
            "A\r\n",
            "A : b\r\n",
            "A: \n\r\n",
        ],
    );
    (size, line_end(), trailer, line_end()).prop_map(|(s, a, t, b)| format!("{s}{a}{t}{b}"))
}

fn body() -> impl Strategy<Value = String> {
    let chunks = (prop::collection::vec(chunk(), 0..3), last_chunk());
    prop_oneof![
        3 => Just(String::new()),
        3 => pick(&["hello", "hello world", "h", "GET /s HTTP/1.1\r\nHost: s\r\n\r\n"]).prop_map(str::to_owned),
        4 => chunks.prop_map(|(chunks, last)| chunks.concat() + &last),
    ]
}

fn fields() -> impl Strategy<Value = String> {
    let field = prop_oneof![framing_field(), other_field()];
    let right = pick(&[
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "",
        "",
    ]);
    let wrong = prop::collection::vec(field, 0..3);
    (right, wrong).prop_map(|(right, wrong)| right.to_owned() + &wrong.concat())
}

fn message(start: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (start, fields(), line_end(), body()).prop_map(|(s, f, e, b)| format!("{s}{f}{e}{b}"))
}

/// A few bytes set to ones that matter to parsers.
fn mutated(text: impl Strategy<Value = String>) -> impl Strategy<Value = Bytes> {
    let byte = select(&b"\0\t\n\r :,;0a\x0b\x7f\x80\""[..]);
    let change = prop_oneof![
        3 => prop::collection::vec((any::<prop::sample::Index>(), byte.clone()), 0),
        1 => prop::collection::vec((any::<prop::sample::Index>(), byte), 1..3),
    ];
    (text, change).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// One to three requests.
pub(crate) fn requests() -> impl Strategy<Value = Bytes> {
    let method = pick(&["GET", "POST", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS"]);
    let target = mostly("/", &["/a?b", "http://b/", "*", "a:1", "/ /"]);
    let version = mostly(
        "HTTP/1.1",
        &["HTTP/1.0", "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 "],
    );
    let line = (method, target, version, line_end()).prop_map(|(m, t, v, e)| {
        if m == "CONNECT" {
            format!("{m} a:1 {v}{e}")
        } else {
            format!("{m} {t} {v}{e}")
        }
    });
    mutated(prop::collection::vec(message(line), 1..4).prop_map(|all| all.concat()))
}

/// One to three answers.
pub(crate) fn responses() -> impl Strategy<Value = Bytes> {
    let version = mostly("HTTP/1.1", &["HTTP/1.0", "HTTP/1.0", "HTTP/2.0", "ICY"]);
    let status = pick(&[
        "200 OK",
        "200 OK",
        "404 No",
        "204 No Content",
        "304 Not Modified",
        "100 Continue",
        "103 Hints",
        "20 X",
    ]);
    let line = (version, status, line_end()).prop_map(|(v, s, e)| format!("{v} {s}{e}"));
    mutated(prop::collection::vec(message(line), 1..4).prop_map(|all| all.concat()))
}
