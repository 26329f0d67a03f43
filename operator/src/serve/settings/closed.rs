//! Which requests there is a route for at the ports of a workload that refuses all others. Used by `source`, which says it
//! in settings. It knows no Mesh and nothing of the workload but its ports.

use futures::future::select_all;
use tokio::sync::watch;
use weir_crds::routes::{Condition, RouteTable};

use crate::index::{Caller, Discovery, Profile, Watched};
use crate::workload::Inbound;

/// The Services of a workload's ports.
pub(super) struct Closed {
    /// Of each inbound its port, and its Service where it has one.
    ports: Vec<(u16, Option<Watched<Profile>>)>,
    /// Whether routes that are not known do not exist.
    certain: watch::Receiver<bool>,
}

impl Closed {
    pub(super) fn of(inbounds: &[Inbound], index: &Discovery) -> Self {
        let ports = inbounds.iter().map(|inbound| {
            let service = inbound.service();
            let service = service.map(|(service, port)| index.name(service, None, port));
            (inbound.port, service)
        });
        Self {
            ports: ports.collect(),
            certain: index.certain(),
        }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&mut self) {
        let services = self.ports.iter_mut().filter_map(|(_, of)| of.as_mut());
        let mut changes: Vec<_> = services.map(|of| Box::pin(of.changed())).collect();
        let services = async {
            match changes.is_empty() {
                true => std::future::pending().await,
                false => select_all(&mut changes).await.0,
            }
        };
        let is_told = tokio::select! {
            is_told = services => is_told,
            changed = self.certain.changed() => changed.is_ok(),
        };
        if !is_told {
            // The operator ends.
            std::future::pending::<()>().await;
        }
    }

    /// Whether it is known which routes there are: before, a port would be open that is not.
    pub(super) fn is_known(&mut self) -> bool {
        *self.certain.borrow_and_update()
    }

    /// The requests that a port has a route for. `None` is any: one of the Services that lead there has no routes, or none
    /// leads there. Of a Service those count that its own namespace has written: a client must not open another's ports.
    pub(super) fn conditions(&mut self, port: u16) -> Option<Vec<Condition>> {
        let (mut conditions, mut is_any) = (Vec::new(), false);
        for (_, of) in self.ports.iter_mut().filter(|(number, _)| *number == port) {
            let Profile::Service(service, Some(routes)) = &*of.as_mut()?.latest() else {
                return None;
            };
            let table = routes.for_client(&Caller::default(), &service.service)?;
            let RouteTable { routes, closed, .. } = &table.table;
            // Of HTTPRoutes that say nothing that can be obeyed clients reach nothing either.
            if routes.is_empty() && !closed {
                return None;
            }
            conditions.extend(routes.iter().map(|route| route.condition.clone()));
            is_any = true;
        }
        is_any.then_some(conditions)
    }
}
