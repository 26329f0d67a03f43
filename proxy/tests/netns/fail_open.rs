//! Traffic is redirected while the proxy beats, and only then.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use weir_proxy::heartbeat;
use weir_proxy::init::{self, InitError};

use crate::namespace::{Namespace, is_skipped};
use crate::pod::{
    ANSWER_TIMEOUT, FAR_V4, FAR_V6, PEER_V4, PEER_V6, POD_V4, POD_V6, Pod, ask, ask_here,
    eventually, greet,
};
use crate::stand_in::{Beating, PROXY_UID, beat_once, flags, redirect};

const OTHER_UID: u32 = 1000;
/// The application's port and that of the servers it calls.
const APP: u16 = 8080;
/// The design's promise is 2 s; the test allows for the machine.
const DIRECT_AGAIN: Duration = Duration::from_millis(2500);

/// A pod whose application and proxy are greeters, with servers far away.
fn pod() -> Pod {
    let pod = Pod::new();
    greet(&pod.inside, "app", "[::]:8080");
    greet(&pod.inside, "inbound", "[::]:4143");
    greet(&pod.inside, "outbound", "127.0.0.1:4140");
    greet(&pod.inside, "outbound", "[::1]:4140");
    greet(&pod.peer, "server", "[::]:8080");
    pod
}

fn inbound(pod: &Pod, to: IpAddr) -> String {
    ask(&pod.peer, (to, APP)).unwrap()
}

fn outbound(pod: &Pod, to: IpAddr) -> String {
    ask(&pod.inside, (to, APP)).unwrap()
}

fn is_direct(pod: &Pod) -> bool {
    [POD_V4, POD_V6]
        .iter()
        .all(|to| inbound(pod, *to) == "app direct")
        && [FAR_V4, FAR_V6]
            .iter()
            .all(|to| outbound(pod, *to) == "server direct")
}

fn is_redirected(pod: &Pod) -> bool {
    inbound(pod, POD_V4) == "inbound 10.77.0.2:8080"
        && inbound(pod, POD_V6) == "inbound [fd77::2]:8080"
        && outbound(pod, FAR_V4) == "outbound 198.51.100.7:8080"
        && outbound(pod, FAR_V6) == "outbound [2001:db8::7]:8080"
        && outbound(pod, PEER_V4) == "outbound 10.77.0.1:8080"
        && outbound(pod, PEER_V6) == "outbound [fd77::1]:8080"
}

#[test]
fn redirected_only_while_the_proxy_beats() {
    if is_skipped() {
        return;
    }
    let pod = pod();
    redirect(&pod.inside, "");
    assert!(is_direct(&pod), "before the proxy starts");
    let mut beating = Beating::start(&pod.inside, PROXY_UID);
    eventually("redirected", ANSWER_TIMEOUT, || is_redirected(&pod));
    beating.stop();
    eventually("direct again", DIRECT_AGAIN, || is_direct(&pod));
    let _beating = Beating::start(&pod.inside, PROXY_UID);
    eventually("redirected again", ANSWER_TIMEOUT, || is_redirected(&pod));
}

#[test]
fn one_beat_is_enough_and_only_of_the_proxys_uid() {
    if is_skipped() {
        return;
    }
    let pod = pod();
    redirect(&pod.inside, "");
    for forger in [0, OTHER_UID] {
        beat_once(&pod.inside, forger);
        assert!(is_direct(&pod), "forged by {forger}");
    }
    pod.peer.enter_as(PROXY_UID, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"beat", (POD_V4, heartbeat::PORT)).unwrap();
    });
    assert!(is_direct(&pod), "forged from outside");
    eventually("redirected", ANSWER_TIMEOUT, || {
        beat_once(&pod.inside, PROXY_UID);
        is_redirected(&pod)
    });
}

