//! The routes of one service, as the operator says them, compiled for workers. Followed by `follow` for as long as the
//! service's profile says that there are any; what was last said stands.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use weir_crds::grpc::routes_v1::{Document, WatchRequest};
use weir_crds::routes::{RouteTable, TABLE_VERSION};

use super::follow::Lookup;
use crate::control::stream::{Event, Watch, watch};
use crate::routes::{Bad, Compiled, compile};

/// Why a table is not taken over.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error("no table of routes: {0}")]
    Document(#[from] serde_json::Error),
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// `Routes.Watch`: the routes of a service, by name and port.
struct Documents(Lookup, String);

impl Watch for Documents {
    type Message = Document;

    async fn open(&self) -> Result<Streaming<Document>, Status> {
        let Self(lookup, path) = self;
        let request = WatchRequest {
            path: path.clone(),
            context_token: lookup.context().to_owned(),
            newest_version: TABLE_VERSION,
        };
        Ok(lookup.routes().watch(request).await?.into_inner())
    }
}

/// The table of a service that is followed.
pub(super) struct Tables {
    path: String,
    following: Pin<Box<dyn Future<Output = ()> + Send>>,
    documents: mpsc::Receiver<Event<Document>>,
    table: Option<Arc<Compiled>>,
    is_said: bool,
}

impl Tables {
    /// Begins to follow that of `name:port`.
    pub(super) fn new(lookup: &Lookup, path: String) -> Self {
        let (events, documents) = mpsc::channel(1);
        let of = Documents(lookup.clone(), path.clone());
        let following = watch(of, lookup.source(), events);
        Self {
            path,
            following: Box::pin(following),
            documents,
            table: None,
            is_said: false,
        }
    }

    /// Whether anything was said.
    pub(super) fn is_said(&self) -> bool {
        self.is_said
    }

    /// What was last said.
    pub(super) fn latest(&self) -> Option<Arc<Compiled>> {
        self.table.clone()
    }

    /// The next thing that is said is taken over. What cannot be read changes nothing.
    pub(super) async fn next(&mut self) {
        let event = tokio::select! {
            () = &mut self.following => None,
            event = self.documents.recv() => event,
        };
        match event {
            Some(Event::Message { message, .. }) => match read(&message.json) {
                Ok(table) => self.table = table.map(Arc::new),
                Err(error) => {
                    tracing::error!(destination = self.path, %error, "routes are not taken over");
                }
            },
            Some(Event::Broken) => return,
            Some(Event::Refused) => self.table = None,
            None => return std::future::pending().await,
        }
        self.is_said = true;
    }
}

fn read(json: &str) -> Result<Option<Compiled>, TableError> {
    if json.is_empty() {
        return Ok(None);
    }
    let table: RouteTable = serde_json::from_str(json)?;
    Ok(Some(compile(&table)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_refused_and_nothing_is_none() {
        assert_eq!(read("").expect("none"), None);
        let empty = read(r#"{"routes":[]}"#).expect("a table");
        assert!(empty.is_some_and(|table| table.is_empty()));
        let route =
            |condition: &str| format!(r#"{{"routes":[{{"name":"r","condition":{condition}}}]}}"#);
        for wrong in [
            "{",
            "[]",
            &route(r#"{"path":{"regex":"("}}"#),
            &route(r#"{"moon":"full"}"#),
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
