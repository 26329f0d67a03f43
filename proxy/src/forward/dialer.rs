//! From an address to a stream: TCP, and mesh TLS on it where the mesh says so.
//!
//! `connect` and the terminating path's slots dial with it. It must not know services.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Config, DialError, dial};
use crate::buffer::Pool;
use crate::identity::{Identity, server_name};
use crate::mesh::{Mesh, Way};
use crate::stream::Stream;
use crate::telemetry::Tls;

/// What all connections of a worker are dialed with.
#[derive(Clone, Debug)]
pub struct Dialer {
    pub config: Config,
    pub mesh: Rc<Mesh>,
    /// Where TLS takes its buffers from.
    pub pool: Rc<Pool>,
}

impl Dialer {
    /// Opens a connection to `to`, within this time, and with mesh TLS where there is a name to verify. The label says
    /// which it was to be, whatever came of it.
    pub async fn dial(
        &self,
        (to, name): (SocketAddr, Option<&Arc<str>>),
        limit: Duration,
    ) -> (Tls, Result<Stream, DialError>) {
        let way = self.mesh.way_to(to, name);
        let tls = way.tls();
        let dialed = match way {
            Way::Plain(_) => dial(to, limit, &self.config).await.map(Stream::Plain),
            Way::Refused(_) => Err(DialError::NoIdentity(to)),
            // Boxed, because connections without TLS would have to have the room for it.
            Way::Secured(identity, name) => {
                Box::pin(self.secure((to, limit), &identity, &name)).await
            }
        };
        (tls, dialed)
    }

    async fn secure(
        &self,
        (to, limit): (SocketAddr, Duration),
        identity: &Identity,
        name: &str,
    ) -> Result<Stream, DialError> {
        let failed = |error| DialError::Handshake(to, error);
        let name = server_name(name).map_err(|error| failed(error.into()))?;
        let secured = async {
            let socket = dial(to, limit, &self.config).await?;
            let secured = Stream::connect(socket, (identity, name), &self.pool).await;
            secured.map_err(failed)
        };
        let secured = timeout(limit, secured).await;
        secured.unwrap_or(Err(DialError::Timeout(to, limit)))
    }
}