#[test]
fn the_proxys_own_connections_and_the_pods_to_itself_go_direct() {
    if is_skipped() {
        return;
    }
    let pod = pod();
    redirect(&pod.inside, "");
    let _beating = Beating::start(&pod.inside, PROXY_UID);
    eventually("redirected", ANSWER_TIMEOUT, || is_redirected(&pod));
    for to in [FAR_V4, FAR_V6, PEER_V4] {
        let answer = pod.inside.enter_as(PROXY_UID, || ask_here((to, APP)));
        assert_eq!(answer.unwrap(), "server direct", "{to}");
    }
    let itself: [IpAddr; 5] = [
        POD_V4,
        POD_V6,
        [127, 0, 0, 1].into(),
        [127, 7, 7, 7].into(),
        "::1".parse().unwrap(),
    ];
    for (uid, to) in itself.into_iter().flat_map(|to| [(0, to), (PROXY_UID, to)]) {
        let answer = pod.inside.enter_as(uid, || ask_here((to, APP)));
        assert_eq!(answer.unwrap(), "app direct", "{to} as {uid}");
    }
}

#[test]
fn the_proxys_own_check_of_the_rules_comes_back_to_it_at_any_time() {
    if is_skipped() {
        return;
    }
    let at = |loopback: &str| (loopback.parse::<IpAddr>().unwrap(), heartbeat::PORT);
    for (line, is_ipv6) in [
        ("", true),
        ("--strict", true),
        ("--ip-family-mode ipv4", false),
    ] {
        let pod = pod();
        let checks = |uid, loopback| pod.inside.enter_as(uid, || ask_here(at(loopback)));
        assert!(checks(PROXY_UID, "127.0.0.1").is_err(), "without rules");
        redirect(&pod.inside, line);
        let v4 = checks(PROXY_UID, "127.0.0.1").unwrap();
        assert_eq!(
            v4, "outbound 127.0.0.1:4189",
            "with `{line}`, without a beat"
        );
        let v6 = checks(PROXY_UID, "::1").ok();
        let expected = is_ipv6.then(|| "outbound [::1]:4189".to_owned());
        assert_eq!(v6, expected, "with `{line}`");
        for (uid, loopback) in [
            (0, "127.0.0.1"),
            (OTHER_UID, "127.0.0.1"),
            (OTHER_UID, "::1"),
        ] {
            assert!(checks(uid, loopback).is_err(), "{uid} comes to it");
        }
        // Whoever has the port keeps it for all but the proxy.
        greet(&pod.inside, "app", "127.0.0.1:4189");
        assert_eq!(checks(OTHER_UID, "127.0.0.1").unwrap(), "app direct");
        assert_eq!(checks(PROXY_UID, "127.0.0.1").unwrap(), v4);
        let elsewhere = pod.inside.enter_as(PROXY_UID, || ask_here((PEER_V4, APP)));
        assert_eq!(elsewhere.unwrap(), "server direct");
    }
}

#[test]
fn our_own_ports_reach_the_proxys_guard_with_their_number() {
    if is_skipped() {
        return;
    }
    let pod = pod();
    greet(&pod.inside, "admin", "[::]:4191");
    redirect(&pod.inside, "");
    let _beating = Beating::start(&pod.inside, PROXY_UID);
    eventually("redirected", ANSWER_TIMEOUT, || is_redirected(&pod));
    let at = |port| ask(&pod.peer, (POD_V4, port)).unwrap();
    assert_eq!(at(4191), "admin direct");
    assert_eq!(at(4140), "inbound 10.77.0.2:4140");
    // To its own port nothing is changed: the original destination is that port.
    assert_eq!(at(4143), "inbound direct");
    assert_eq!(at(5670), "inbound 10.77.0.2:5670");
}

