//! Request heads: what passes, what is refused, what goes on unmeasured.

use super::{Authority, Framing, ParsedRequest, RequestHead, Scheme, parse};

fn head(text: &str) -> RequestHead<'_> {
    match parse(text.as_bytes()) {
        ParsedRequest::Head(head) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn framing_is_what_the_fields_say() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(head(&format!("{post}\r\n")).framing, Framing::None);
    assert_eq!(
        head(&format!("{post}Content-Length: 5\r\n\r\n")).framing,
        Framing::Length(5)
    );
    assert_eq!(
        head(&format!("{post}Content-Length: 0\r\n\r\n")).framing,
        Framing::None
    );
    let twice = format!("{post}Content-Length: 5\r\ncontent-length: 5, 5\r\n\r\n");
    assert_eq!(head(&twice).framing, Framing::Length(5));
    assert_eq!(
        head(&format!("{post}Transfer-Encoding: CHUNKED\r\n\r\n")).framing,
        Framing::Chunked
    );
    let list = format!("{post}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(head(&list).framing, Framing::Chunked);
}

#[test]
fn ambiguous_framing_is_refused() {
    for (version, fields) in [
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("1.1", "Content-Length: 5, 6\r\n"),
        ("1.1", "Content-Length: +5\r\n"),
        ("1.1", "Content-Length: -1\r\n"),
        ("1.1", "Content-Length: 5 5\r\n"),
        ("1.1", "Content-Length: 0x5\r\n"),
        ("1.1", "Content-Length:\r\n"),
        ("1.1", "Content-Length: 99999999999999999999\r\n"),
        ("1.1", "Transfer-Encoding: xchunked\r\n"),
        ("1.1", "Transfer-Encoding: chunked, identity\r\n"),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n"),
        (
            "1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        ),
        ("1.1", "Transfer-Encoding:\r\n"),
        ("1.1", "Transfer-Encoding: \"chunked\"\r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n"),
    ] {
        let text = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert!(
            matches!(parse(text.as_bytes()), ParsedRequest::Ambiguous(_)),
            "{text:?}"
        );
    }
}

#[test]
fn odd_syntax_passes_unmeasured() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\nContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET /\0 HTTP/1.1\r\n\r\n",
    ] {
        assert!(
            matches!(parse(text.as_bytes()), ParsedRequest::Unparsed(_)),
            "{text:?}"
        );
    }
}

#[test]
fn an_odd_head_whose_framing_is_odd_too_is_refused_once_it_is_whole() {
    let text = "POST / HTTP/1.1\r\nbad name: x\r\nTransfer-Encoding : chunked\r\n\r\n";
    let judged = |n: usize| parse(&text.as_bytes()[..n]);
    assert!((1..text.len()).all(|n| judged(n) == ParsedRequest::Incomplete));
    assert!(matches!(judged(text.len()), ParsedRequest::Ambiguous(_)));
    let line = "POST / HTTP/2.0\r\n";
    assert_eq!(
        parse(line.as_bytes()),
        ParsedRequest::Unparsed("version"),
        "what is not HTTP is not held"
    );
}

#[test]
fn two_hosts_are_one_too_many() {
    let of = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let differ = of("Host: a\r\nHost: b\r\n");
    let judged = parse(differ.as_bytes());
    assert_eq!(judged, ParsedRequest::Ambiguous("host fields differ"));
    assert_eq!(head(&of("Host: a\r\nhost: A\r\n")).authority.text, b"A");
}

#[test]
fn a_connect_has_no_content() {
    for field in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let text = format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n{field}\r\n\r\n");
        let judged = parse(text.as_bytes());
        assert_eq!(judged, ParsedRequest::Ambiguous("content of a CONNECT"));
    }
}

#[test]
fn the_last_request_of_a_connection_is_known() {
    for (text, is_last) in [
        ("GET / HTTP/1.1\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: a, CLOSE ,b\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false),
        (
            "GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
            true,
        ),
    ] {
        assert_eq!(head(text).is_last, is_last, "{text:?}");
    }
}

#[test]
fn the_authority_is_the_targets_or_the_hosts() {
    let (http, https, other) = (Scheme::Http, Scheme::Https, Scheme::Other);
    for (line, scheme, expected) in [
        ("GET / HTTP/1.1", http, "Web.example:8080"),
        ("GET http://other:81/x?y HTTP/1.1", http, "other:81"),
        ("GET HTTPS://other:443/x?y HTTP/1.1", https, "other:443"),
        ("GET ftp://other:443 HTTP/1.1", other, "other:443"),
        ("GET http://user@other?x HTTP/1.1", http, "other"),
        ("OPTIONS * HTTP/1.1", http, "Web.example:8080"),
        ("CONNECT db:5432 HTTP/1.1", other, "db:5432"),
        ("GET x?u=https://other HTTP/1.1", http, "Web.example:8080"),
    ] {
        let text = format!("{line}\r\nHost: Web.example:8080\r\n\r\n");
        let head = head(&text);
        let Authority { scheme: said, text } = head.authority;
        assert_eq!((said, text), (scheme, expected.as_bytes()), "{line}");
    }
    let none = head("GET / HTTP/1.0\r\n\r\n").authority;
    assert_eq!(none, b""[..].into());
}

#[test]
fn methods_and_upgrades_that_matter_are_seen() {
    assert!(head("HEAD / HTTP/1.1\r\n\r\n").is_head);
    assert!(head("CONNECT a:1 HTTP/1.1\r\n\r\n").is_connect);
    assert!(head("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").upgrade);
}

#[test]
fn many_fields_fit_and_too_many_pass_unmeasured() {
    let many = |n: usize| {
        let fields: String = (0..n).map(|i| format!("x-{i}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\n{fields}\r\n")
    };
    assert_eq!(head(&many(300)).framing, Framing::None);
    assert!(matches!(
        parse(many(600).as_bytes()),
        ParsedRequest::Unparsed("too many fields")
    ));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn a_head_never_reaches_beyond_the_bytes(text in "[A-Z]{1,5} /[a-z]{0,5} HTTP/1\\.[01]\r\n([a-zA-Z-]{1,10}: [ -~]{0,10}\r\n){0,5}\r\n") {
        if let ParsedRequest::Head(head) = parse(text.as_bytes()) {
            proptest::prop_assert_eq!(head.len, text.len());
        }
    }
}
