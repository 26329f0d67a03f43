//! The rows of `routed` that HTTP/2 shows: each stream is answered by itself, and a call of gRPC by its own status.

use super::*;

/// One stream, and what the application does of its own.
const fn asked(
    what: &'static str,
    (client, application): (&'static [Act], &'static [Act]),
    series: &'static [&'static str],
) -> Row {
    Row {
        what,
        client,
        application,
        series,
        src: well(0, 0),
        dst: None,
    }
}

const GETS: &[Act] = &[Act::Say("hi get"), Act::Hear("h.")];
const CALLS: &[Act] = &[Act::Say("hi call."), Act::Hear("h.")];
const ANSWERS: &[Act] = &[
    Act::Hear("p"),
    Act::Say("set"),
    Act::Hear("h."),
    Act::Say("200."),
    Act::End,
];
const HANGS: &[Act] = &[Act::Hear("p"), Act::Say("set"), Act::Hear("h."), Act::End];
const RECOVERS: &[Act] = &[
    Act::Hear("p"),
    Act::Say("set"),
    Act::Hear("h."),
    Act::Say("503."),
    Act::Hear("h."),
    Act::Say("503.@3"),
    Act::Hear("h."),
    Act::Say("200.@5"),
    Act::End,
];

/// A call of gRPC that the proxy answers: its status says what is wrong, and that of HTTP does not.
const fn told(of: Ended, grpc: &'static str) -> Ended {
    Ended {
        status: 200,
        grpc,
        error: "",
        ..of
    }
}

#[tokio::test]
async fn streams_are_counted_under_their_route_or_under_none() {
    let rows: [Routed; 3] = [
        (
            Way::Outbound,
            plain,
            WELL,
            asked("a stream of a route", (GETS, ANSWERS), &[]),
        ),
        (
            Way::Outbound,
            elsewhere,
            UNMATCHED,
            asked("a stream of no route", (GETS, ANSWERS), &[]),
        ),
        (
            Way::Inbound,
            let_in,
            LET_IN,
            asked("a stream to a closed port", (GETS, ANSWERS), &[]),
        ),
    ];
    super::play(&rows, false).await;
}

#[tokio::test]
async fn streams_that_the_proxy_answers_are_told_in_their_protocol() {
    let get = |what, series| asked(what, (GETS, &[]), series);
    let call = |what, series| asked(what, (CALLS, &[]), series);
    let rows: [Routed; 6] = [
        (
            Way::Outbound,
            nowhere_else,
            NO_ROUTE,
            get("a stream of no route of a service", &[]),
        ),
        (
            Way::Outbound,
            nowhere_else,
            told(NO_ROUTE, "12"),
            call("a call of no route of a service", &[]),
        ),
        (
            Way::Outbound,
            missing,
            UNREACHED,
            get("a stream to no backend", NO_BACKENDS),
        ),
        (
            Way::Outbound,
            missing,
            told(UNREACHED, "14"),
            call("a call to no backend", NO_BACKENDS),
        ),
        (
            Way::Inbound,
            kept_out,
            KEPT_OUT,
            get("a stream that a port has no route for", NOT_FOUNDS),
        ),
        (
            Way::Inbound,
            kept_out,
            told(KEPT_OUT, "12"),
            call("a call that a port has no route for", NOT_FOUNDS),
        ),
    ];
    super::play(&rows, false).await;
}

#[tokio::test]
async fn a_stream_that_a_route_times_out_is_504() {
    let row = asked("a stream that is late", (GETS, HANGS), TIMEOUTS);
    super::play(&[(Way::Outbound, timed, TIMED_OUT, row)], false).await;
}

#[tokio::test]
async fn a_stream_that_is_sent_again_is_counted_once_and_each_attempt() {
    let row = asked("a stream that is sent again", (GETS, RECOVERS), &[]);
    super::play(&[(Way::Outbound, retried, RECOVERED, row)], false).await;
}
