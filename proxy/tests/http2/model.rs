//! Random interleavings of streams in both directions, cut at random: the accounts are those of a
//! model that knows each stream by itself.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_proxy::exchange::End;

use crate::pair::Pair;
use crate::wire::{
    END_HEADERS, END_STREAM, block, data, frame, headers, hello, message, reset, settings,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Open {
        grpc: bool,
        connect: bool,
        ends: bool,
    },
    Ask {
        messages: u8,
        ends: bool,
    },
    Cancel,
    Interim,
    Head {
        status: u16,
        ends: bool,
    },
    Answer {
        messages: u8,
        ends: bool,
    },
    Trailers(u16),
    Break(u32),
    /// Frames that say nothing about a stream.
    Noise,
}

/// What is known of one stream.
#[derive(Default)]
struct Stream {
    grpc: bool,
    connect: bool,
    status: Option<u16>,
    asked: bool,
    answered: bool,
    /// Its row was counted.
    counted: bool,
    gone: bool,
}

#[derive(Default)]
struct Model {
    streams: Vec<Stream>,
    rows: BTreeMap<String, f64>,
    latencies: f64,
    /// Streams whose latency was recorded.
    timed: Vec<bool>,
    messages: (f64, f64),
    /// What was sent: true from the client.
    sent: Vec<(bool, Vec<u8>)>,
}

fn number(at: usize) -> u32 {
    2 * u32::try_from(at).unwrap() + 1
}

fn is_failure(status: u16, grpc: Option<u16>) -> bool {
    match grpc {
        Some(code) => [2, 4, 7, 13, 14, 15].contains(&code),
        None => (500..600).contains(&status),
    }
}

impl Model {
    fn count(
        &mut self,
        at: usize,
        (status, failure, grpc, error): (Option<u16>, bool, Option<u16>, &str),
    ) {
        let stream = &mut self.streams[at];
        if std::mem::replace(&mut stream.counted, true) {
            return;
        }
        let class = if failure { "failure" } else { "success" };
        let text = |n: Option<u16>, absent: &str| n.map_or(absent.to_owned(), |n| n.to_string());
        let row = format!("{},{class},{},{error}", text(status, "-"), text(grpc, ""));
        *self.rows.entry(row).or_default() += 1.0;
        if status.is_some() {
            self.time(at);
        }
    }

    fn time(&mut self, at: usize) {
        if !std::mem::replace(&mut self.timed[at], true) {
            self.latencies += 1.0;
        }
    }

    fn is_tunnel(&self, at: usize) -> bool {
        let stream = &self.streams[at];
        stream.connect && stream.status.is_some_and(|s| (200..300).contains(&s))
    }

    fn complete(&mut self, at: usize, grpc: Option<u16>) {
        self.streams[at].answered = true;
        let both = self.streams[at].asked;
        if both || !self.is_tunnel(at) {
            let status = self.streams[at].status;
            let failure = is_failure(status.unwrap(), grpc);
            self.count(at, (status, failure, grpc, ""));
        }
        self.streams[at].gone |= both;
    }

    fn ask_end(&mut self, at: usize) {
        self.streams[at].asked = true;
        if self.streams[at].answered {
            if self.is_tunnel(at) {
                let status = self.streams[at].status;
                self.count(at, (status, false, None, ""));
            }
            self.streams[at].gone = true;
        }
    }

    fn leave(&mut self, at: usize, end: End) {
        let status = self.streams[at].status;
        let row = match (status, end) {
            (Some(200..300), End::Canceled) if self.streams[at].connect => {
                (status, true, None, "reset")
            }
            (None, End::Canceled) => (None, true, None, "canceled"),
            (Some(code), End::Canceled) => (status, is_failure(code, None), None, "canceled"),
            (None, _) => (Some(502), true, None, "reset"),
            (Some(_), _) => (status, true, None, "reset"),
        };
        self.count(at, row);
        self.streams[at].gone = true;
    }

    fn up(&mut self, bytes: Vec<u8>) {
        self.sent.push((true, bytes));
    }

    fn down(&mut self, bytes: Vec<u8>) {
        self.sent.push((false, bytes));
    }

    fn open(&mut self, grpc: bool, connect: bool, ends: bool) {
        let at = self.streams.len();
        self.streams.push(Stream {
            grpc,
            connect,
            ..Stream::default()
        });
        self.timed.push(false);
        let kind = if grpc {
            "application/grpc"
        } else {
            "text/plain"
        };
        let method = if connect { "CONNECT" } else { "POST" };
        let fields = [
            (":method", method),
            (":authority", "web"),
            ("content-type", kind),
        ];
        // In two fragments.
        let block = block(&fields);
        let (first, second) = block.split_at(block.len() / 2);
        let flags = if ends { END_STREAM } else { 0 };
        self.up(frame(0x1, flags, number(at), first));
        self.up(frame(0x9, END_HEADERS, number(at), second));
        if ends {
            self.ask_end(at);
        }
    }

