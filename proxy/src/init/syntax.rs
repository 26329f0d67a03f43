//! The ruleset in nft's own syntax: what `--dry-run` prints and what errors quote.
//! Loading the text with `nft -f` gives the table that `encode` installs. Does no I/O.

use std::fmt;

use super::exclusions::Subnet;
use super::ruleset::{
    ALIVE, ALIVE_SIZE, ALIVE_TIMEOUT_MS, Action, Chain, Hook, Key, Match, Rule, Ruleset, TABLE,
};

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family.name())?;
        if self.fail_open {
            writeln!(f, "\tset {ALIVE} {{")?;
            writeln!(f, "\t\ttype {}", self.family.key().set_type())?;
            writeln!(f, "\t\tsize {ALIVE_SIZE}")?;
            writeln!(f, "\t\tflags dynamic,timeout")?;
            writeln!(f, "\t\ttimeout {}s", ALIVE_TIMEOUT_MS / 1000)?;
            writeln!(f, "\t}}")?;
        }
        for (i, chain) in self.chains.iter().enumerate() {
            if i > 0 || self.fail_open {
                writeln!(f)?;
            }
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, kind, hook) = (self.name, self.kind, self.hook);
        writeln!(f, "\tchain {name} {{")?;
        let priority = self.priority;
        writeln!(
            f,
            "\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
        )?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.matches {
            write!(f, "{one} ")?;
        }
        write!(f, "{}", self.action)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |subnet: &Subnet| {
            if subnet.network.is_ipv4() {
                "ip"
            } else {
                "ip6"
            }
        };
        match self {
            Self::Uid(uid) => write!(f, "meta skuid {uid}"),
            Self::OutLoopback => f.write_str("oifname \"lo\""),
            Self::LocalDestination => f.write_str("fib daddr type local"),
            Self::Alive(key) => write!(f, "{key} @{ALIVE}"),
            Self::Source(subnet) => write!(f, "{} saddr {subnet}", family(subnet)),
            Self::Destination(subnet) => write!(f, "{} daddr {subnet}", family(subnet)),
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::TcpPort(range) => write!(f, "tcp dport {range}"),
            Self::UdpPort(port) => write!(f, "udp dport {port}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("return"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Beat(key) => write!(f, "update @{ALIVE} {{ {key} }}"),
        }
    }
}

impl Key {
    fn set_type(self) -> &'static str {
        match self {
            Self::Nfproto => "nf_proto",
            Self::Protocol => "ether_type",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nfproto => "meta nfproto",
            Self::Protocol => "meta protocol",
        })
    }
}
