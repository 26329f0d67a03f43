//! The memory of an exposition does not depend on its length: it is streamed, compressed or not, at the pace of its
//! reader.

use std::io::Read;

use crate::http;
use crate::process::Proxy;

/// Authorities that make 100,000 lines of text, with two statuses each.
const AUTHORITIES: usize = 1_700;
/// As many as are served at once.
const READERS: usize = 8;
/// What they may take together, in KiB, threads and their stacks included; each body is 30 MB.
const MOST: u64 = 8 * 1024;

#[test]
fn eight_readers_of_100_000_lines_take_less_than_eight_mebibytes() {
    let proxy = Proxy::start("");
    for path in ["/", "/missing"] {
        proxy.request(AUTHORITIES, path);
    }
    let whole = http::get(proxy.admin, "/metrics", "").body;
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines > 100_000, "{lines} lines");
    let before = proxy.memory("VmRSS:");
    proxy.forget_peak();
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let headers = if n % 2 == 0 {
                ""
            } else {
                "Accept-Encoding: gzip\r\n"
            };
            let mut reader = http::ask(proxy.admin, "/metrics", headers);
            std::thread::spawn(move || {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).unwrap();
                http::read(&read)
            })
        })
        .collect();
    for reader in readers {
        let text = reader.join().unwrap().text();
        assert!(text.lines().count() >= lines, "it got all of it");
    }
    let took = proxy.memory("VmHWM:").saturating_sub(before);
    println!("{READERS} readers of {} bytes took {took} KiB", whole.len());
    assert!(took <= MOST, "{took} KiB");
}
