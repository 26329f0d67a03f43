//! The rules as text, and what becomes of refusals. The kernel's view of the same rules is
//! checked in a network namespace, by `tests/netns`.

use std::cell::RefCell;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    init: Args,
}

fn args(line: &str) -> Args {
    let words = ["init"].into_iter().chain(line.split_whitespace());
    Cli::try_parse_from(words).unwrap().init
}

fn text(line: &str, plan: Plan) -> String {
    Ruleset::new(&args(line), plan).to_string()
}

const FULL: Plan = Plan {
    family: Family::Inet,
    local_only: true,
};

#[test]
fn the_default_rules() {
    insta::assert_snapshot!(text("", FULL));
}

#[test]
fn exclusions_come_before_the_redirection() {
    let line = "--exclude-inbound-ports 22,8000-8010 --exclude-outbound-ports 3306 \
                --exclude-inbound-ips 192.0.2.7 --exclude-outbound-ips 10.0.0.0/8,fd00::/8 \
                --proxy-uid 77 --inbound-port 1 --outbound-port 2 --admin-port 3";
    insta::assert_snapshot!(text(line, FULL));
}

#[test]
fn strict_rules_depend_on_no_beat() {
    insta::assert_snapshot!(text("--strict", FULL));
}

#[test]
fn an_ipv4_table_has_no_ipv6_rule() {
    let plan = Plan {
        family: Family::Ipv4,
        local_only: false,
    };
    insta::assert_snapshot!(text("--exclude-outbound-ips 10.0.0.0/8,fd00::/8", plan));
}

#[test]
fn flags_are_checked() {
    let message = |line: &str| check(&args(line)).unwrap_err().to_string();
    assert!(message("--proxy-uid 0").starts_with("--proxy-uid 0 would let every root"));
    assert_eq!(
        message("--inbound-port 4191"),
        "--inbound-port and --admin-port are both 4191: give each its own port"
    );
    assert!(message("--outbound-port 0").starts_with("--outbound-port is 0"));
    let clap = Cli::try_parse_from(["init", "--exclude-inbound-ports", "80,http"]);
    let clap = clap.err().unwrap().to_string();
    assert!(
        clap.contains("'80,http' for '--exclude-inbound-ports <PORTS>'"),
        "{clap}"
    );
    assert!(clap.contains("\"http\" is not a port"), "{clap}");
}

/// A kernel that refuses every step whose name contains one of `missing`.
fn install_without(missing: &[(&str, Errno)]) -> (Result<Plan, InitError>, Vec<usize>) {
    install_in("", true, missing)
}

/// The same for such arguments, in a namespace that uses IPv6 or does not.
fn install_in(
    line: &str,
    uses_ipv6: bool,
    missing: &[(&str, Errno)],
) -> (Result<Plan, InitError>, Vec<usize>) {
    let batches = RefCell::new(Vec::new());
    let commit = |steps: &[Step]| {
        batches.borrow_mut().push(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let family = format!("{} {}", step.family.name(), step.what);
            if let Some((_, errno)) = missing.iter().find(|(what, _)| family.contains(what)) {
                return Err(Failure::Step {
                    index,
                    errno: *errno,
                });
            }
        }
        Ok(())
    };
    let installed = install(&args(line), (FULL, uses_ipv6), commit);
    (installed, batches.into_inner())
}

#[test]
fn a_kernel_without_ipv6_nat_still_redirects_ipv4() {
    let (plan, _) = install_without(&[("inet chain inbound", Errno::NOENT)]);
    assert_eq!(
        plan.unwrap(),
        Plan {
            family: Family::Ipv4,
            local_only: true
        }
    );
}

#[test]
fn strict_rules_leave_out_no_family_that_is_used() {
    let missing = [("inet chain inbound", Errno::NOENT)];
    let (refused, batches) = install_in("--strict", true, &missing);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("--ip-family-mode=ipv4"), "{refused}");
    assert_eq!(batches.len(), 1);
    let (plan, _) = install_in("--strict", false, &missing);
    assert_eq!(plan.unwrap().family, Family::Ipv4);
    let fib = [("fib daddr", Errno::OPNOTSUPP)];
    let (plan, _) = install_in("--strict", true, &fib);
    assert_eq!(plan.unwrap().family, Family::Inet);
}

#[test]
fn a_link_local_address_is_no_use_of_ipv6() {
    let eth0 = |address: &str, scope: &str| format!("{address} 02 40 {scope} 80     eth0");
    assert!(!is_global(
        "00000000000000000000000000000001 01 80 10 80       lo"
    ));
    assert!(!is_global(&eth0("fe80000000000000f06c6bfffe1fc11f", "20")));
    assert!(is_global(&eth0("fd770000000000000000000000000002", "00")));
}

#[test]
fn a_kernel_without_routing_lookup_still_redirects() {
    let (plan, batches) = install_without(&[("fib daddr", Errno::OPNOTSUPP)]);
    assert_eq!(
        plan.unwrap(),
        Plan {
            family: Family::Inet,
            local_only: false
        }
    );
    assert_eq!(batches.len(), 2);
}

#[test]
fn a_kernel_without_redirect_is_named() {
    let (plan, batches) = install_without(&[("redirect to", Errno::NOENT)]);
    let error = plan.unwrap_err();
    assert_eq!(error.class(), "unsupported");
    let text = error.to_string();
    assert!(
        text.contains("rule `meta l4proto tcp meta protocol @alive redirect to :4143`"),
        "{text}"
    );
    assert!(text.contains("nft_redir"), "{text}");
    assert_eq!(batches.len(), 3, "each feature is given up once");
}

#[test]
fn other_refusals_are_not_retried() {
    let (plan, batches) = install_without(&[("chain outbound", Errno::EXIST)]);
    let text = plan.unwrap_err().to_string();
    assert!(
        text.starts_with("the kernel refused the chain outbound (type nat): "),
        "{text}"
    );
    assert_eq!(batches.len(), 1);

    let refused = |failure: Failure| {
        install(&args(""), (FULL, true), |_| {
            Err(match &failure {
                Failure::Batch(errno) => Failure::Batch(*errno),
                Failure::Socket(error) => {
                    Failure::Socket(io::Error::from_raw_os_error(error.raw_os_error().unwrap()))
                }
                Failure::Step { .. } => unreachable!("not given"),
            })
        })
        .unwrap_err()
    };
    let permission = refused(Failure::Batch(Errno::PERM));
    assert_eq!(permission.class(), "permission");
    assert!(
        permission
            .to_string()
            .contains("needs the capability NET_ADMIN")
    );
    let large = refused(Failure::Socket(Errno::MSGSIZE.into()));
    assert!(large.to_string().contains("exclude ranges of ports"));
    let none = refused(Failure::Socket(Errno::PROTONOSUPPORT.into()));
    assert_eq!(none.class(), "socket");
}

#[test]
fn a_machine_that_refuses_is_an_error_unless_the_pod_is_to_go_on() {
    let refused = || Err(InitError::NotPermitted);
    assert!(judge(&args(""), refused()).is_err());
    assert!(judge(&args("--strict"), refused()).is_err());
    assert!(judge(&args("--best-effort"), refused()).is_ok());
}
