//! Network configurations and our place in them, as texts: pure. Called by `node`. A list is edited where the entry goes
//! and nowhere else, so it keeps its fields, their order and its layout; an entry that is taken out again leaves what there
//! was before. It knows no file.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{PLUGIN, VERSIONS};

/// Our entry in `plugins` of a list.
pub const ENTRY: &str =
    r#"{"type":"weir-cni","capabilities":{"io.kubernetes.cri.pod-annotations":true}}"#;

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// Why a text is no network configuration, or none that we can be chained to.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it is not JSON as it should be ({0})")]
    Json(#[from] serde_json::Error),
    #[error("its field {0:?} is missing or of the wrong kind")]
    Field(&'static str),
    #[error("it has no plugin besides {PLUGIN}")]
    Alone,
    #[error(
        "its cniVersion {0:?} is none of {list}: {PLUGIN} would fail every pod",
        list = VERSIONS.join(", ")
    )]
    Version(String),
}

/// A list of plugins (`.conflist`), read from its text.
#[derive(Debug)]
pub struct List<'a> {
    text: &'a str,
    /// Where each plugin stands, and whether it is ours.
    plugins: Vec<(Range<usize>, bool)>,
    versions: Vec<String>,
}

/// Reads a list.
///
/// # Errors
/// What a container runtime would refuse, too.
pub fn list(text: &str) -> Result<List<'_>, Unusable> {
    let fields: Object<'_> = serde_json::from_str(text)?;
    string(&fields, "name")?.ok_or(Unusable::Field("name"))?;
    let plugins = fields.get("plugins").ok_or(Unusable::Field("plugins"))?;
    let plugins: Vec<&RawValue> =
        serde_json::from_str(plugins.get()).map_err(|_| Unusable::Field("plugins"))?;
    if plugins.is_empty() {
        return Err(Unusable::Field("plugins"));
    }
    let at = |plugin: &RawValue| {
        let start = plugin.get().as_ptr().addr() - text.as_ptr().addr();
        start..start + plugin.get().len()
    };
    let plugins: Result<_, Unusable> = plugins
        .into_iter()
        .map(|plugin| Ok((at(plugin), kind(plugin.get())? == PLUGIN)))
        .collect();
    Ok(List {
        text,
        plugins: plugins?,
        versions: versions(&fields)?,
    })
}

impl List<'_> {
    /// The text with us as the last plugin, unless that is what it is already.
    ///
    /// # Errors
    /// Where we cannot be chained to it.
    pub fn with_plugin(&self) -> Result<Option<String>, Unusable> {
        served(&self.versions)?;
        let last = self.plugins.iter().rev().find(|(_, is_ours)| !is_ours);
        let (last, _) = last.ok_or(Unusable::Alone)?;
        if self.is_current() {
            return Ok(None);
        }
        let before = &self.text[..last.start];
        let layout = &before[before.trim_end_matches([' ', '\t', '\n', '\r']).len()..];
        Ok(Some(self.rendered(&format!(",{layout}{ENTRY}"))))
    }

    /// The text without us, if we are in it.
    #[must_use]
    pub fn without_plugin(&self) -> Option<String> {
        let has_ours = self.plugins.iter().any(|(_, is_ours)| *is_ours);
        has_ours.then(|| self.rendered(""))
    }

    fn is_current(&self) -> bool {
        let ours: Vec<_> = self
            .plugins
            .iter()
            .filter(|(_, is_ours)| *is_ours)
            .collect();
        let value = |text| serde_json::from_str::<Value>(text).ok();
        let (&[only], Some(last)) = (ours.as_slice(), self.plugins.last()) else {
            return false;
        };
        only == last && value(&self.text[only.0.clone()]) == value(ENTRY)
    }

    /// Everybody else's plugins with what stands between them, `end` behind the last, and all that is around them.
    fn rendered(&self, end: &str) -> String {
        let mut places = self.plugins.iter().map(|(place, _)| place);
        let start = places.next().map_or(0, |first| first.start);
        let rest = self.plugins.last().map_or(0, |(last, _)| last.end);
        let mut text = self.text[..start].to_owned();
        let (mut before, mut is_first) = (start, true);
        for (place, is_ours) in &self.plugins {
            if !is_ours {
                let from = if is_first { place.start } else { before };
                text.push_str(&self.text[from..place.end]);
                is_first = false;
            }
            before = place.end;
        }
        text.push_str(end);
        text.push_str(&self.text[rest..]);
        text
    }
}

/// The list of a configuration of one plugin (`.conf`, `.json`) and us. Where it has no name it is that of its file, as
/// CRI-O has it.
///
/// # Errors
/// What a container runtime would refuse, too, and where we cannot be chained to it.
pub fn chained(text: &str, file: &str) -> Result<String, Unusable> {
    let fields: Object<'_> = serde_json::from_str(text)?;
    if kind(text)? == PLUGIN {
        return Err(Unusable::Alone);
    }
    let versions = versions(&fields)?;
    served(&versions)?;
    let name = string(&fields, "name")?.filter(|name| !name.is_empty());
    let name = Value::from(name.unwrap_or_else(|| file.to_owned()));
    let version = Value::from(versions.first().map_or("", String::as_str));
    let plugin = text.trim();
    Ok(format!(
        "{{\"cniVersion\":{version},\"name\":{name},\"plugins\":[{plugin},{ENTRY}]}}\n"
    ))
}

/// The type of a plugin.
fn kind(plugin: &str) -> Result<String, Unusable> {
    let wrong = || Unusable::Field("type");
    let fields: Object<'_> = serde_json::from_str(plugin).map_err(|_| wrong())?;
    let kind = string(&fields, "type")?.filter(|kind| !kind.is_empty());
    kind.ok_or_else(wrong)
}

fn string(fields: &Object<'_>, name: &'static str) -> Result<Option<String>, Unusable> {
    let value = fields
        .get(name)
        .map(|value| serde_json::from_str(value.get()));
    value.transpose().map_err(|_| Unusable::Field(name))
}

/// Every version that it may be used with: a runtime that does not know `cniVersions` takes `cniVersion`.
fn versions(fields: &Object<'_>) -> Result<Vec<String>, Unusable> {
    let one = string(fields, "cniVersion")?;
    let more = fields.get("cniVersions").map(|list| list.get());
    let more: Vec<String> = more
        .map_or(Ok(Vec::new()), serde_json::from_str)
        .map_err(|_| Unusable::Field("cniVersions"))?;
    Ok(one.into_iter().chain(more).collect())
}

fn served(versions: &[String]) -> Result<(), Unusable> {
    let unserved = |version: &&String| !VERSIONS.contains(&version.as_str());
    let wrong = match versions.first() {
        Some(_) => versions.iter().find(unserved).cloned(),
        None => Some(String::new()),
    };
    wrong.map_or(Ok(()), |version| Err(Unusable::Version(version)))
}

#[cfg(test)]
mod tests;
