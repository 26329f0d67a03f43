//! Universal documents: the resources as YAML text, for machines without Kubernetes.
//! Called by the proxy (its own file and the Mesh's) and by the operator (a directory of them). Every problem comes
//! with its line and column. It reads text, not files.

mod locate;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::dataplane::DataplaneSpec;
use crate::mesh::MeshSpec;
use crate::names::DEFAULT_MESH;
use crate::node::Node;
use crate::traffic_permission::TrafficPermissionSpec;
use crate::validate;
use crate::violation::{Violation, prefixed};

/// The keys of a document that are not its content.
const META: [&str; 6] = [
    "type",
    "name",
    "mesh",
    "labels",
    "creationTime",
    "modificationTime",
];
/// The key below which the content may stand instead of beside the meta data.
const SPEC: &str = "spec";

/// One valid document.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// `type: Mesh`.
    Mesh(Entry<MeshSpec>),
    /// `type: Dataplane`.
    Dataplane(Entry<DataplaneSpec>),
    /// `type: TrafficPermission`.
    TrafficPermission(Entry<TrafficPermissionSpec>),
}

/// A document's meta data and its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<S> {
    /// Unique among the documents of its type and Mesh.
    pub name: String,
    /// The Mesh it belongs to, `default` where it names none; of a Mesh its own name.
    pub mesh: String,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// The content, wherever in the document it stood.
    pub spec: S,
}

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, over all documents of the text.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UniversalError {
    /// The text is not YAML, or not YAML that JSON can express.
    #[error("{}not valid YAML: {message}", place(*at))]
    Syntax {
        /// Where, if it is known.
        at: Option<Position>,
        /// What the parser says.
        message: String,
    },
    /// The document breaks a rule.
    #[error("{}{violation}", place(*at))]
    Invalid {
        /// Where the value to blame stands, or what encloses it.
        at: Option<Position>,
        /// Which field and why.
        violation: Violation,
    },
}

fn place(at: Option<Position>) -> String {
    at.map(|at| format!("{at}: ")).unwrap_or_default()
}

/// All documents of a text, or everything that is wrong with any of them.
pub fn parse(text: &str) -> Result<Vec<Document>, Vec<UniversalError>> {
    let mut valid = Vec::new();
    let mut errors = Vec::new();
    for document in documents(text) {
        match document {
            Ok(document) => valid.push(document),
            Err(problems) => errors.extend(problems),
        }
    }
    if errors.is_empty() {
        Ok(valid)
    } else {
        Err(errors)
    }
}

/// The documents of a text, each judged alone, so that one bad document does not hide the others. What follows a
/// syntax error cannot be read. Empty documents are skipped.
pub fn documents(text: &str) -> Vec<Result<Document, Vec<UniversalError>>> {
    judged(text).into_iter().map(|(_, judged)| judged).collect()
}

/// [`documents`], each with what it calls itself, such as `Dataplane "web-1"`; where it does not, its place among them.
pub fn judged(text: &str) -> Vec<(String, Result<Document, Vec<UniversalError>>)> {
    let mut documents = Vec::new();
    for (index, source) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = read(source);
        let failed = value.is_err();
        let called = called(value.as_ref().ok(), index);
        match value {
            Ok(Value::Null) => {}
            Ok(value) => {
                let judged = document(&value).map_err(|violations| {
                    let locate = |violation: Violation| UniversalError::Invalid {
                        at: locate::position(text, index, violation.culprit()),
                        violation,
                    };
                    violations.into_iter().map(locate).collect()
                });
                documents.push((called, judged));
            }
            Err(error) => documents.push((called, Err(vec![error]))),
        }
        if failed {
            break;
        }
    }
    documents
}

/// What a document calls itself.
fn called(value: Option<&Value>, index: usize) -> String {
    let text = |key: &str| value?.get(key)?.as_str();
    match (text("type"), text("name")) {
        (Some(kind), Some(name)) => format!("{kind} {name:?}"),
        _ => format!("document {}", index + 1),
    }
}

/// What `judge` makes of the one document of a text, or of null where there is none; with the places of what is wrong.
pub(crate) fn read_one<T>(
    text: &str,
    judge: impl Fn(&Value) -> Result<T, Vec<Violation>>,
) -> Result<T, Vec<UniversalError>> {
    let mut values = Vec::new();
    for source in serde_yaml::Deserializer::from_str(text) {
        values.push(read(source).map_err(|error| vec![error])?);
    }
    values.retain(|value| !value.is_null());
    if values.len() > 1 {
        return Err(vec![UniversalError::Syntax {
            at: None,
            message: format!("one document is expected, found {}", values.len()),
        }]);
    }
    let value = values.pop().unwrap_or(Value::Null);
    let locate = |violation: Violation| UniversalError::Invalid {
        at: locate::position(text, 0, violation.culprit()),
        violation,
    };
    judge(&value).map_err(|violations| violations.into_iter().map(locate).collect())
}

