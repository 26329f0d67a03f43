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
    pub roster: watch::Sender<Arc<Roster>>,
}

/// One outbound.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where the application reaches it.
    pub listen: SocketAddr,
    /// The tags that its endpoints must have, `kuma.io/service` among them.
    pub tags: BTreeMap<String, String>,
    /// What the files say of it.
    pub service: Service,
}

/// Keeps the roster as the operator has it. Ends at once where there is nothing to ask for.
pub async fn follow(services: Services, client: Client, config: Config) {
    let lookup = Lookup::new(client, &config);
    let asked = services.asked.iter();
    let mut followed: Vec<Addresses> = asked.map(|asked| asked.addresses(&lookup)).collect();
    while !followed.is_empty() {
        next_of(&mut followed).await;
        let said = services.asked.iter().zip(&followed);
        let roster: Roster = said
            .map(|(asked, said)| (asked.listen, asked.service(said)))
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

    fn service(&self, said: &Addresses) -> Service {
        match said.is_said() {
            false => self.service.clone(),
            // A service that no Dataplane offers has no endpoints.
            true => Service {
                endpoints: said.listed().unwrap_or_default(),
                ..self.service.clone()
            },
        }
    }
}
