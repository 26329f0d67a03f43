//! The redirection as data: chains of rules made from a `Plan`, with the reason for each.
//! Called by `init`; `syntax` prints it and `encode` turns it into netlink messages. Does no I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Args;
use super::exclusions::{PortRange, Ports, Subnet};
use weir_crds::ports;

/// The one table that is ours; a run replaces it whole.
pub(crate) const TABLE: &str = "weir";
/// The set that holds an address family for as long as the proxy's beat is fresh.
pub(crate) const ALIVE: &str = "alive";
/// How long one beat keeps the redirection on, milliseconds: three beats may be missed.
pub(crate) const ALIVE_TIMEOUT_MS: u64 = 2000;
/// Room in the set. Two elements are live; expired ones count until the kernel collects them.
pub(crate) const ALIVE_SIZE: u32 = 16;
/// DNS over TCP goes direct, as DNS over UDP does.
const DNS_PORT: u16 = 53;
/// Priority of destination NAT, the same in both hooks (NF_IP_PRI_NAT_DST).
const NAT_PRIORITY: i32 = -100;

/// The nftables family the table lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 and IPv6 in one table.
    Inet,
    Ipv4,
}

/// What the set [`ALIVE`] holds of a packet: its address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// `meta nfproto`, one byte.
    Nfproto,
    /// `meta protocol`, the EtherType, two bytes: nft refuses `nfproto` in a table of one family.
    Protocol,
}

/// What to install and with which features of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) family: Family,
    /// Ask the routing table whether a destination is one of our addresses (needs nft_fib).
    pub(crate) local_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) family: Family,
    /// Whether the redirection depends on the heartbeat; without it the set does not exist.
    pub(crate) fail_open: bool,
    pub(crate) chains: Vec<Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Output,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// The socket that sends was made by this uid.
    Uid(u32),
    /// Leaves through `lo`: loopback, and the pod's own addresses.
    OutLoopback,
    /// The destination is an address of this namespace.
    LocalDestination,
    /// The packet's address family is in the set [`ALIVE`].
    Alive(Key),
    Source(Subnet),
    Destination(Subnet),
    Tcp,
    TcpPort(PortRange),
    UdpPort(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Return,
    /// To this port of the loopback (output) or of the incoming interface (prerouting).
    Redirect(u16),
    /// Put the packet's family in the set [`ALIVE`], for [`ALIVE_TIMEOUT_MS`] from now.
    Beat(Key),
}

impl Ruleset {
    pub(crate) fn new(args: &Args, plan: Plan) -> Self {
        let fail_open = !args.strict;
        let mut chains = Vec::with_capacity(3);
        if fail_open {
            chains.push(beat_chain(args, plan));
        }
        chains.push(inbound_chain(args, plan));
        chains.push(outbound_chain(args, plan));
        Self {
            family: plan.family,
            fail_open,
            chains,
        }
    }
}

/// The only chain that every packet passes, so its first match already fails for TCP.
fn beat_chain(args: &Args, plan: Plan) -> Chain {
    let rules = loopbacks(plan.family)
        .map(|loopback| Rule {
            matches: vec![
                Match::UdpPort(ports::HEARTBEAT),
                Match::Destination(loopback),
                Match::Uid(args.proxy_uid),
            ],
            action: Action::Beat(plan.family.key()),
        })
        .collect();
    Chain {
        name: "beat",
        kind: "filter",
        hook: Hook::Output,
        priority: 0,
        rules,
    }
}

fn inbound_chain(args: &Args, plan: Plan) -> Chain {
    let skipped = args.exclude_inbound_ports.with(args.admin_port);
    let sources = args.exclude_inbound_ips.iter();
    let mut rules = skip_ports(&skipped);
    rules.extend(skip_subnets(plan.family, sources, Match::Source));
    if !args.strict {
        let own = [link_local()].into_iter();
        rules.extend(skip_subnets(plan.family, own, Match::Destination));
    }
    // Traffic this namespace only routes (a container engine in the pod) is not the pod's.
    let local = plan.local_only.then_some(Match::LocalDestination);
    rules.push(redirect(args, plan, local, args.inbound_port));
    Chain {
        name: "inbound",
        kind: "nat",
        hook: Hook::Prerouting,
        priority: NAT_PRIORITY,
        rules,
    }
}