#[test]
fn established_connections_keep_their_path() {
    if is_skipped() {
        return;
    }
    let pod = Pod::new();
    let proxy = pod.inside.enter(|| TcpListener::bind("[::]:4143")).unwrap();
    let app = pod.inside.enter(|| TcpListener::bind("[::]:8080")).unwrap();
    redirect(&pod.inside, "");
    let connect = || {
        pod.peer
            .enter(|| TcpStream::connect((POD_V4, APP)))
            .unwrap()
    };
    let echo = |client: &mut TcpStream, server: &mut TcpStream, byte: u8| {
        client.write_all(&[byte]).unwrap();
        let mut got = [0];
        server.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        server.read_exact(&mut got).unwrap();
        assert_eq!(got, [byte]);
    };
    let mut before = connect();
    let mut before_at = app.accept().unwrap().0;
    let mut beating = Beating::start(&pod.inside, PROXY_UID);
    proxy.set_nonblocking(true).unwrap();
    let mut during = None;
    eventually("redirected", ANSWER_TIMEOUT, || {
        let client = connect();
        during = proxy.accept().ok().map(|(server, _)| (client, server));
        during.is_some()
    });
    let (mut during, mut during_at) = during.unwrap();
    during_at.set_nonblocking(false).unwrap();
    echo(&mut before, &mut before_at, 1);
    beating.stop();
    app.set_nonblocking(true).unwrap();
    while app.accept().is_ok() {}
    eventually("direct again", DIRECT_AGAIN, || {
        let _client = connect();
        app.accept().is_ok()
    });
    echo(&mut during, &mut during_at, 2);
    echo(&mut before, &mut before_at, 3);
}

#[test]
fn strict_refuses_when_the_proxy_is_dead() {
    if is_skipped() {
        return;
    }
    let pod = Pod::new();
    greet(&pod.inside, "app", "[::]:8080");
    greet(&pod.peer, "server", "[::]:8080");
    greet(&pod.peer, "dns", "[::]:53");
    redirect(&pod.inside, "--strict");
    let refused = |answer: std::io::Result<String>| {
        answer.unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused
    };
    for to in [POD_V4, POD_V6] {
        assert!(refused(ask(&pod.peer, (to, APP))), "{to}");
    }
    for to in [FAR_V4, FAR_V6] {
        assert!(refused(ask(&pod.inside, (to, APP))), "{to}");
        assert_eq!(ask(&pod.inside, (to, 53)).unwrap(), "dns direct");
    }
    greet(&pod.inside, "inbound", "[::]:4143");
    assert_eq!(inbound(&pod, POD_V4), "inbound 10.77.0.2:8080");
    assert_eq!(inbound(&pod, POD_V6), "inbound [fd77::2]:8080");
}

#[test]
fn without_the_loopback_address_of_ipv6_only_ipv4_is_redirected() {
    if is_skipped() {
        return;
    }
    let pod = Pod::new();
    greet(&pod.inside, "app", "[::]:8080");
    greet(&pod.inside, "inbound", "[::]:4143");
    greet(&pod.inside, "outbound", "127.0.0.1:4140");
    greet(&pod.peer, "server", "[::]:8080");
    pod.inside.exec("ip addr del ::1/128 dev lo");
    redirect(&pod.inside, "");
    let _beating = Beating::start(&pod.inside, PROXY_UID);
    eventually("IPv4 redirected", ANSWER_TIMEOUT, || {
        inbound(&pod, POD_V4) == "inbound 10.77.0.2:8080"
    });
    assert_eq!(outbound(&pod, FAR_V4), "outbound 198.51.100.7:8080");
    assert_eq!(inbound(&pod, POD_V6), "app direct");
    assert_eq!(outbound(&pod, FAR_V6), "server direct");
}

#[test]
fn without_the_capability_init_says_what_it_needs() {
    if is_skipped() {
        return;
    }
    let namespace = Namespace::new();
    let error = namespace.enter_as(OTHER_UID, || init::run(&flags("")));
    let error = error.unwrap_err();
    assert!(matches!(error, InitError::NotPermitted), "{error:?}");
    assert!(error.to_string().contains("NET_ADMIN"), "{error}");
}
