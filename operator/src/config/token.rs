//! The settings of `weir-operator token`, checked as a whole. Used by `config`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::SignedDuration;
use weir_crds::duration;
use weir_crds::names::DEFAULT_MESH;

use super::ConfigError;
use super::documents::STATE;
use crate::token::{Grant, LONGEST_LIFE, TokenRequest};

/// Make a data plane token, by which a proxy without Kubernetes proves who it is, and print it. It is signed with a key in
/// the operator's state directory; whoever has it is the Dataplane it names until it expires.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// Name of the Dataplane it is for.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Mesh of that Dataplane.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MESH)]
    mesh: String,
    /// A tag that the Dataplane must have, with no other values than those given; may be given several times
    /// [default: it may have any tags].
    #[arg(long, value_name = "TAG=VALUE[,VALUE]")]
    tag: Vec<String>,
    /// How long it is valid, such as 30m or 24h; at most 10 years.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    valid_for: String,
    /// The operator's state directory.
    #[arg(long, env = "WEIR_STATE_DIR", value_name = "DIR", default_value = STATE)]
    state_dir: PathBuf,
}

impl TokenArgs {
    /// The request, all problems at once.
    pub(super) fn check(&self) -> Result<TokenRequest, ConfigError> {
        let mut problems = Vec::new();
        for (flag, value) in [("--name", &self.name), ("--mesh", &self.mesh)] {
            if value.is_empty() {
                problems.push(format!("{flag}: must not be empty"));
            }
        }
        let life = match duration::parse(&self.valid_for) {
            Ok(life) => SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX),
            Err(error) => {
                problems.push(format!("--valid-for: {error}"));
                LONGEST_LIFE
            }
        };
        if !(SignedDuration::from_secs(1)..=LONGEST_LIFE).contains(&life) {
            problems.push(format!(
                "--valid-for: {} is not between 1s and 87600h",
                self.valid_for
            ));
        }
        let tags = self.tags(&mut problems);
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        Ok(TokenRequest {
            grant: Grant {
                mesh: self.mesh.clone(),
                name: self.name.clone(),
                tags,
            },
            life,
            state_dir: self.state_dir.clone(),
        })
    }

    fn tags(&self, problems: &mut Vec<String>) -> BTreeMap<String, BTreeSet<String>> {
        let mut tags: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for given in &self.tag {
            let (tag, values) = given.split_once('=').unwrap_or((given, ""));
            let values: Vec<&str> = values.split(',').map(str::trim).collect();
            if tag.is_empty() || values.contains(&"") {
                problems.push(format!(
                    "--tag: expected a tag and its values such as kuma.io/service=web, found {given:?}"
                ));
                continue;
            }
            let known = tags.entry(tag.to_owned()).or_default();
            known.extend(values.into_iter().map(str::to_owned));
        }
        tags
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: TokenArgs,
    }

    fn check(args: &[&str]) -> Result<TokenRequest, String> {
        let all = ["token"].iter().chain(args);
        let args = Command::try_parse_from(all).unwrap().args;
        args.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_described() {
        let request = check(&[
            "--name=web-1",
            "--tag=kuma.io/service=web,admin",
            "--tag=kuma.io/service=more",
            "--tag=version=1",
            "--valid-for=1h30m",
        ]);
        let request = request.unwrap();
        assert_eq!(request.life, SignedDuration::from_mins(90));
        assert_eq!(request.grant.mesh, "default");
        let values = &request.grant.tags["kuma.io/service"];
        assert_eq!(values.iter().collect::<Vec<_>>(), ["admin", "more", "web"]);
        assert_eq!(request.grant.tags.len(), 2);
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let told = check(&["--name=", "--tag=web", "--tag=a=", "--valid-for=soon"]).unwrap_err();
        assert_eq!(told.lines().count(), 4, "{told}");
        let told = check(&["--name=", "--valid-for=0"]).unwrap_err();
        assert_eq!(told.lines().count(), 2, "{told}");
        for life in ["0", "10ms", "87601h"] {
            let flag = format!("--valid-for={life}");
            let told = check(&["--name=a", &flag]).unwrap_err();
            assert!(told.contains("between 1s and 87600h"), "{told}");
        }
    }
}