fn outbound_chain(args: &Args, plan: Plan) -> Chain {
    let skip = |m: Match| Rule {
        matches: vec![m],
        action: Action::Return,
    };
    let mut rules: Vec<_> = self_tests(args, plan).collect();
    rules.extend([skip(Match::Uid(args.proxy_uid)), skip(Match::OutLoopback)]);
    rules.extend(skip_ports(&args.exclude_outbound_ports.with(DNS_PORT)));
    let subnets = args.exclude_outbound_ips.iter().chain([link_local()]);
    rules.extend(skip_subnets(plan.family, subnets, Match::Destination));
    rules.push(redirect(args, plan, None, args.outbound_port));
    Chain {
        name: "outbound",
        kind: "nat",
        hook: Hook::Output,
        priority: NAT_PRIORITY,
        rules,
    }
}

/// Leads the proxy's own connection to a port of loopback back to the proxy, whether or not it beats: so it sees that the
/// rules are there. Before the rules that let go of its uid and of loopback, hence passed by every new connection, of which
/// the port stops nearly all; the uid is last because it alone asks the socket.
///
/// Of the inbound chain no connection that is made in this namespace can tell. Destination NAT is decided once for each, in
/// the first hook that it passes, which is this one: what comes back by `lo`, to the pod's own address as well, passes no
/// NAT chain of prerouting any more. To list chains takes NET_ADMIN, which the proxy has not. `init` installs both chains
/// in one transaction, so only who takes the one away by hand is not found out.
fn self_tests(args: &Args, plan: Plan) -> impl Iterator<Item = Rule> {
    loopbacks(plan.family).map(|loopback| Rule {
        matches: vec![
            Match::TcpPort(PortRange {
                first: ports::HEARTBEAT,
                last: ports::HEARTBEAT,
            }),
            Match::Destination(loopback),
            Match::Uid(args.proxy_uid),
        ],
        action: Action::Redirect(args.outbound_port),
    })
}

/// TCP to `port`; in fail-open mode only while the family is alive.
fn redirect(args: &Args, plan: Plan, only: Option<Match>, port: u16) -> Rule {
    let alive = (!args.strict).then_some(Match::Alive(plan.family.key()));
    Rule {
        matches: [Some(Match::Tcp), only, alive]
            .into_iter()
            .flatten()
            .collect(),
        action: Action::Redirect(port),
    }
}

fn skip_ports(ports: &Ports) -> Vec<Rule> {
    let rule = |range: &PortRange| Rule {
        matches: vec![Match::TcpPort(*range)],
        action: Action::Return,
    };
    ports.ranges().iter().map(rule).collect()
}

fn skip_subnets(
    family: Family,
    subnets: impl Iterator<Item = Subnet>,
    side: fn(Subnet) -> Match,
) -> Vec<Rule> {
    subnets
        .filter(|subnet| family == Family::Inet || subnet.network.is_ipv4())
        .map(|subnet| Rule {
            matches: vec![side(subnet)],
            action: Action::Return,
        })
        .collect()
}

/// IPv6 link-local destinations mean nothing without their interface, which a redirected
/// connection no longer tells: they go direct, unless a strict mesh must let nobody past.
fn link_local() -> Subnet {
    Subnet::new(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10)
}

fn loopbacks(family: Family) -> impl Iterator<Item = Subnet> {
    let v4 = Subnet::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 32);
    let v6 = Subnet::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
    let v6 = (family == Family::Inet).then_some(v6);
    [v4].into_iter().chain(v6)
}

impl Family {
    /// The word nft has for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
        }
    }
    /// What tells address families apart in a table of this one.
    pub(crate) fn key(self) -> Key {
        match self {
            Self::Inet => Key::Nfproto,
            Self::Ipv4 => Key::Protocol,
        }
    }
}
