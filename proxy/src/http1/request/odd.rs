//! Request heads that the parser refuses, or whose lines end in more than one way: which of
//! them may pass unread?
//!
//! Called by `request`. The rule: an odd head passes while its framing fields, read in any way
//! that recipients are known to read them, say one thing. It must not know what passing means.

use httparse::{EMPTY_HEADER, Request};

use super::Fields;

/// Whether the parser's error is in the request line: then the bytes are not HTTP as we know
/// it, and no field of theirs is looked at.
pub(super) fn is_in_request_line(bytes: &[u8]) -> bool {
    let blank = blank_lines(bytes);
    let line = memchr::memchr(b'\n', &bytes[blank..]).map_or(bytes.len(), |at| blank + at + 1);
    let mut none = [EMPTY_HEADER; 0];
    Request::new(&mut none).parse(&bytes[..line]).is_err()
}

/// Where a head ends for the most lenient reader, who takes a line feed for a line's end.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    let blank = blank_lines(bytes);
    memchr::memchr_iter(b'\n', &bytes[blank..]).find_map(|at| {
        let next = blank + at + 1;
        match &bytes[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// Empty lines before the request line, in bytes.
fn blank_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b"\r\n".contains(b)).count()
}

/// Why two recipients of this whole head could see different ends of its message, if they could.
pub(super) fn doubt(head: &[u8]) -> Option<&'static str> {
    let head = &head[blank_lines(head)..];
    let mut fields = Fields::default();
    let mut is_1_1 = true;
    let mut lines = Lines::new(head).peekable();
    if let Some(line) = lines.next() {
        is_1_1 = !line.text.ends_with(b"HTTP/1.0");
    }
    let mut is_end_odd = false;
    while let Some(line) = lines.next() {
        is_end_odd |= line.text.is_empty() && !line.is_strict;
        let Some(field) = line.framing_field() else {
            continue;
        };
        let is_folded = lines.peek().is_some_and(|next| is_blank(next.text.first()));
        let Some(value) = line.value().filter(|_| !is_folded) else {
            return Some("framing field that is written oddly");
        };
        if let Err(why) = fields.add(field, value) {
            return Some(why);
        }
    }
    if is_end_odd && (fields.length.is_some() || fields.coding.is_some()) {
        return Some("end of the head that is written oddly");
    }
    fields.framing(is_1_1).err()
}

fn is_blank(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// One line as the most lenient reader sees it.
struct Line<'b> {
    text: &'b [u8],
    /// It begins and ends where a strict reader sees it begin and end, too.
    is_strict: bool,
}

impl<'b> Line<'b> {
    /// The framing field that some reader may take this line for.
    fn framing_field(&self) -> Option<&'static str> {
        let colon = memchr::memchr(b':', self.text);
        let name = &self.text[..colon.unwrap_or(self.text.len())];
        ["content-length", "transfer-encoding"]
            .into_iter()
            .find(|field| {
                let mut letters = name.iter().filter(|b| is_name_byte(**b));
                let begins = field
                    .bytes()
                    .all(|f| letters.next().is_some_and(|b| b.eq_ignore_ascii_case(&f)));
                // Without a colon the name may go on as the value does.
                begins && (colon.is_none() || letters.next().is_none())
            })
    }

    /// The value, where every reader sees the same one.
    fn value(&self) -> Option<&'b [u8]> {
        let colon = memchr::memchr(b':', self.text)?;
        let (name, value) = (&self.text[..colon], &self.text[colon + 1..]);
        let is_plain = self.is_strict
            && name.iter().all(|b| is_name_byte(*b))
            && value.iter().all(|b| *b == b'\t' || !b.is_ascii_control());
        is_plain.then_some(value)
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// The lines of a head, split at every CR and LF.
struct Lines<'b> {
    rest: &'b [u8],
    /// Lines end in CRLF; in a head without any CR, in LF.
    has_cr: bool,
    begins_strictly: bool,
}

impl<'b> Lines<'b> {
    fn new(head: &'b [u8]) -> Self {
        Self {
            rest: head,
            has_cr: memchr::memchr(b'\r', head).is_some(),
            begins_strictly: true,
        }
    }
}

impl<'b> Iterator for Lines<'b> {
    type Item = Line<'b>;

    fn next(&mut self) -> Option<Line<'b>> {
        let end = memchr::memchr2(b'\r', b'\n', self.rest)?;
        let is_crlf = self.rest[end..].starts_with(b"\r\n");
        let ends_strictly = is_crlf == self.has_cr;
        let line = Line {
            text: &self.rest[..end],
            is_strict: self.begins_strictly && ends_strictly,
        };
        self.rest = &self.rest[end + if is_crlf { 2 } else { 1 }..];
        self.begins_strictly = ends_strictly;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::{doubt, end, is_in_request_line};

    fn head(fields: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
    }

    #[test]
    fn odd_framing_is_in_doubt() {
        for fields in [
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding\r\n : chunked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding\0: chunked",
            "Trans\0fer-Encoding: chunked",
            "\"Transfer-Encoding\": chunked",
            "Transfer-Encoding chunked",
            "X: y\rTransfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\nX: y",
            "Content-Length : 5",
            "Content-Length: 5\0",
            "X: a\r\r\nContent-Length: 5",
            "bad name: x\r\nContent-Length: 5\r\nContent-Length: 6",
            "bad name: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        ] {
            assert!(doubt(head(fields).as_bytes()).is_some(), "{fields:?}");
        }
        assert!(doubt(b"POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n").is_some());
        assert!(doubt(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\n").is_some());
    }

    #[test]
    fn framing_that_can_be_read_in_one_way_passes() {
        for fields in [
            "bad name: x",
            "bad name: x\r\nContent-Length: 5",
            "X: a\r\n folded: b\r\nTransfer-Encoding: chunked",
            "X: a\nY: b",
            "X: transfer-encoding: chunked",
            "Content-Lengthy: 5 \0",
            "X: \0\r\nContent-Length: 5\r\nContent-Length: 5",
        ] {
            assert_eq!(doubt(head(fields).as_bytes()), None, "{fields:?}");
        }
        assert_eq!(doubt(b"POST / HTTP/1.1\nContent-Length: 5\n\n"), None);
    }

    #[test]
    fn the_end_is_the_most_lenient_readers() {
        assert_eq!(end(b"\r\n\r\nGET /\r\na\n\nb"), Some(14));
        assert_eq!(end(b"GET /\n\r\nb"), Some(8));
        assert_eq!(end(b"GET /\r\na: b\r\n\r"), None);
    }

    #[test]
    fn errors_in_the_request_line_are_told_from_those_after_it() {
        assert!(is_in_request_line(b"GET /\0 HTTP/1.1\r\n\r\n"));
        assert!(is_in_request_line(b"\r\nGET / HTTP/2.0\r\n"));
        assert!(!is_in_request_line(
            b"\r\nGET / HTTP/1.1\r\nbad name: x\r\n"
        ));
    }
}
