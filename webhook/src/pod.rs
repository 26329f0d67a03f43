//! A pod as the JSON document that the API server sent, with readers for what a decision needs.
//! Called by `decide` and `inject`. It stays a document, never a typed Pod, so that fields newer than our
//! libraries survive untouched; it must not know why a field is read or written.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use thiserror::Error;

/// Why a document is not a pod that can be looked at.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PodError {
    /// The named field is absent or of another JSON type than the Kubernetes API says.
    #[error("pod: field {field} must be {expected}")]
    Shape {
        /// Path of the field, as in `spec.containers`.
        field: &'static str,
        /// What the API says it is.
        expected: &'static str,
    },
}

/// A pod document with `metadata` and `spec` objects and a list of containers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod(Value);

impl Pod {
    /// Takes a document whose fields, where this crate touches them, have the types of the Kubernetes API.
    pub fn parse(mut value: Value) -> Result<Self, PodError> {
        let shape = |field, expected| PodError::Shape { field, expected };
        let root = value
            .as_object_mut()
            .ok_or_else(|| shape("", "an object"))?;
        let metadata = root.entry("metadata").or_insert_with(|| json!({}));
        let metadata = metadata
            .as_object()
            .ok_or_else(|| shape("metadata", "an object"))?;
        for (key, field) in [
            ("labels", "metadata.labels"),
            ("annotations", "metadata.annotations"),
        ] {
            if !is_string_map(metadata.get(key)) {
                return Err(shape(field, "an object of strings"));
            }
        }
        let spec = root
            .get("spec")
            .and_then(Value::as_object)
            .ok_or_else(|| shape("spec", "an object"))?;
        if !spec.get("containers").is_some_and(is_object_list) {
            return Err(shape("spec.containers", "a list of objects"));
        }
        for (key, field) in [
            ("initContainers", "spec.initContainers"),
            ("volumes", "spec.volumes"),
        ] {
            let list = spec.get(key);
            if !list.is_none_or(|list| list.is_null() || is_object_list(list)) {
                return Err(shape(field, "a list of objects"));
            }
        }
        Ok(Self(value))
    }

    /// The document, to be compared with the one that came in.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// The document itself.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// `metadata.name`, else `metadata.generateName`, else an empty text (a pod at review often has no name yet).
    pub fn name(&self) -> &str {
        ["name", "generateName"]
            .iter()
            .find_map(|key| self.0["metadata"][key].as_str().filter(|n| !n.is_empty()))
            .unwrap_or_default()
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["labels"][key].as_str()
    }

    /// The value of one annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["annotations"][key].as_str()
    }

    /// All annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let map = self.0["metadata"]["annotations"].as_object();
        map.into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect()
    }

    /// The pod's volumes, created where it has none.
    pub fn volumes_mut(&mut self) -> &mut Vec<Value> {
        made(&mut self.0["spec"]["volumes"])
    }

    /// Sets a label.
    pub fn set_label(&mut self, key: &str, value: &str) {
        self.set_metadata("labels", key, value);
    }

    /// Takes a label away.
    pub fn remove_label(&mut self, key: &str) {
        if let Some(labels) = self.0["metadata"]["labels"].as_object_mut() {
            labels.remove(key);
        }
    }

    /// Sets an annotation.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        self.set_metadata("annotations", key, value);
    }

    /// Takes an annotation away.
    pub fn remove_annotation(&mut self, key: &str) {
        if let Some(annotations) = self.0["metadata"]["annotations"].as_object_mut() {
            annotations.remove(key);
        }
    }

    fn set_metadata(&mut self, map: &str, key: &str, value: &str) {
        let map = &mut self.0["metadata"][map];
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        map[key] = Value::from(value);
    }

    /// `spec`, to read from.
    pub fn spec(&self) -> &Value {
        &self.0["spec"]
    }

    /// `spec.containers`.
    pub fn containers(&self) -> &[Value] {
        list(&self.0["spec"]["containers"])
    }

    /// `spec.initContainers`; native sidecars are among them.
    pub fn init_containers(&self) -> &[Value] {
        list(&self.0["spec"]["initContainers"])
    }

    /// `spec.containers`, to change.
    pub fn containers_mut(&mut self) -> &mut Vec<Value> {
        list_mut(&mut self.0["spec"]["containers"])
    }

    /// `spec.initContainers`, to change; made when there is none.
    pub fn init_containers_mut(&mut self) -> &mut Vec<Value> {
        made(&mut self.0["spec"]["initContainers"])
    }

    /// Every container of either list with this name.
    pub fn find_container(&self, name: &str) -> Option<&Value> {
        self.containers()
            .iter()
            .chain(self.init_containers())
            .find(|c| c["name"] == name)
    }

    /// The owner that controls this pod: `(apiVersion, kind, name)`.
    pub fn controller(&self) -> Option<(&str, &str, &str)> {
        let owners = self.0["metadata"]["ownerReferences"].as_array()?;
        let owner = owners.iter().find(|o| o["controller"] == true)?;
        Some((
            owner["apiVersion"].as_str()?,
            owner["kind"].as_str()?,
            owner["name"].as_str()?,
        ))
    }
}

/// Whether an init container is a native sidecar, which lives as long as the pod.
pub fn is_native_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn is_string_map(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.values().all(Value::is_string),
        Some(_) => false,
    }
}

fn is_object_list(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|list| list.iter().all(Value::is_object))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A list that need not be there, to be added to.
fn made(value: &mut Value) -> &mut Vec<Value> {
    if value.is_null() {
        *value = json!([]);
    }
    list_mut(value)
}

fn list_mut(value: &mut Value) -> &mut Vec<Value> {
    value
        .as_array_mut()
        .expect("Pod::parse has seen that it is a list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_shape_names_the_field() {
        let shape = |value: Value| Pod::parse(value).unwrap_err().to_string();
        assert_eq!(shape(json!({})), "pod: field spec must be an object");
        assert_eq!(
            shape(json!({"spec": {"containers": {}}})),
            "pod: field spec.containers must be a list of objects"
        );
        assert_eq!(
            shape(json!({"spec": {"containers": [], "initContainers": [1]}})),
            "pod: field spec.initContainers must be a list of objects"
        );
        assert_eq!(
            shape(json!({"spec": {"containers": [], "volumes": {}}})),
            "pod: field spec.volumes must be a list of objects"
        );
        assert_eq!(
            shape(json!({"metadata": {"labels": {"a": 1}}, "spec": {"containers": []}})),
            "pod: field metadata.labels must be an object of strings"
        );
    }

    #[test]
    fn a_pod_at_review_may_have_only_a_generated_name() {
        let pod =
            json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(Pod::parse(pod).unwrap().name(), "web-");
    }
}
