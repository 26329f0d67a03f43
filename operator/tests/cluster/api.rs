//! An API server for tests, in this process and on loopback: objects of any kind in memory, with
//! versions, conflicts, watches, and faults on demand. It knows no schema and asks no webhook; the
//! real one is for the stories. Used by `operator` and `certificates`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Longest request body.
const BODY_LIMIT: usize = 1 << 20;

/// A handle on the server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Api {
    store: Arc<Mutex<Store>>,
    address: std::net::SocketAddr,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Store {
    /// By collection path and name.
    objects: BTreeMap<(String, String), Value>,
    /// Every change: its version, its collection, and the event as a watch sends it.
    changes: Vec<(u64, String, Value)>,
    requests: Vec<String>,
    faults: Vec<Fault>,
    /// The status of a TokenReview by its token.
    reviews: BTreeMap<String, Value>,
    version: u64,
}

/// An answer given instead of the real one, a number of times.
struct Fault {
    /// Beginning of `METHOD path`.
    request: String,
    /// `None`: no answer at all.
    code: Option<u16>,
    times: usize,
}

/// A request's place: the collection, and the object and subresource in it.
struct Place {
    collection: String,
    name: Option<String>,
    is_status: bool,
}

type Answer = Result<Value, (StatusCode, &'static str)>;

impl Api {
    /// Starts an empty server and a client for it.
    pub(crate) async fn start() -> (Self, kube::Client) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Self {
            store: Arc::default(),
            address,
            version: watch::Sender::new(0),
        };
        let router = Router::new().fallback(handle).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        (api, kube::Client::try_from(config).unwrap())
    }

    /// Where it is, for another process.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Puts an object there as a user would.
    pub(crate) fn put(&self, collection: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut store = self.store.lock().unwrap();
        store.write(collection, &name, object);
        self.version.send_replace(store.version);
    }

    pub(crate) fn get(&self, collection: &str, name: &str) -> Option<Value> {
        let key = (collection.to_owned(), name.to_owned());
        self.store.lock().unwrap().objects.get(&key).cloned()
    }

    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        let store = self.store.lock().unwrap();
        store.all(collection, None)
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        let mut store = self.store.lock().unwrap();
        store.remove(collection, name).unwrap();
        self.version.send_replace(store.version);
    }

    /// Every request so far as `METHOD path`, without watches and lists.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.store.lock().unwrap().requests.clone()
    }

    /// Answers the next `times` requests that begin with `request` (`METHOD path`) with `code`.
    pub(crate) fn fail(&self, request: &str, code: u16, times: usize) {
        self.add_fault(request, Some(code), times);
    }

    /// Never answers the next request that begins with `request`.
    pub(crate) fn ignore(&self, request: &str) {
        self.add_fault(request, None, 1);
    }

    fn add_fault(&self, request: &str, code: Option<u16>, times: usize) {
        let request = request.to_owned();
        let mut store = self.store.lock().unwrap();
        store.faults.push(Fault {
            request,
            code,
            times,
        });
    }

    /// Forgets what was to fail.
    pub(crate) fn mend(&self) {
        self.store.lock().unwrap().faults.clear();
    }

    /// Accepts a token as that of a pod, bound to the audience.
    pub(crate) fn accept(
        &self,
        token: &str,
        (namespace, account, pod, uid): (&str, &str, &str, &str),
    ) {
        let extra = json!({
            "authentication.kubernetes.io/pod-name": [pod],
            "authentication.kubernetes.io/pod-uid": [uid],
        });
        let user = json!({"username": format!("system:serviceaccount:{namespace}:{account}"), "extra": extra});
        let status = json!({"authenticated": true, "audiences": ["weir-operator"], "user": user});
        self.store
            .lock()
            .unwrap()
            .reviews
            .insert(token.to_owned(), status);
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &Value) -> Answer {
        let mut store = self.store.lock().unwrap();
        let place = Place::parse(path);
        if place.name.is_some() || method != Method::GET {
            store.requests.push(format!("{method} {path}"));
        }
        let answer = match (method.as_str(), &place.name) {
            ("GET", None) => Ok(store.list(&place.collection, query)),
            ("GET", Some(name)) => store.read(&place.collection, name),
            ("POST", _) if place.collection.ends_with("/tokenreviews") => Ok(store.review(body)),
            ("POST", _) => store.create(&place.collection, body),
            ("PUT", Some(name)) => store.replace(&place.collection, name, body),
            ("PATCH", Some(name)) => store.patch(&place, name, body),
            ("DELETE", Some(name)) => store.delete(&place.collection, name, body),
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        };
        self.version.send_replace(store.version);
        answer
    }

    /// The changes of a collection after `from`, as lines, for as long as the client listens.
    fn stream(&self, collection: String, name: Option<String>, from: u64) -> Body {
        let store = self.store.clone();
        let changed = self.version.subscribe();
        let lines = futures::stream::unfold((from, changed), move |(from, mut changed)| {
            let (store, collection, name) = (store.clone(), collection.clone(), name.clone());
            async move {
                loop {
                    changed.borrow_and_update();
                    let next = store.lock().unwrap().next_change(&collection, &name, from);
                    if let Some((version, event)) = next {
                        return Some((format!("{event}\n"), (version, changed)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        Body::from_stream(lines.map(|line| Ok::<_, Infallible>(Bytes::from(line))))
    }
}

async fn handle(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    if query.contains("watch=true") {
        let from = value_of(&query, "resourceVersion=").and_then(|text| text.parse().ok());
        let body = api.stream(path, selected_name(&query), from.unwrap_or_default());
        return body.into_response();
    }
    let body = axum::body::to_bytes(body, BODY_LIMIT).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let fault = api
        .store
        .lock()
        .unwrap()
        .fault(&format!("{} {path}", parts.method));
    let answer = match fault {
        Some(None) => return std::future::pending().await,
        Some(Some(code)) => Err((StatusCode::from_u16(code).unwrap(), "Injected")),
        None => api.answer(&parts.method, &path, &query, &body),
    };
    match answer {
        Ok(object) => axum::Json(object).into_response(),
        Err((code, reason)) => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": reason, "reason": reason, "code": code.as_u16(),
            });
            (code, axum::Json(status)).into_response()
        }
    }
}

impl Store {
    /// What is answered instead, which may be nothing.
    fn fault(&mut self, request: &str) -> Option<Option<u16>> {
        let mut faults = self.faults.iter_mut();
        let fault = faults.find(|fault| fault.times > 0 && request.starts_with(&fault.request))?;
        fault.times -= 1;
        let code = fault.code;
        let word = code.map_or("nothing".to_owned(), |code| code.to_string());
        self.requests.push(format!("{request} -> {word}"));
        Some(code)
    }

    fn all(&self, collection: &str, name: Option<&str>) -> Vec<Value> {
        let objects = self.objects.iter();
        objects
            .filter(|((place, object), _)| {
                covers(collection, place) && name.is_none_or(|name| name == object)
            })
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()},
            "items": self.all(collection, selected_name(query).as_deref()),
        })
    }

    fn read(&self, collection: &str, name: &str) -> Answer {
        let key = (collection.to_owned(), name.to_owned());
        let found = self.objects.get(&key).cloned();
        found.ok_or((StatusCode::NOT_FOUND, "NotFound"))
    }

    fn review(&self, body: &Value) -> Value {
        assert_eq!(body["spec"]["audiences"], json!(["weir-operator"]));
        let token = body["spec"]["token"].as_str().unwrap();
        let refused = || json!({"authenticated": false, "error": "invalid bearer token"});
        let status = self.reviews.get(token).cloned().unwrap_or_else(refused);
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {}, "status": status})
    }

    fn create(&mut self, collection: &str, body: &Value) -> Answer {
        let name = body["metadata"]["name"].as_str().unwrap();
        if self.read(collection, name).is_ok() {
            return Err((StatusCode::CONFLICT, "AlreadyExists"));
        }
        Ok(self.write(collection, name, body.clone()))
    }

    fn replace(&mut self, collection: &str, name: &str, body: &Value) -> Answer {
        let known = self.read(collection, name)?;
        check_version(&known, body)?;
        Ok(self.write(collection, name, body.clone()))
    }

    /// Deletes what has the uid of the preconditions, as far as there are any.
    fn delete(&mut self, collection: &str, name: &str, body: &Value) -> Answer {
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
    fn patch(&mut self, place: &Place, name: &str, body: &Value) -> Answer {
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

    fn write(&mut self, collection: &str, name: &str, mut object: Value) -> Value {
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

    fn remove(&mut self, collection: &str, name: &str) -> Option<()> {
        let key = (collection.to_owned(), name.to_owned());
        let mut object = self.objects.remove(&key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({"type": "DELETED", "object": object});
        self.changes
            .push((self.version, collection.to_owned(), event));
        Some(())
    }

    fn next_change(
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
    fn parse(path: &str) -> Self {
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

fn selected_name(query: &str) -> Option<String> {
    let selector = value_of(query, "fieldSelector=metadata.name%3D")?;
    Some(selector.to_owned())
}

fn value_of<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|part| part.strip_prefix(key))
}
