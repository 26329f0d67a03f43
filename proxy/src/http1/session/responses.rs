//! The heads and the ends of what the server answers.

use std::time::Instant;

use super::{Session, State};
use crate::exchange::{End, grpc_code};
use crate::http1::response::{self, ParsedResponse, ResponseHead};
use crate::http1::{Framing, MAX_HEAD};

impl Session {
    pub(super) fn response_head(&mut self, bytes: &[u8], now: Instant) -> usize {
        let Some(exchange) = self.exchanges.front_mut() else {
            return self.unsolicited(bytes, now);
        };
        if !(bytes.len() >= MAX_HEAD || self.response_attempt.is_due(bytes)) {
            return 0;
        }
        let head = match response::parse(bytes, exchange.is_head) {
            ParsedResponse::Incomplete if bytes.len() < MAX_HEAD => {
                self.response_attempt.was_in_vain(bytes);
                return 0;
            }
            ParsedResponse::Incomplete => {
                return self.stop_following("response head size", bytes, now);
            }
            ParsedResponse::Unparsed(why) => return self.stop_following(why, bytes, now),
            ParsedResponse::Head(head) => head,
        };
        self.response_attempt.succeeded();
        if is_interim(head.status) {
            return head.len;
        }
        if self.goes_elsewhere(&head, bytes) || self.has_failed(&head, now) {
            return 0;
        }
        let Some(exchange) = self.exchanges.front_mut() else {
            return 0;
        };
        exchange.head(head.status);
        if head.status == 101 || (exchange.is_connect && (200..300).contains(&head.status)) {
            exchange.first_data(now);
            self.open_tunnel(now);
            return head.len;
        }
        self.follow_body(&head, now);
        head.len
    }

    fn follow_body(&mut self, head: &ResponseHead<'_>, now: Instant) {
        if self.offers && self.exchanges.len() == 1 {
            self.offers = false;
            if matches!(self.requests, State::Held) {
                self.requests = self.after_request();
                self.resumed = true;
            }
        }
        self.responses = match head.framing {
            Framing::None => {
                if let (Some(code), Some(front)) = (head.grpc_status, self.exchanges.front_mut()) {
                    front.grpc_status(Some(grpc_code(code)));
                }
                return self.end_front(now, End::Complete);
            }
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Chunked(Box::default()),
            Framing::UntilClose => {
                // What waits for such an end may be waiting for ever.
                self.has_doubtful_end = head.is_doubtful;
                self.resumed |= head.is_doubtful;
                State::UntilClose
            }
        };
    }

    /// Times the first data and ends the response when its body has ended.
    pub(super) fn response_progress(&mut self, now: Instant) {
        let (data, ended, grpc) = match &self.responses {
            State::Length(left) => (true, *left == 0, None),
            State::Chunked(reader) => (reader.has_data(), reader.is_done(), reader.grpc_status()),
            State::UntilClose => (true, false, None),
            _ => return,
        };
        let Some(front) = self.exchanges.front_mut() else {
            return;
        };
        if data && let Some(latency) = front.first_data(now) {
            let latest = self.steering.as_ref();
            self.latency = Some(latest.map_or(latency, |s| s.latest(latency, now)));
        }
        if ended {
            front.grpc_status(grpc);
            self.end_front(now, End::Complete);
        }
    }

    pub(super) fn end_front(&mut self, now: Instant, end: End) {
        if let Some(mut exchange) = self.exchanges.pop_front() {
            if let Some(latency) = exchange.first_data(now) {
                let latest = self.steering.as_ref();
                self.latency = Some(latest.map_or(latency, |s| s.latest(latency, now)));
            }
            exchange.end(now, end);
            self.completed += 1;
            self.resumed |= self.exchanges.len() + 1 == self.most();
            self.forget_steering();
        }
        self.responses = State::Head;
    }
}

fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}