    /// Does what a step says, where peers would do it.
    fn step(&mut self, at: usize, step: Step) {
        if let Step::Open {
            grpc,
            connect,
            ends,
        } = step
        {
            return self.open(grpc, connect, ends && !connect);
        }
        if self.streams.is_empty() {
            return;
        }
        let at = at % self.streams.len();
        if self.streams[at].gone {
            return;
        }
        let (stream, n) = (&self.streams[at], number(at));
        let (asks, answers) = (!stream.asked, !stream.answered);
        let has_head = stream.status.is_some();
        match step {
            Step::Ask { messages, ends } if asks => self.ask(at, messages, ends),
            Step::Cancel => {
                self.up(reset(n, 3));
                self.leave(at, End::Canceled);
            }
            Step::Interim if answers && !has_head => {
                self.down(headers(n, 0, &[(":status", "103")]))
            }
            Step::Head { status, ends } if answers && !has_head => self.head(at, status, ends),
            Step::Answer { messages, ends } if answers && has_head => {
                self.answer(at, messages, ends)
            }
            Step::Trailers(code) if answers && has_head && !self.is_tunnel(at) => {
                let text = code.to_string();
                self.down(headers(n, END_STREAM, &[("grpc-status", &text)]));
                self.complete(at, Some(code));
            }
            Step::Break(code) => self.break_off(at, code),
            Step::Noise => {
                self.up(frame(0x6, 0, 0, b"12345678"));
                self.down(frame(0x8, 0, n, &[0, 0, 1, 0]));
            }
            _ => {}
        }
    }

    fn ask(&mut self, at: usize, messages: u8, ends: bool) {
        let bytes = message(2).repeat(usize::from(messages));
        self.up(data(number(at), u8::from(ends), &bytes));
        if self.streams[at].grpc {
            self.messages.0 += f64::from(messages);
        }
        if ends {
            self.ask_end(at);
        }
    }

    fn head(&mut self, at: usize, status: u16, ends: bool) {
        self.streams[at].status = Some(status);
        let text = status.to_string();
        let fields = [(":status", &*text), ("content-type", "application/grpc")];
        self.down(headers(number(at), u8::from(ends), &fields));
        if self.is_tunnel(at) {
            self.time(at);
        }
        if ends {
            self.complete(at, None);
        }
    }

    fn answer(&mut self, at: usize, messages: u8, ends: bool) {
        let bytes = message(3).repeat(usize::from(messages));
        // Padded.
        let padded = [&[4][..], &bytes, &[0; 4]].concat();
        self.down(frame(0x0, u8::from(ends) | 0x8, number(at), &padded));
        self.time(at);
        if self.streams[at].grpc {
            self.messages.1 += f64::from(messages);
        }
        if ends {
            self.complete(at, None);
        }
    }

    fn break_off(&mut self, at: usize, code: u32) {
        self.down(reset(number(at), code));
        let status = self.streams[at].status;
        let error = match status {
            Some(_) if !self.is_tunnel(at) => {
                ["h2(NO_ERROR)", "h2(PROTOCOL_ERROR)", "h2(INTERNAL_ERROR)"][code as usize]
            }
            _ => "reset",
        };
        let row = match (self.is_tunnel(at), code) {
            (true, 0) => (status, false, None, ""),
            _ => (status.or(Some(502)), true, None, error),
        };
        self.count(at, row);
        self.streams[at].gone = true;
    }
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![Just(200u16), Just(204), Just(404), Just(500), Just(503)];
    let any = any::<bool>;
    prop_oneof![
        3 => (any(), prop::bool::weighted(0.2), any())
            .prop_map(|(grpc, connect, ends)| Step::Open { grpc, connect, ends }),
        3 => (0u8..4, any()).prop_map(|(messages, ends)| Step::Ask { messages, ends }),
        1 => Just(Step::Cancel),
        1 => Just(Step::Interim),
        4 => (status, prop::bool::weighted(0.2)).prop_map(|(status, ends)| Step::Head { status, ends }),
        3 => (0u8..4, any()).prop_map(|(messages, ends)| Step::Answer { messages, ends }),
        2 => (0u16..17).prop_map(Step::Trailers),
        1 => (0u32..3).prop_map(Step::Break),
        1 => Just(Step::Noise),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn accounts_are_those_of_the_model(
        steps in prop::collection::vec((0usize..64, step()), 1..100),
        cuts in prop::collection::vec(1usize..60, 1..50),
        end in prop_oneof![Just(End::Canceled), Just(End::Reset)],
    ) {
        let mut model = Model::default();
        model.up(hello());
        model.down(settings(&[]));
        for (at, step) in steps {
            model.step(at, step);
        }
        let mut pair = Pair::silent(true);
        let mut cuts = cuts.iter().cycle();
        for (is_up, bytes) in &model.sent {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let n = rest.len().min(*cuts.next().unwrap());
                if *is_up { pair.up(&rest[..n]) } else { pair.down(&rest[..n]) }
                rest = &rest[n..];
            }
        }
        let open = model.streams.iter().filter(|s| !s.gone).count();
        prop_assert_eq!(pair.total("http2_active_streams"), 2.0 * open as f64);
        prop_assert_eq!(pair.session().is_busy(), open > 0);
        pair.finish(end);
        for at in 0..model.streams.len() {
            if !model.streams[at].gone {
                model.leave(at, end);
            }
        }
        prop_assert_eq!(pair.total("request_total"), model.streams.len() as f64);
        prop_assert_eq!(pair.responses(), model.rows);
        prop_assert_eq!(pair.total("response_latency_ms_count"), model.latencies);
        let kinds = ["kind=\"received\"", "kind=\"sent\""].map(|k| pair.sum("grpc_messages_total", &[k]));
        prop_assert_eq!(kinds, [model.messages.0, model.messages.1]);
        prop_assert_eq!(pair.total("weir_http_unparsed_total"), 0.0);
        prop_assert_eq!(pair.total("http2_active_streams"), 0.0);
    }
}
