//! The table in the kernel: that it is the one `--dry-run` prints, that a run replaces it, and
//! that each exclusion has its effect.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};

use weir_proxy::init;

use crate::namespace::{Namespace, is_skipped};
use crate::pod::{ANSWER_TIMEOUT, FAR_V4, FAR_V6, POD_V4, POD_V6, Pod, ask, greet};
use crate::stand_in::{Beating, PROXY_UID, beat_once, flags, redirect};

/// Every kind of rule there is.
pub(crate) const EVERYTHING: &str = "--exclude-inbound-ports 22,8000-8010 --exclude-outbound-ports 3306,5000-5001 \
    --exclude-inbound-ips 192.0.2.7,10.0.0.0/9,fd00::/7 \
    --exclude-outbound-ips 10.0.0.0/8,fd00::/8,2001:db8::5,172.16.0.0/12";

/// The whole ruleset of a namespace, without handles, which differ by history alone.
pub(crate) fn listed(namespace: &Namespace) -> String {
    namespace.exec("nft list ruleset")
}

/// Loads what `--dry-run` prints, with the official tool.
fn load(namespace: &Namespace, rules: &str) {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped());
    let mut nft = namespace.spawn(&mut nft, None);
    let mut input = nft.0.stdin.take().unwrap();
    input.write_all(rules.as_bytes()).unwrap();
    drop(input);
    assert!(nft.0.wait().unwrap().success(), "nft refuses:\n{rules}");
}

#[test]
fn the_installed_table_is_the_printed_one() {
    if is_skipped() {
        return;
    }
    for line in ["", "--strict", "--ip-family-mode ipv4", EVERYTHING] {
        let (ours, theirs) = (Namespace::new(), Namespace::new());
        redirect(&ours, line);
        load(&theirs, &init::rules(&flags(line)).unwrap());
        let ours = listed(&ours);
        assert_eq!(ours, listed(&theirs), "with flags `{line}`");
        assert!(ours.contains("redirect to :4143"), "{ours}");
    }
}

#[test]
fn a_second_run_replaces_the_first() {
    if is_skipped() {
        return;
    }
    let (again, once) = (Namespace::new(), Namespace::new());
    redirect(&once, EVERYTHING);
    for line in [
        "",
        "--ip-family-mode ipv4",
        "--strict",
        "",
        EVERYTHING,
        EVERYTHING,
    ] {
        redirect(&again, line);
    }
    assert_eq!(listed(&again), listed(&once));
}

#[test]
fn a_table_of_somebody_else_stays() {
    if is_skipped() {
        return;
    }
    let namespace = Namespace::new();
    namespace.exec("nft add table inet theirs");
    redirect(&namespace, "");
    redirect(&namespace, "--ip-family-mode ipv4");
    assert!(listed(&namespace).contains("table inet theirs"));
}

/// A pod under the flags `line`, whose proxy beats until the second value is dropped.
fn alive(line: &str) -> (Pod, Beating) {
    let pod = Pod::new();
    redirect(&pod.inside, line);
    greet(&pod.inside, "inbound", "[::]:4143");
    greet(&pod.inside, "outbound", "127.0.0.1:4140");
    greet(&pod.inside, "outbound", "[::1]:4140");
    beat_once(&pod.inside, PROXY_UID);
    let beating = Beating::start(&pod.inside, PROXY_UID);
    (pod, beating)
}

fn first_word(answer: std::io::Result<String>) -> String {
    let answer = answer.unwrap();
    answer
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn excluded_ports_go_direct() {
    if is_skipped() {
        return;
    }
    let (pod, _beating) =
        alive("--exclude-inbound-ports 7001,7010-7012 --exclude-outbound-ports 7001,7010-7012");
    for (port, is_direct) in [
        (7000, false),
        (7001, true),
        (7009, false),
        (7010, true),
        (7012, true),
        (7013, false),
    ] {
        greet(&pod.inside, "app", &format!("[::]:{port}"));
        greet(&pod.peer, "server", &format!("[::]:{port}"));
        let (app, server) = if is_direct {
            ("app", "server")
        } else {
            ("inbound", "outbound")
        };
        for (own, far) in [(POD_V4, FAR_V4), (POD_V6, FAR_V6)] {
            assert_eq!(
                first_word(ask(&pod.peer, (own, port))),
                app,
                "to {own}:{port}"
            );
            assert_eq!(
                first_word(ask(&pod.inside, (far, port))),
                server,
                "to {far}:{port}"
            );
        }
    }
}

#[test]
fn excluded_subnets_go_direct() {
    if is_skipped() {
        return;
    }
    let (pod, _beating) =
        alive("--exclude-inbound-ips fd77::/16 --exclude-outbound-ips 198.51.100.0/29");
    greet(&pod.inside, "app", "[::]:80");
    greet(&pod.peer, "server", "[::]:80");
    let word = |namespace, to: IpAddr| first_word(ask(namespace, (to, 80)));
    assert_eq!(word(&pod.peer, POD_V6), "app");
    assert_eq!(word(&pod.peer, POD_V4), "inbound");
    assert_eq!(word(&pod.inside, FAR_V4), "server");
    assert_eq!(word(&pod.inside, FAR_V6), "outbound");
}

#[test]
fn ipv4_mode_leaves_ipv6_alone() {
    if is_skipped() {
        return;
    }
    let (pod, _beating) = alive("--ip-family-mode ipv4");
    greet(&pod.inside, "app", "[::]:80");
    assert_eq!(first_word(ask(&pod.peer, (POD_V4, 80))), "inbound");
    assert_eq!(first_word(ask(&pod.peer, (POD_V6, 80))), "app");
}

#[test]
fn udp_and_dns_are_untouched() {
    if is_skipped() {
        return;
    }
    let (pod, _beating) = alive("");
    greet(&pod.peer, "dns", "[::]:53");
    assert_eq!(first_word(ask(&pod.inside, (FAR_V4, 53))), "dns");
    let server = pod.peer.enter(|| UdpSocket::bind((FAR_V4, 53))).unwrap();
    server.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    let client = pod.inside.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.send_to(b"?", (FAR_V4, 53)).unwrap();
    let mut question = [0; 8];
    let (length, from) = server.recv_from(&mut question).unwrap();
    assert_eq!((&question[..length], from.ip()), (&b"?"[..], POD_V4));
}

#[test]
fn traffic_that_the_pod_only_routes_is_not_redirected() {
    if is_skipped() {
        return;
    }
    let (pod, _beating) = alive("");
    let nested = Namespace::new();
    let path = nested.path();
    pod.inside.exec(&format!(
        "ip link add br0 type veth peer name eth0 netns {path}"
    ));
    pod.inside.exec("ip addr add 10.88.0.1/24 dev br0");
    pod.inside.exec("ip link set br0 up");
    pod.inside.exec("sysctl -q -w net.ipv4.ip_forward=1");
    nested.exec("ip addr add 10.88.0.2/24 dev eth0");
    nested.exec("ip link set eth0 up");
    nested.exec("ip route add default via 10.88.0.1");
    pod.peer
        .exec(&format!("ip route add 10.88.0.0/24 via {POD_V4}"));
    greet(&nested, "nested", "0.0.0.0:80");
    greet(&pod.peer, "server", "0.0.0.0:80");
    let nested_ip: IpAddr = [10, 88, 0, 2].into();
    assert_eq!(first_word(ask(&pod.peer, (nested_ip, 80))), "nested");
    assert_eq!(first_word(ask(&nested, (FAR_V4, 80))), "server");
    assert_eq!(first_word(ask(&pod.peer, (POD_V4, 80))), "inbound");
}
