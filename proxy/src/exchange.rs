//! The account of one request: opened when its head is parsed, closed when its
//! response has ended, however that was.
//!
//! The sessions of both protocols drive it, and the proxy's own calls to the operator. It must not know bytes or sockets. Dropping an
//! exchange that was not ended closes its account as canceled, so that no request is lost.

use std::time::{Duration, Instant};

use crate::telemetry::{Classification, HttpSeries, ResponseEnd};

/// What requests and responses are counted in.
pub trait Tally {
    /// A request, once its head is parsed.
    fn request(&self);
    /// The time to the response's first data, or to its end if it has none.
    fn latency(&self, status: Option<u16>, latency: Duration);
    /// A response, once its stream has ended.
    fn response(&self, end: &ResponseEnd<'_>);
    /// What an attempt came to whose request is sent once more.
    fn retried(&self, _end: &ResponseEnd<'_>) {}
    /// Whether a response with this status is a failure, where something other than the page's rule decides that.
    fn fails(&self, _status: u16) -> Option<bool> {
        None
    }
}

impl Tally for HttpSeries {
    fn request(&self) {
        HttpSeries::request(self);
    }

    fn latency(&self, status: Option<u16>, latency: Duration) {
        HttpSeries::latency(self, status, latency);
    }

    fn response(&self, end: &ResponseEnd<'_>) {
        HttpSeries::response(self, end);
    }
}

/// One request and its response.
pub struct Exchange<T: Tally = HttpSeries> {
    series: T,
    started: Instant,
    /// The request's method is HEAD.
    pub is_head: bool,
    /// The request's method is CONNECT.
    pub is_connect: bool,
    status: Option<u16>,
    grpc_status: Option<u16>,
    timed: bool,
    ended: bool,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Complete,
    /// The client went away first.
    Canceled,
    /// The server went away first.
    Reset,
    /// The server broke the response off and said why: the `error` label once there was a head.
    /// Before one it is a [`Reset`](Self::Reset).
    Broken(&'static str),
    /// The proxy answered in the server's place, with this status and `error` label.
    Replied(u16, &'static str),
    /// The server's bytes could not be followed; they were passed on.
    Unfollowed,
}

impl<T: Tally> Exchange<T> {
    /// Opens the account: the head of the request has just been parsed.
    pub fn open(series: T, started: Instant) -> Self {
        series.request();
        Self {
            series,
            started,
            is_head: false,
            is_connect: false,
            status: None,
            grpc_status: None,
            timed: false,
            ended: false,
        }
    }

    /// The final response head has arrived.
    pub fn head(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Whether the final response head has arrived.
    pub fn has_head(&self) -> bool {
        self.status.is_some()
    }

    /// The `grpc-status` of trailers, or of the head of a response without a body.
    pub fn grpc_status(&mut self, code: Option<u16>) {
        self.grpc_status = code;
    }

    /// The first data frame of the response, or its end when there was none. Answers the
    /// latency, once.
    pub fn first_data(&mut self, now: Instant) -> Option<Duration> {
        if std::mem::replace(&mut self.timed, true) {
            return None;
        }
        let latency = now.saturating_duration_since(self.started);
        self.series.latency(self.status, latency);
        Some(latency)
    }

    /// What it is counted in.
    pub fn tally(&self) -> &T {
        &self.series
    }

    /// When the head of the request was parsed.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Whether a response with this head, and this `grpc-status` where it ends with its head, is a failure.
    pub fn would_fail(&self, status: u16, grpc_status: Option<u16>) -> bool {
        self.judge(Some(status), grpc_status) == Classification::Failure
    }

    /// The attempt has come to this, and the request is sent once more.
    pub fn retry(&mut self, status: Option<u16>, error: &str) {
        self.series.retried(&ResponseEnd {
            status,
            classification: Classification::Failure,
            grpc_status: "",
            error,
        });
    }

    /// What decides about a route's responses does so before the page's rule.
    fn judge(&self, status: Option<u16>, grpc_status: Option<u16>) -> Classification {
        match status.and_then(|status| self.series.fails(status)) {
            Some(true) => Classification::Failure,
            Some(false) => Classification::Success,
            None => classify(status, grpc_status),
        }
    }

    /// Closes the account.
    pub fn end(mut self, now: Instant, end: End) {
        self.close(now, end);
    }

    fn close(&mut self, now: Instant, end: End) {
        self.ended = true;
        let had_head = self.has_head();
        let mut error = "";
        match end {
            End::Complete | End::Unfollowed => {}
            End::Canceled => error = "canceled",
            End::Broken(label) if had_head => error = label,
            End::Reset | End::Broken(_) => error = "reset",
            End::Replied(status, label) => {
                error = label;
                self.status = Some(status);
            }
        }
        let is_broken = matches!(end, End::Reset | End::Broken(_));
        if is_broken && !had_head {
            self.status = Some(502);
        }
        if self.status.is_some() {
            self.first_data(now);
        }
        let classification = match end {
            _ if is_broken => Classification::Failure,
            End::Canceled if !had_head => Classification::Failure,
            End::Unfollowed if !had_head => Classification::Success,
            // The answer is the proxy's own.
            End::Replied(..) => classify(self.status, self.grpc_status),
            _ => self.judge(self.status, self.grpc_status),
        };
        let mut digits = itoa::Buffer::new();
        let grpc_status = self.grpc_status.map_or("", |code| digits.format(code));
        self.series.response(&ResponseEnd {
            status: self.status,
            classification,
            grpc_status,
            error,
        });
    }
}

impl<T: Tally> Drop for Exchange<T> {
    fn drop(&mut self) {
        if !self.ended {
            self.close(Instant::now(), End::Canceled);
        }
    }
}

/// What a `grpc-status` that is no number counts as.
pub const UNKNOWN: u16 = 2;

/// The code that a `grpc-status` says; what is not a number counts as [`UNKNOWN`].
pub fn grpc_code(value: &[u8]) -> u16 {
    std::str::from_utf8(value)
        .ok()
        .and_then(|v| v.trim().parse().ok())
        .unwrap_or(UNKNOWN)
}

/// The page's rule: `grpc-status` decides where there is one, else the HTTP status does.
/// Codes 2, 4, 7, 13, 14 and 15 (UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS) are the server's failures.
fn classify(status: Option<u16>, grpc_status: Option<u16>) -> Classification {
    let failed = match (grpc_status, status) {
        (Some(code), _) => matches!(code, 2 | 4 | 7 | 13 | 14 | 15),
        (None, Some(status)) => (500..600).contains(&status),
        (None, None) => true,
    };
    if failed {
        Classification::Failure
    } else {
        Classification::Success
    }
}

#[cfg(test)]
mod tests {
    use super::classify;
    use crate::telemetry::Classification::{Failure, Success};

    #[test]
    fn the_grpc_status_decides_then_the_http_status() {
        for (status, grpc, expected) in [
            (200, None, Success),
            (404, None, Success),
            (429, None, Success),
            (500, None, Failure),
            (599, None, Failure),
            (503, Some(0), Success),
            (200, Some(2), Failure),
            (200, Some(7), Failure),
            (200, Some(8), Success),
            (200, Some(16), Success),
        ] {
            assert_eq!(classify(Some(status), grpc), expected, "{status} {grpc:?}");
        }
    }
}
