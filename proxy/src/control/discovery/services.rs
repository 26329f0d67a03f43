//! The services that the outbounds of a Dataplane lead to, outside Kubernetes: the operator is asked for the endpoints of
//! each by its name (`Get`), and the roster has what it says. Until it has said something, what the files say stands, and
//! what was said last stands while it is away. A task of the service thread, started by `app`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use weir_crds::identity::service_name;

use super::addresses::{Addresses, next_of};
use super::follow::Lookup;
use super::{Client, Config};
use crate::endpoints::{Roster, Service};

/// What is asked for, and where the answers go.
#[derive(Clone, Debug)]
pub struct Services {
    pub asked: Vec<Asked>,
    /// What the files say by now, where that is not what they said at the start.
    pub files: watch::Receiver<Arc<Roster>>,
    pub roster: watch::Sender<Arc<Roster>>,
}

/// One outbound.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where the application reaches it.
    pub listen: SocketAddr,
    /// The tags that its endpoints must have, `kuma.io/service` among them.
    pub tags: BTreeMap<String, String>,
    /// What the files said of it at the start.
    pub service: Service,
}

/// Keeps the roster as the operator has it. Ends at once where there is nothing to ask for.
pub async fn follow(mut services: Services, client: Client, config: Config) {
    let lookup = Lookup::new(client, &config);
    let asked = services.asked.iter();
    let mut followed: Vec<Addresses> = asked.map(|asked| asked.addresses(&lookup)).collect();
    while !followed.is_empty() {
        tokio::select! {
            () = next_of(&mut followed) => {}
            Ok(()) = services.files.changed() => {}
        }
        let said = services.asked.iter().zip(&followed);
        let files = Arc::clone(&services.files.borrow_and_update());
        let roster: Roster = said
            .map(|(asked, said)| (asked.listen, asked.service(said, &files)))
            .collect();
        services.roster.send_if_modified(|known| {
            let is_new = **known != roster;
            if is_new {
                *known = Arc::new(roster);
            }
            is_new
        });
    }
}

impl Asked {
    fn addresses(&self, lookup: &Lookup) -> Addresses {
        let path = format!(
            "{}:{}",
            service_name(&self.service.name),
            self.listen.port()
        );
        // The name is of the service alone; the other tags come with who asks.
        let context = serde_json::from_str(lookup.context()).unwrap_or_else(|_| json!({}));
        let context = match context {
            Value::Object(mut fields) => {
                fields.insert("tags".to_owned(), json!(self.tags));
                Value::Object(fields)
            }
            other => other,
        };
        Addresses::new(&lookup.of(context.to_string()), path)
    }

    fn service(&self, said: &Addresses, files: &Roster) -> Service {
        // Another service in its place takes a new start.
        let in_files = files.get(&self.listen);
        let in_files = in_files.filter(|service| service.name == self.service.name);
        match said.is_said() {
            false => in_files.unwrap_or(&self.service).clone(),
            // A service that no Dataplane offers has no endpoints.
            true => Service {
                endpoints: said.listed().unwrap_or_default(),
                ..self.service.clone()
            },
        }
    }
}
