//! An API server for tests, in this process and on loopback: objects of any kind in memory, with
//! versions, conflicts, watches, and faults on demand. It knows no schema and asks no webhook; the
//! real one is for the stories. Used by `operator` and `certificates`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

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

mod store;

use store::{Answer, Fault, Place, Store, selected_name, value_of};

/// Longest request body.
const BODY_LIMIT: usize = 1 << 20;

/// A handle on the server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Api {
    store: Arc<Mutex<Store>>,
    address: std::net::SocketAddr,
    version: watch::Sender<u64>,
}

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
