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

/// The plan, as a table.
///
/// # Errors
/// What cannot be read, or not be understood.
pub fn run(args: &Args) -> Result<String, Error> {
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
