//! Is it TLS, and for whom? The server name that a client's first bytes ask for (RFC 8446 section 4.1.2, RFC 6066
//! section 3).
//!
//! A pure function on bytes, called by `connection` before protocols are detected. It judges no more of a ClientHello
//! than it takes to find the name: what is wrong with the rest is for whoever terminates it to say.

use std::borrow::Cow;

/// Longest ClientHello that is waited for, in bytes with the headers of its records: what a buffer holds. A longer one
/// is TLS, and for nobody.
pub const MAX_HELLO: usize = 64 * 1024;

/// Longest name that is one, in bytes (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

/// A record's header, in bytes, and the type of those that hold a handshake.
const HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
/// Largest record that a peer may send, in bytes (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What a client's first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The beginning of what may become a ClientHello.
    NeedMore,
    /// Not TLS.
    Plain,
    /// TLS for this server, in lower case; empty where the client names none.
    Tls { sni: String },
}

/// Judges the bytes that a client has sent so far.
pub fn hello(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => Hello::Tls {
            sni: server_name(&message).unwrap_or_default(),
        },
        Err(verdict) => verdict,
    }
}

/// The body of the ClientHello, out of its records.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Hello> {
    let nobody = Err(Hello::Tls { sni: String::new() });
    let mut rest = bytes;
    let mut whole: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let is_first = whole.is_empty();
        let fragment = match record(rest, is_first) {
            Err(Hello::Plain) if !is_first => return nobody,
            // There is no room for the rest, which would be waited for in vain.
            Err(Hello::NeedMore) if bytes.len() >= MAX_HELLO => return nobody,
            fragment => fragment?,
        };
        rest = &rest[HEAD + fragment.len()..];
        if is_first {
            whole = Cow::Borrowed(fragment);
        } else {
            whole.to_mut().extend_from_slice(fragment);
        }
        if let Some(([kind, a, b, c], body)) = whole.split_first_chunk() {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != CLIENT_HELLO {
                return Err(Hello::Plain);
            }
            if body.len() >= len {
                return Ok(match whole {
                    Cow::Borrowed(whole) => Cow::Borrowed(&whole[4..4 + len]),
                    Cow::Owned(whole) => Cow::Owned(whole[4..4 + len].to_vec()),
                });
            }
            if len > MAX_HELLO {
                return nobody;
            }
        }
    }
}

/// The fragment in the record at the front.
fn record(bytes: &[u8], is_first: bool) -> Result<&[u8], Hello> {
    let is_head = |at: usize, fits: fn(u8) -> bool| bytes.get(at).is_none_or(|b| fits(*b));
    // The version of the record layer has been 3.1 or 3.3 for as long as there is TLS.
    let may_be = is_head(0, |b| b == HANDSHAKE)
        && is_head(1, |b| b == 3)
        && is_head(2, |b| b <= 4)
        && (!is_first || is_head(HEAD, |b| b == CLIENT_HELLO));
    if !may_be {
        return Err(Hello::Plain);
    }
    let Some(([_, _, _, a, b], body)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(Hello::NeedMore);
    };
    let len = usize::from(u16::from_be_bytes([*a, *b]));
    if len == 0 || len > MAX_RECORD {
        return Err(Hello::Plain);
    }
    body.get(..len).ok_or(Hello::NeedMore)
}

/// The name in the extension `server_name`.
fn server_name(body: &[u8]) -> Option<String> {
    let mut body = Cursor(body);
    // The version and the random.
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    let mut extensions = Cursor(body.vector16()?);
    loop {
        let kind = extensions.u16()?;
        let extension = extensions.vector16()?;
        if kind == SERVER_NAME {
            let mut names = Cursor(Cursor(extension).vector16()?);
            let kind = names.take(1)?[0];
            let name = names.vector16()?;
            let is_name = kind == HOST_NAME && (1..=MAX_NAME).contains(&name.len());
            let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
            return Some(name.to_ascii_lowercase());
        }
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(usize::from(len))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests;