fn read(source: serde_yaml::Deserializer<'_>) -> Result<Value, UniversalError> {
    let syntax = |error: serde_yaml::Error| UniversalError::Syntax {
        at: locate::position_of(&error),
        message: error.to_string(),
    };
    let mut value = serde_yaml::Value::deserialize(source).map_err(syntax)?;
    value.apply_merge().map_err(syntax)?;
    serde_json::to_value(value).map_err(|error| UniversalError::Syntax {
        at: None,
        message: error.to_string(),
    })
}

fn document(value: &Value) -> Result<Document, Vec<Violation>> {
    let root = Node::root(value);
    let one = |violation: Violation| vec![violation];
    let Value::Object(fields) = value else {
        return Err(vec![Violation::new(
            "",
            "expected a document with the keys type, name and mesh",
        )]);
    };
    let kind = kind(&root).map_err(one)?;
    let name = name(&root).map_err(one)?;
    let mesh = root.get("mesh").text_or_empty().map_err(one)?;
    let mesh = if mesh.is_empty() { DEFAULT_MESH } else { mesh };
    let labels = root.get("labels").text_map().map_err(one)?;
    let content = content(fields)?;
    let violations = match kind {
        Kind::Mesh => [validate::mesh_name(name), validate::mesh(&content)].concat(),
        Kind::Dataplane => validate::dataplane(&content),
        Kind::TrafficPermission => validate::traffic_permission(&content),
    };
    if !violations.is_empty() {
        return Err(as_written(violations, fields));
    }
    let name = name.to_owned();
    let mesh = mesh.to_owned();
    Ok(match kind {
        Kind::Mesh => Document::Mesh(Entry {
            mesh: name.clone(),
            name,
            labels,
            spec: MeshSpec(content),
        }),
        Kind::Dataplane => Document::Dataplane(Entry {
            name,
            mesh,
            labels,
            spec: DataplaneSpec(content),
        }),
        Kind::TrafficPermission => {
            let spec = TrafficPermissionSpec(content);
            Document::TrafficPermission(Entry {
                name,
                mesh,
                labels,
                spec,
            })
        }
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Mesh,
    Dataplane,
    TrafficPermission,
}

fn kind(root: &Node<'_>) -> Result<Kind, Violation> {
    let field = root.get("type");
    match field.text_or_empty()? {
        "Mesh" => Ok(Kind::Mesh),
        "Dataplane" => Ok(Kind::Dataplane),
        "TrafficPermission" => Ok(Kind::TrafficPermission),
        "" if !root.get("apiVersion").is_absent() => Err(root.get("apiVersion").violation(
            "this is the Kubernetes form; a Universal document has type, name and mesh at its top level",
        )),
        "" => Err(field.violation("has to be defined: Mesh, Dataplane or TrafficPermission")),
        other => Err(field.violation(format!(
            "unknown type {other:?}. Available types: Mesh, Dataplane, TrafficPermission"
        ))),
    }
}

fn name<'a>(root: &Node<'a>) -> Result<&'a str, Violation> {
    let field = root.get("name");
    let name = field.text_or_empty()?;
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if name.is_empty() {
        return Err(field.violation("cannot be empty"));
    }
    if !name.bytes().all(allowed) {
        let message = "invalid characters. Valid characters are numbers, lowercase latin letters and \
                       '-', '_', '.' symbols.";
        return Err(field.violation(message));
    }
    Ok(name)
}

/// The content: everything below `spec` and everything beside it that is not meta data.
fn content(fields: &Map<String, Value>) -> Result<Value, Vec<Violation>> {
    let mut content = match fields.get(SPEC) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(spec)) => spec.clone(),
        Some(_) => return Err(vec![Violation::new(SPEC, "expected an object")]),
    };
    let beside = |key: &str| key != SPEC && !META.contains(&key);
    for (key, value) in fields.iter().filter(|(key, _)| beside(key)) {
        if content.insert(key.clone(), value.clone()).is_some() {
            let message =
                format!("{key} stands both at the top level and below spec: keep one of them");
            return Err(vec![Violation::new(key.clone(), message)]);
        }
    }
    Ok(Value::Object(content))
}

/// Gives the paths of what stands below `spec` their `spec.` back.
fn as_written(violations: Vec<Violation>, fields: &Map<String, Value>) -> Vec<Violation> {
    let below = |violation: &Violation| {
        let first = violation
            .culprit()
            .split(['.', '['])
            .next()
            .unwrap_or_default();
        fields
            .get(SPEC)
            .is_some_and(|spec| spec.get(first).is_some())
    };
    let rewrite = |violation: Violation| {
        let prefix = if below(&violation) { "spec." } else { "" };
        prefixed(prefix, vec![violation])
    };
    violations.into_iter().flat_map(rewrite).collect()
}

#[cfg(test)]
mod tests;
