//! What the API server for tests keeps: objects with their versions, every change of them, and the faults to come. It knows
//! no connection.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

#[derive(Default)]
pub(super) struct Store {
    /// By collection path and name.
    pub(super) objects: BTreeMap<(String, String), Value>,
    /// Every change: its version, its collection, and the event as a watch sends it.
    pub(super) changes: Vec<(u64, String, Value)>,
    pub(super) requests: Vec<String>,
    pub(super) faults: Vec<Fault>,
    /// The status of a TokenReview by its token.
    pub(super) reviews: BTreeMap<String, Value>,
    pub(super) version: u64,
}

/// An answer given instead of the real one, a number of times.
pub(super) struct Fault {
    /// Beginning of `METHOD path`.
    pub(super) request: String,
    /// `None`: no answer at all.
    pub(super) code: Option<u16>,
    pub(super) times: usize,
}

/// A request's place: the collection, and the object and subresource in it.
pub(super) struct Place {
    pub(super) collection: String,
    pub(super) name: Option<String>,
    pub(super) is_status: bool,
}

pub(super) type Answer = Result<Value, (StatusCode, &'static str)>;

impl Store {
    /// What is answered instead, which may be nothing.
    pub(super) fn fault(&mut self, request: &str) -> Option<Option<u16>> {
        let mut faults = self.faults.iter_mut();
        let fault = faults.find(|fault| fault.times > 0 && request.starts_with(&fault.request))?;
        fault.times -= 1;
        let code = fault.code;
        let word = code.map_or("nothing".to_owned(), |code| code.to_string());
        self.requests.push(format!("{request} -> {word}"));
        Some(code)
    }

    pub(super) fn all(&self, collection: &str, name: Option<&str>) -> Vec<Value> {
        let objects = self.objects.iter();
        objects
            .filter(|((place, object), _)| {
                covers(collection, place) && name.is_none_or(|name| name == object)
            })
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn list(&self, collection: &str, query: &str) -> Value {
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()},
            "items": self.all(collection, selected_name(query).as_deref()),
        })
    }

    pub(super) fn read(&self, collection: &str, name: &str) -> Answer {
        let key = (collection.to_owned(), name.to_owned());
        let found = self.objects.get(&key).cloned();
        found.ok_or((StatusCode::NOT_FOUND, "NotFound"))
    }

    pub(super) fn review(&self, body: &Value) -> Value {
        assert_eq!(body["spec"]["audiences"], json!(["weir-operator"]));
        let token = body["spec"]["token"].as_str().unwrap();
        let refused = || json!({"authenticated": false, "error": "invalid bearer token"});
        let status = self.reviews.get(token).cloned().unwrap_or_else(refused);
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {}, "status": status})
    }

    pub(super) fn create(&mut self, collection: &str, body: &Value) -> Answer {
        let name = body["metadata"]["name"].as_str().unwrap();
        if self.read(collection, name).is_ok() {
            return Err((StatusCode::CONFLICT, "AlreadyExists"));
        }
        Ok(self.write(collection, name, body.clone()))
    }

    pub(super) fn replace(&mut self, collection: &str, name: &str, body: &Value) -> Answer {
        let known = self.read(collection, name)?;
        check_version(&known, body)?;
        Ok(self.write(collection, name, body.clone()))
    }

    /// Deletes what has the uid of the preconditions, as far as there are any.
    pub(super) fn delete(&mut self, collection: &str, name: &str, body: &Value) -> Answer {
        let known = self.read(collection, name)?;
        let uid = &body["preconditions"]["uid"];
        if !uid.is_null() && *uid != known["metadata"]["uid"] {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        self.remove(collection, name);
        Ok(known)
    }

    /// A merge of everything, where `webhooks` are merged by name; or of the status alone, where conditions are
    /// merged by type.
    pub(super) fn patch(&mut self, place: &Place, name: &str, body: &Value) -> Answer {
        let mut object = match self.read(&place.collection, name) {
            // An apply creates; what is applied says what it is.
            Err(_) if !place.is_status && body.get("kind").is_some() => json!({"metadata": {}}),
            found => found?,
        };
        check_version(&object, body)?;
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        if place.is_status {
            object["status"] = with_conditions(&object["status"], &body["status"]);
        } else {
            merge(&mut object, body);
        }
        Ok(self.write(&place.collection, name, object))
    }

    pub(super) fn write(&mut self, collection: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        let key = (collection.to_owned(), name.to_owned());
        let known = self.objects.get(&key);
        let generation = match known {
            Some(known) if known["spec"] == object["spec"] => {
                known["metadata"]["generation"].clone()
            }
            Some(known) => json!(known["metadata"]["generation"].as_u64().unwrap_or(1) + 1),
            None => json!(1),
        };
        let uid = known.map_or_else(
            || json!(format!("uid-{}", self.version)),
            |known| known["metadata"]["uid"].clone(),
        );
        // What a user writes never touches the status.
        if let (Some(known), None) = (known, object.get("status")) {
            object["status"] = known["status"].clone();
        }
        object["metadata"]["generation"] = generation;
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({
            "type": if known.is_some() { "MODIFIED" } else { "ADDED" },
            "object": object,
        });
        self.objects.insert(key, object.clone());
        self.changes
            .push((self.version, collection.to_owned(), event));
        object
    }

    pub(super) fn remove(&mut self, collection: &str, name: &str) -> Option<()> {
        let key = (collection.to_owned(), name.to_owned());
        let mut object = self.objects.remove(&key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({"type": "DELETED", "object": object});
        self.changes
            .push((self.version, collection.to_owned(), event));
        Some(())
    }

    pub(super) fn next_change(
        &self,
        collection: &str,
        name: &Option<String>,
        from: u64,
    ) -> Option<(u64, Value)> {
        self.changes
            .iter()
            .find(|(version, place, event)| {
                let found = event["object"]["metadata"]["name"].as_str();
                *version > from
                    && covers(collection, place)
                    && name.as_deref().is_none_or(|name| found == Some(name))
            })
            .map(|(version, _, event)| (*version, event.clone()))
    }
}

impl Place {
    pub(super) fn parse(path: &str) -> Self {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        // /api/v1/... or /apis/GROUP/VERSION/...; then, within a namespace, two more.
        let mut kind = if segments[0] == "api" { 2 } else { 3 };
        if segments.get(kind) == Some(&"namespaces") && segments.len() > kind + 2 {
            kind += 2;
        }
        Self {
            collection: format!("/{}", segments[..=kind].join("/")),
            name: segments.get(kind + 1).map(|name| (*name).to_owned()),
            is_status: segments.get(kind + 2) == Some(&"status"),
        }
    }
}

/// Whether a collection has the objects of another: of all namespaces those of each.
fn covers(collection: &str, place: &str) -> bool {
    let Some((group, rest)) = place.split_once("/namespaces/") else {
        return collection == place;
    };
    let kind = rest.split_once('/').map_or("", |(_, kind)| kind);
    collection == place || collection == format!("{group}/{kind}")
}

fn check_version(known: &Value, body: &Value) -> Result<(), (StatusCode, &'static str)> {
    let wanted = &body["metadata"]["resourceVersion"];
    if wanted.is_null() || *wanted == known["metadata"]["resourceVersion"] {
        Ok(())
    } else {
        Err((StatusCode::CONFLICT, "Conflict"))
    }
}

/// What is applied to a status: the conditions of other types stay, as those of other writers do.
fn with_conditions(known: &Value, applied: &Value) -> Value {
    let mut status = applied.clone();
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return status;
    };
    let types: Vec<Value> = conditions.iter().map(|one| one["type"].clone()).collect();
    let before = known["conditions"].as_array().into_iter().flatten();
    let others = before.filter(|one| !types.contains(&one["type"]));
    conditions.extend(others.cloned());
    status
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (key, value) in fields {
        if key == "webhooks" {
            for entry in value.as_array().unwrap() {
                let entries = object[key].as_array_mut().unwrap();
                let same = entries.iter_mut().find(|one| one["name"] == entry["name"]);
                merge(same.unwrap(), entry);
            }
        } else {
            merge(&mut object[key], value);
        }
    }
}

pub(super) fn selected_name(query: &str) -> Option<String> {
    let selector = value_of(query, "fieldSelector=metadata.name%3D")?;
    Some(selector.to_owned())
}

pub(super) fn value_of<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|part| part.strip_prefix(key))
}
