//! `weir-proxy plan`: what a metrics policy would save, told from an exposition. Called by `main`. It reads two texts
//! and prints a table; it runs no proxy.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use weir_crds::universal::UniversalError;

use crate::telemetry::{self, Plan, PlanError, Saving};

const EXAMPLES: &str = "\
Example:
  curl -s 127.0.0.1:4191/metrics | weir-proxy plan --policy-file policy.yaml

What maxSeries would refuse is not told: it depends on which series come first.
Ends with status 64 where the policy is wrong.";

/// The flags of `weir-proxy plan`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct Args {
    /// The policy to try
    #[arg(long, value_name = "FILE")]
    pub policy_file: String,

    /// What /metrics answers, as text; - is the standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub exposition: String,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {name}: {error}")]
    Read { name: String, error: std::io::Error },
    #[error("{}", lines(name, errors))]
    Policy {
        name: String,
        errors: Vec<UniversalError>,
    },
    #[error("{name}: {error}")]
    Exposition { name: String, error: PlanError },
}

impl Error {
    /// Whether it is the policy that is wrong.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Policy { .. })
    }
}

fn lines(name: &str, errors: &[UniversalError]) -> String {
    let lines: Vec<_> = errors.iter().map(|e| format!("{name}: {e}")).collect();
    lines.join("\n")
}

/// Prints the plan.
///
/// # Errors
/// What cannot be read, or not be understood.
pub fn run(args: &Args) -> Result<(), Error> {
    print!("{}", told(args)?);
    Ok(())
}

/// The plan, as a table.
fn told(args: &Args) -> Result<String, Error> {
    let name = args.policy_file.clone();
    let policy = telemetry::policy(&read(&args.policy_file)?);
    let policy = policy.map_err(|errors| Error::Policy { name, errors })?;
    let name = args.exposition.clone();
    let plan = telemetry::plan(&policy, &read(&args.exposition)?);
    plan.map(|plan| table(&plan))
        .map_err(|error| Error::Exposition { name, error })
}

fn read(name: &str) -> Result<String, Error> {
    let read = if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(Path::new(name))
    };
    read.map_err(|error| Error::Read {
        name: name.to_owned(),
        error,
    })
}

fn table(plan: &Plan) -> String {
    let mut out = String::new();
    let head = ["family", "series", "would be", "bytes", "would be"];
    row(&mut out, head.map(str::to_owned));
    let total = [("total", plan.total())];
    for (name, saving) in plan.families.iter().copied().chain(total) {
        let Saving { before, after } = saving;
        let numbers = [before.series, after.series, before.bytes, after.bytes];
        let [a, b, c, d] = numbers.map(|n| n.to_string());
        row(&mut out, [name.to_owned(), a, b, c, d]);
    }
    out
}

fn row(out: &mut String, [name, a, b, c, d]: [String; 5]) {
    writeln!(out, "{name:<32} {a:>10} {b:>10} {c:>12} {d:>12}").expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Size;

    #[test]
    fn the_table_has_a_line_for_each_family_and_one_for_all() {
        let size = |series, bytes| Size { series, bytes };
        let saving = |before, after| Saving { before, after };
        let plan = Plan {
            families: vec![
                ("request_total", saving(size(12, 4_012), size(4, 1_110))),
                ("tcp_open_total", saving(size(1, 90), size(1, 90))),
            ],
        };
        let table = table(&plan);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["request_total", "12", "4", "4012", "1110"]);
        assert_eq!(rows[3], ["total", "13", "5", "4102", "1200"]);
        assert!(
            table
                .lines()
                .all(|line| line.len() == table.lines().next().unwrap().len())
        );
    }

    #[test]
    fn a_wrong_policy_is_told_apart_from_what_cannot_be_read() {
        let file = std::env::temp_dir().join(format!("weir-plan-{}.yaml", std::process::id()));
        std::fs::write(&file, "families: {requests: {}}").unwrap();
        let args = |policy_file: &str| Args {
            policy_file: policy_file.to_owned(),
            exposition: "/nonexistent/metrics".to_owned(),
        };
        let wrong = run(&args(file.to_str().unwrap())).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(
            wrong.is_config() && wrong.to_string().contains("families.requests"),
            "{wrong}"
        );
        let unread = run(&args("/nonexistent/policy.yaml")).unwrap_err();
        assert!(
            !unread.is_config() && unread.to_string().contains("policy.yaml"),
            "{unread}"
        );
    }
}
