//! What a container runtime asks with ADD, read from the network configuration that it sends: pure. Called by `plugin`,
//! and by the fuzzer. What the plugins before have made is kept as the text that it is, so that it is passed on as it came.

use std::collections::BTreeMap;

use clap::{Args, ColorChoice, Command, FromArgMatches};
use serde_json::value::RawValue;
use weir_crds::names;

use super::PluginError;
use crate::cni::{ANNOTATIONS, VERSIONS};
use crate::init;

/// An object of JSON, with its values as they are written.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// A pod that is added to its network.
#[derive(Debug)]
pub struct Addition<'a> {
    /// The configuration's, which is served.
    pub cni_version: String,
    /// What the plugins before have made, and so the result.
    pub result: &'a RawValue,
    pub redirection: Redirection,
}

/// What the pod's annotation asks for.
#[derive(Debug)]
pub enum Redirection {
    /// The pod has no annotation, or its runtime tells of none.
    None,
    Asked {
        /// What `init` is to do, or why that is not clear.
        arguments: Result<Box<init::Args>, String>,
        /// Whether a pod that cannot be redirected must not start.
        is_strict: bool,
    },
}

/// Reads a network configuration.
///
/// # Errors
/// Where there is no result to pass on, or none that may be.
pub fn addition(config: &[u8]) -> Result<Addition<'_>, PluginError> {
    let config: Object<'_> = serde_json::from_slice(config)?;
    let version = config.get("cniVersion").map(|value| value.get());
    let version: String = version.map_or(Ok(String::new()), serde_json::from_str)?;
    if !VERSIONS.contains(&version.as_str()) {
        return Err(PluginError::Version(version));
    }
    let result = config.get("prevResult").copied();
    let result = result.filter(|result| result.get() != "null");
    let redirection = annotation(&config).map_or(Redirection::None, |annotation| {
        let is_strict = annotation.split_whitespace().any(|word| word == "--strict");
        Redirection::Asked {
            arguments: arguments(&annotation).map(Box::new),
            is_strict,
        }
    });
    Ok(Addition {
        cni_version: version,
        result: result.ok_or(PluginError::NotChained)?,
        redirection,
    })
}

/// The annotation's text; what is no text is as it is written.
fn annotation(config: &Object<'_>) -> Option<String> {
    let runtime = inside(config, "runtimeConfig")?;
    let annotations = inside(&runtime, ANNOTATIONS)?;
    let text = annotations.get(names::INIT_ARGUMENTS)?.get();
    Some(serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()))
}

fn inside<'a>(object: &Object<'a>, key: &str) -> Option<Object<'a>> {
    let value: &'a RawValue = object.get(key)?;
    serde_json::from_str(value.get()).ok()
}

/// The arguments of `weir-proxy init` that an annotation holds, separated by white space.
///
/// # Errors
/// What is wrong with them.
pub fn arguments(annotation: &str) -> Result<init::Args, String> {
    let command = Command::new(names::INIT_ARGUMENTS)
        .no_binary_name(true)
        .disable_help_flag(true)
        .color(ColorChoice::Never);
    let told = |error: clap::Error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.trim_start_matches("error: ").to_owned()
    };
    let command = init::Args::augment_args(command);
    let matches = command.try_get_matches_from(annotation.split_whitespace());
    let arguments = init::Args::from_arg_matches(&matches.map_err(told)?).map_err(told)?;
    if arguments.dry_run {
        return Err("--dry-run redirects nothing: leave it out".to_owned());
    }
    Ok(arguments)
}
