//! The requests that ports of the application have routes for, compiled whenever settings say others: on the service
//! thread, once for all workers. `app` starts it; workers see a `watch::Receiver<Arc<Closed>>`.

use std::sync::Arc;

use tokio::sync::watch;
use weir_crds::settings::Settings;

use crate::routes::Closed;

/// What settings say about the ports, now and whenever they change, by whoever runs [`Compiling::run`].
pub fn compile(
    mut settings: watch::Receiver<Arc<Settings>>,
) -> (Compiling, watch::Receiver<Arc<Closed>>) {
    let first = read(&settings.borrow_and_update(), &Closed::default());
    let (publish, closed) = watch::channel(Arc::new(first));
    (Compiling { settings, publish }, closed)
}

/// Compiles what comes.
pub struct Compiling {
    settings: watch::Receiver<Arc<Settings>>,
    publish: watch::Sender<Arc<Closed>>,
}

impl Compiling {
    /// Until nobody publishes settings any more.
    pub async fn run(mut self) {
        while self.settings.changed().await.is_ok() {
            let now = Arc::clone(&self.settings.borrow_and_update());
            let before = Arc::clone(&self.publish.borrow());
            super::publish(&self.publish, read(&now, &before));
        }
    }
}

fn read(settings: &Settings, before: &Closed) -> Closed {
    let (closed, bad) = Closed::of(settings, before);
    for error in bad {
        tracing::error!(%error, "the port's routes are not taken over");
    }
    closed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_crds::routes::Condition;
    use weir_crds::settings::InboundSettings;

    use super::*;

    /// Longer than anything here takes, however busy the machine is.
    const DEADLINE: Duration = Duration::from_secs(10);

    fn closing(port: u16) -> Arc<Settings> {
        let inbound = InboundSettings {
            port,
            service: "web".to_owned(),
            permission: None,
            routes: Some(vec![Condition::always()]),
        };
        Arc::new(Settings {
            inbounds: Some(vec![inbound]),
            ..Settings::without_metrics("default")
        })
    }

    #[tokio::test]
    async fn what_settings_say_is_told_where_it_is_something_else() {
        let (settings, said) = watch::channel(closing(80));
        let (compiling, mut closed) = compile(said);
        let first = Arc::clone(&closed.borrow_and_update());
        assert_eq!(*first, Closed::of(&closing(80), &Closed::default()).0);
        let running = tokio::spawn(compiling.run());
        let open = Settings {
            passthrough: false,
            ..(*closing(80)).clone()
        };
        settings.send_replace(Arc::new(open));
        settings.send_replace(closing(81));
        let changed = tokio::time::timeout(DEADLINE, closed.changed()).await;
        changed.expect("in time").expect("it runs");
        assert_ne!(*first, *closed.borrow_and_update().clone());
        drop(settings);
        let ended = tokio::time::timeout(DEADLINE, running).await;
        ended.expect("in time").expect("it runs");
        assert!(closed.changed().await.is_err(), "nothing else was told");
    }
}
