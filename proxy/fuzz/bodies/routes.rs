//! Tables of routes: whatever is written in one, the route that is found is the first that would match alone.
//!
//! The input: a table as JSON on the first line, a method and a target on the second, then header fields. Run by the
//! fuzzer, and by `tests/corpora` on what is in `corpus`.

use weir_crds::routes::{Route, RouteTable};
use weir_proxy::routes::{Fields, Request, Table, compile};

struct Lines<'b>(&'b [u8]);

impl Fields for Lines<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.0.split(|b| *b == b'\n');
        fields.find_map(|field| field.strip_prefix(name.as_bytes())?.strip_prefix(b":"))
    }
}

fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n');
    end.map_or((bytes, &[]), |end| (&bytes[..end], &bytes[end + 1..]))
}

pub(crate) fn run(data: &[u8]) {
    let (json, rest) = line(data);
    let (start, fields) = line(rest);
    let Ok(table) = serde_json::from_slice::<RouteTable>(json) else {
        return;
    };
    let Ok(compiled) = compile(&table) else {
        return;
    };
    let mut words = start.splitn(2, |b| *b == b' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let fields = Lines(fields);
    let request = Request::new(method, target, &fields);
    let matches_alone = |route: &&Route| {
        let alone = RouteTable {
            routes: vec![(*route).clone()],
            ..RouteTable::default()
        };
        let alone = compile(&alone).expect("a part of what is within all bounds");
        Table::new(&alone).find(&request).is_some()
    };
    let expected = table.routes.iter().find(matches_alone);
    let found = Table::new(&compiled).find(&request);
    assert_eq!(
        found.as_ref().map(|route| route.name()),
        expected.map(|route| route.name.as_str())
    );
}
