//! `weir-proxy init`: redirects a pod's TCP to the proxy with one nftables table, made over
//! netlink, for IPv4 and IPv6. Called by `main`, in the pod's network namespace, before the
//! proxy runs. The redirection holds only while `heartbeat` beats, unless `--strict`.
//! Must not know what the proxy does with a connection.

mod encode;
mod exclusions;
mod expressions;
mod ruleset;
mod syntax;
mod transaction;

use std::io;

use rustix::io::Errno;
use weir_crds::{names, ports};

pub use self::exclusions::{ExclusionError, PortRange, Ports, Subnet, Subnets};
use self::ruleset::{Family, Plan, Ruleset};
use self::transaction::{Failure, Step};

const DEFAULT_UID: u32 = names::PROXY_UID as u32;

/// The flags of `weir-proxy init`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Uid the proxy runs as: its connections go direct, and only its beat counts
    #[arg(long, value_name = "UID", default_value_t = DEFAULT_UID)]
    pub proxy_uid: u32,

    /// Port that takes the connections made to the pod
    #[arg(long, value_name = "PORT", default_value_t = ports::INBOUND)]
    pub inbound_port: u16,

    /// Loopback port that takes the connections the pod makes
    #[arg(long, value_name = "PORT", default_value_t = ports::OUTBOUND)]
    pub outbound_port: u16,

    /// The proxy's admin port, never redirected inbound
    #[arg(long, value_name = "PORT", default_value_t = ports::ADMIN)]
    pub admin_port: u16,

    /// Ports of the pod that are reached directly, such as 4567,8000-8010
    #[arg(
        long,
        value_name = "PORTS",
        default_value = "",
        hide_default_value = true
    )]
    pub exclude_inbound_ports: Ports,

    /// Ports the pod reaches directly, such as 4567,8000-8010; 53 always is
    #[arg(
        long,
        value_name = "PORTS",
        default_value = "",
        hide_default_value = true
    )]
    pub exclude_outbound_ports: Ports,

    /// Clients that reach the pod directly, such as 10.0.0.0/8,fd00::/8
    #[arg(
        long,
        value_name = "SUBNETS",
        default_value = "",
        hide_default_value = true
    )]
    pub exclude_inbound_ips: Subnets,

    /// Destinations the pod reaches directly, such as 10.0.0.0/8,fd00::/8
    #[arg(
        long,
        value_name = "SUBNETS",
        default_value = "",
        hide_default_value = true
    )]
    pub exclude_outbound_ips: Subnets,

    /// Address families to redirect; the other one goes direct
    #[arg(long, value_enum, default_value_t)]
    pub ip_family_mode: IpFamilyMode,

    /// Redirect whether or not the proxy is alive: without it nothing gets in or out
    #[arg(long)]
    pub strict: bool,

    /// Succeed where this machine refuses the rules, too: the pod goes on, unmeasured
    #[arg(long, conflicts_with = "strict")]
    pub best_effort: bool,

    /// Print the rules in nft syntax and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Kuma's `ip-family-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum IpFamilyMode {
    /// IPv4 and IPv6
    #[default]
    Dualstack,
    /// IPv4 only
    Ipv4,
}

/// Why the redirection was not installed. Whatever was there before still is.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(
        "--proxy-uid 0 would let every root process past the proxy: run the proxy as another uid"
    )]
    RootUid,
    #[error("--{first} and --{second} are both {port}: give each its own port")]
    SamePort {
        first: &'static str,
        second: &'static str,
        port: u16,
    },
    #[error("--{0} is 0: use a number from 1 to 65535")]
    ZeroPort(&'static str),
    #[error(
        "not permitted to change nftables (EPERM): init needs the capability NET_ADMIN and \
         uid 0 in the network namespace of the pod; add NET_ADMIN to securityContext.capabilities \
         of the init container and set runAsUser to 0"
    )]
    NotPermitted,
    #[error(
        "this kernel has no support for {what} ({source}): it needs nf_tables with the modules \
         nft_chain_nat, nft_redir and nf_conntrack; load them on the node (where IPv6 is what it lacks, \
         --ip-family-mode=ipv4 does without)"
    )]
    Unsupported { what: String, source: io::Error },
    #[error(
        "the rules do not fit in one netlink message ({source}): exclude ranges of ports \
         instead of many single ones"
    )]
    TooLarge { source: io::Error },
    #[error("the kernel refused the {what}: {source}")]
    Refused { what: String, source: io::Error },
    #[error(
        "no netlink socket for netfilter ({source}): the kernel needs CONFIG_NF_TABLES, and the sandbox must allow AF_NETLINK"
    )]
    Socket { source: io::Error },
    #[error("cannot print the rules: {source}")]
    Print { source: io::Error },
}

impl InitError {
    /// A short, stable name of the kind of failure.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::RootUid | Self::SamePort { .. } | Self::ZeroPort(_) => "config",
            Self::NotPermitted => "permission",
            Self::Unsupported { .. } => "unsupported",
            Self::TooLarge { .. } | Self::Refused { .. } => "refused",
            Self::Socket { .. } => "socket",
            Self::Print { .. } => "print",
        }
    }

    /// Whether the flags are at fault and not the machine.
    #[must_use]
    pub fn is_config(&self) -> bool {
        self.class() == "config"
    }
}

/// Installs the redirection in the network namespace of the calling thread, replacing what an
/// earlier run installed, or prints it. Blocks for as long as the kernel takes (milliseconds).
///
/// Where the kernel lacks NAT for both families in one table (before 5.2) or the routing lookup,
/// what it does support is installed, with a warning; with `--strict` no family is left out that is used.
pub fn run(args: &Args) -> Result<(), InitError> {
    if args.dry_run {
        let rules = rules(args)?;
        return io::Write::write_all(&mut io::stdout(), rules.as_bytes())
            .map_err(|source| InitError::Print { source });
    }
    check(args)?;
    let wanted = (full_plan(args), uses_ipv6());
    judge(args, install(args, wanted, transaction::commit))
}

/// Whether a line of `if_inet6` (address, index, prefix, scope, flags, device) is of an address that others reach.
fn is_global(line: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    // IPV6_ADDR_LINKLOCAL, in hexadecimal.
    fields.get(3) != Some(&"20") && fields.get(5) != Some(&"lo")
}

/// Whether an interface of this network namespace beside loopback has an IPv6 address that is not link-local, as every one
/// has whose kernel knows IPv6; if that cannot be told, yes.
fn uses_ipv6() -> bool {
    match std::fs::read_to_string("/proc/thread-self/net/if_inet6") {
        Ok(addresses) => addresses.lines().any(is_global),
        // A kernel without IPv6 has no such file.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Tells what was installed, or why nothing was.
fn judge(args: &Args, installed: Result<Plan, InitError>) -> Result<(), InitError> {
    match installed {
        Ok(plan) => report(args, plan),
        Err(error) if args.best_effort => {
            tracing::error!(%error, "traffic is not redirected: this pod goes on unmeasured");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn report(args: &Args, plan: Plan) {
    if !plan.local_only {
        tracing::warn!("this kernel has no nft_fib: traffic that the pod routes is redirected too");
    }
    if plan.family != full_plan(args).family {
        tracing::warn!("this kernel has no IPv6 NAT: IPv6 connections go direct, unmeasured");
    }
    tracing::info!(
        inbound = args.inbound_port,
        outbound = args.outbound_port,
        ipv6 = plan.family == Family::Inet,
        strict = args.strict,
        "traffic is redirected{}",
        if args.strict {
            ""
        } else {
            " while the proxy beats"
        },
    );
}

/// The table that [`run`] installs where the kernel supports all of it, in nft syntax.
pub fn rules(args: &Args) -> Result<String, InitError> {
    check(args)?;
    Ok(Ruleset::new(args, full_plan(args)).to_string())
}

fn full_plan(args: &Args) -> Plan {
    Plan {
        family: match args.ip_family_mode {
            IpFamilyMode::Dualstack => Family::Inet,
            IpFamilyMode::Ipv4 => Family::Ipv4,
        },
        local_only: true,
    }
}

fn check(args: &Args) -> Result<(), InitError> {
    if args.proxy_uid == 0 {
        return Err(InitError::RootUid);
    }
    let ports = [
        ("inbound-port", args.inbound_port),
        ("outbound-port", args.outbound_port),
        ("admin-port", args.admin_port),
    ];
    for (index, (first, port)) in ports.into_iter().enumerate() {
        if port == 0 {
            return Err(InitError::ZeroPort(first));
        }
        if let Some((second, _)) = ports[index + 1..].iter().find(|(_, p)| *p == port) {
            return Err(InitError::SamePort {
                first,
                second,
                port,
            });
        }
    }
    Ok(())
}

/// Commits the best plan the kernel takes; at most one step down for each feature.
fn install(
    args: &Args,
    (mut plan, uses_ipv6): (Plan, bool),
    commit: impl Fn(&[Step]) -> Result<(), Failure>,
) -> Result<Plan, InitError> {
    loop {
        let steps = encode::encode(&Ruleset::new(args, plan));
        let Err(failure) = commit(&steps) else {
            return Ok(plan);
        };
        let lesser = step_down(plan, &steps, &failure);
        // Where nothing may pass the proxy, no family that is used may be left out unasked.
        let may = |lesser: &Plan| lesser.family == plan.family || !(args.strict && uses_ipv6);
        let Some(lesser) = lesser.filter(may) else {
            return Err(explain(&steps, failure));
        };
        plan = lesser;
    }
}

/// The plan without the feature that the refused step needs, if it needs one we can do without.
fn step_down(plan: Plan, steps: &[Step], failure: &Failure) -> Option<Plan> {
    let Failure::Step { index, errno } = failure else {
        return None;
    };
    if !is_unsupported(*errno) {
        return None;
    }
    let what = steps.get(*index).map_or("", |step| step.what.as_str());
    if plan.local_only && what.contains(&ruleset::Match::LocalDestination.to_string()) {
        return Some(Plan {
            local_only: false,
            ..plan
        });
    }
    (plan.family == Family::Inet).then_some(Plan {
        family: Family::Ipv4,
        ..plan
    })
}

fn is_unsupported(errno: Errno) -> bool {
    [
        Errno::NOENT,
        Errno::OPNOTSUPP,
        Errno::AFNOSUPPORT,
        Errno::PROTONOSUPPORT,
    ]
    .contains(&errno)
}

fn explain(steps: &[Step], failure: Failure) -> InitError {
    let (what, errno) = match failure {
        Failure::Socket(source) => {
            return match Errno::from_io_error(&source) {
                Some(Errno::PERM | Errno::ACCESS) => InitError::NotPermitted,
                Some(Errno::MSGSIZE | Errno::NOBUFS) => InitError::TooLarge { source },
                _ => InitError::Socket { source },
            };
        }
        Failure::Batch(errno) => ("batch of rules".to_owned(), errno),
        Failure::Step { index, errno } => {
            let what = steps.get(index).map(|step| step.what.clone());
            (what.unwrap_or_default(), errno)
        }
    };
    let source = io::Error::from(errno);
    match errno {
        Errno::PERM | Errno::ACCESS => InitError::NotPermitted,
        errno if is_unsupported(errno) => InitError::Unsupported { what, source },
        _ => InitError::Refused { what, source },
    }
}

#[cfg(test)]
mod tests;
