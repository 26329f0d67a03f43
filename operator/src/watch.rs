//! Follows one kind of object in the API server and feeds an index. Spawned by `app`, one task a
//! kind. A watch that breaks starts again with growing pauses; an index keeps what it knew until
//! the next complete list. It knows no particular resource.

use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_process::api_server::limited;

use crate::backoff::Backoff;
use crate::health::Pending;
use crate::index::Indexed;
use crate::metrics::{Metrics, Watch};

/// How long a watch must have worked for the pauses to start over.
const SETTLED: Duration = Duration::from_mins(1);
/// When a kind that an installation need not have is looked for again, where it is not there.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// One kind of object to follow, and who is told of what happens.
pub(crate) struct Follow<I> {
    pub(crate) what: Watch,
    pub(crate) index: I,
    /// Whether the kind may be missing: then there is nothing of it, and it is looked for again now and then.
    pub(crate) optional: bool,
    pub(crate) metrics: Metrics,
    /// Dropped after the first complete list.
    pub(crate) pending: Pending,
    pub(crate) stop: CancellationToken,
}

/// Follows the objects of `api` that match `config` until `follow.stop`.
pub(crate) async fn follow<K: Watched, I: Indexed<K>>(
    api: Api<K>,
    config: watcher::Config,
    follow: Follow<I>,
) {
    follow_kept(api, config, |object| object, follow).await;
}

/// What can be watched.
pub(crate) trait Watched:
    Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

/// Objects in pages of this size: of a kind with many objects only a page is whole in memory.
const PAGE: u32 = 100;

/// How everything of a kind is followed of which only a part is kept.
pub(crate) fn in_pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Follows the objects of `api` until `follow.stop`; of each, `keep` takes what is used as soon as it is there.
pub(crate) async fn follow_kept<K: Watched, T, I: Indexed<T>>(
    api: Api<K>,
    config: watcher::Config,
    keep: impl Fn(K) -> T,
    follow: Follow<I>,
) {
    let events = watcher(api, limited(config));
    let events = events.map(|event| event.map(|event| kept(event, &keep)));
    let stop = follow.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = drain(events, follow) => {}
    }
}

fn kept<K, T>(event: Event<K>, keep: impl Fn(K) -> T) -> Event<T> {
    match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(keep(object)),
        Event::Apply(object) => Event::Apply(keep(object)),
        Event::Delete(object) => Event::Delete(keep(object)),
    }
}

/// Selects the one object of this name; a role that names its objects admits such a watch.
pub(crate) fn only(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

async fn drain<K, I: Indexed<K>>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut follow: Follow<I>,
) {
    let mut events = std::pin::pin!(events);
    let mut pending = Some(follow.pending);
    let mut listed = Vec::new();
    let mut backoff = Backoff::default();
    let mut working_since: Option<Instant> = None;
    let mut is_known = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => {
                follow.index.reset(std::mem::take(&mut listed));
                pending = None;
                is_known = true;
                working_since = Some(Instant::now());
            }
            Ok(Event::Apply(object)) => follow.index.apply(object),
            Ok(Event::Delete(object)) => follow.index.delete(&object),
            Err(error) if follow.optional && is_missing(&error) => {
                report_missing(follow.what, &error);
                // A role that does not admit it any more takes nothing away.
                if is_unknown_kind(&error) || !is_known {
                    follow.index.reset(Vec::new());
                }
                pending = None;
                working_since = None;
                backoff.reset();
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => {
                follow.metrics.count_watch_restart(follow.what);
                report(follow.what, &error);
                if follow.optional && pending.take().is_some() {
                    // Nobody is to wait for what an installation need not have.
                    follow.index.unlisted();
                }
                if working_since
                    .take()
                    .is_some_and(|since| since.elapsed() >= SETTLED)
                {
                    backoff.reset();
                }
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
    drop(pending);
}

fn report(what: Watch, error: &watcher::Error) {
    let resource = what.as_str();
    if is_unknown_kind(error) {
        tracing::info!(resource, "the API server does not know this kind yet");
    } else {
        tracing::warn!(%error, resource, "a watch broke, starting it again");
    }
}

/// Nobody need know of a kind that is not installed, but of a role that does not admit it.
fn report_missing(what: Watch, error: &watcher::Error) {
    let resource = what.as_str();
    if is_unknown_kind(error) {
        tracing::debug!(resource, "the kind is not installed");
    } else {
        tracing::warn!(%error, resource, "taken for empty: apply the manifests again");
    }
}

/// Whether the kind is not (or no longer) installed.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    status_of(error) == Some(404)
}

/// Whether there is nothing to follow: the kind is not installed, or a role of before it was asked for does not admit
/// it.
fn is_missing(error: &watcher::Error) -> bool {
    matches!(status_of(error), Some(403 | 404))
}

/// The HTTP status with which a list or a watch was refused.
fn status_of(error: &watcher::Error) -> Option<u16> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return None;
    };
    Some(status.code)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::health::Readiness;

    #[derive(Clone, Default)]
    struct Script(Arc<Mutex<Vec<String>>>);

    impl Indexed<u8> for Script {
        fn apply(&mut self, object: u8) {
            self.0.lock().unwrap().push(format!("apply {object}"));
        }
        fn delete(&mut self, object: &u8) {
            self.0.lock().unwrap().push(format!("delete {object}"));
        }
        fn reset(&mut self, objects: Vec<u8>) {
            self.0.lock().unwrap().push(format!("reset {objects:?}"));
        }
        fn unlisted(&mut self) {
            self.0.lock().unwrap().push("unlisted".to_owned());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_taken_whole_and_a_broken_one_not_at_all() {
        let readiness = Readiness::default();
        let script = Script::default();
        let metrics = Metrics::default();
        let follow = Follow {
            what: Watch::Meshes,
            index: script.clone(),
            optional: false,
            metrics: metrics.clone(),
            pending: readiness.register("meshes"),
            stop: CancellationToken::new(),
        };
        let events = futures::stream::iter(vec![
            Ok(Event::Init),
            Ok(Event::InitApply(1)),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(2)),
            Ok(Event::InitApply(3)),
            Ok(Event::InitDone),
            Ok(Event::Apply(4)),
            Ok(Event::Delete(2)),
        ]);
        assert_eq!(readiness.waiting_for(), ["meshes"]);
        drain(events, follow).await;
        assert!(readiness.waiting_for().is_empty());
        assert_eq!(
            *script.0.lock().unwrap(),
            ["reset [2, 3]", "apply 4", "delete 2"]
        );
        assert!(
            metrics
                .render()
                .contains(r#"watch_restarts_total{resource="meshes"} 1"#)
        );
    }

    #[test]
    fn of_every_object_only_what_is_used_is_kept() {
        let names = |event| match kept(event, |object: (&str, u8)| object.0) {
            Event::Apply(name) | Event::Delete(name) | Event::InitApply(name) => Some(name),
            Event::Init | Event::InitDone => None,
        };
        assert_eq!(names(Event::Apply(("a", 1))), Some("a"));
        assert_eq!(names(Event::Delete(("b", 1))), Some("b"));
        assert_eq!(names(Event::InitApply(("c", 1))), Some("c"));
        assert_eq!(names(Event::Init).or(names(Event::InitDone)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_of_a_watch_that_never_works_grow() {
        let follow = Follow {
            what: Watch::Meshes,
            index: Script::default(),
            optional: false,
            metrics: Metrics::default(),
            pending: Readiness::default().register("meshes"),
            stop: CancellationToken::new(),
        };
        // Every try begins with an event, as the real ones do.
        let tries = std::iter::repeat_with(|| {
            [
                Ok(Event::<u8>::Init),
                Err(watcher::Error::NoResourceVersion),
            ]
        });
        let start = Instant::now();
        drain(futures::stream::iter(tries.take(10).flatten()), follow).await;
        // 0.2 s doubling to 10 s, at the least.
        assert!(
            start.elapsed() > Duration::from_secs(40),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_need_not_be_there_is_empty_and_looked_for_again() {
        let readiness = Readiness::default();
        let (script, metrics) = (Script::default(), Metrics::default());
        let follow = Follow {
            what: Watch::ServiceProfiles,
            index: script.clone(),
            optional: true,
            metrics: metrics.clone(),
            pending: readiness.register("service_profiles"),
            stop: CancellationToken::new(),
        };
        let refused = |code| {
            let status = kube::core::Status::failure("no", "no").with_code(code);
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        let events = futures::stream::iter(vec![
            Ok(Event::Init),
            Err(refused(404)),
            Ok(Event::Init),
            Err(refused(403)),
            Ok(Event::Init),
            Ok(Event::InitApply(1)),
            Ok(Event::InitDone),
            Ok(Event::Init),
            Err(refused(403)),
            Ok(Event::Init),
            Err(refused(404)),
        ]);
        let start = Instant::now();
        drain(events, follow).await;
        assert_eq!(start.elapsed(), 4 * LOOK_AGAIN);
        assert!(readiness.waiting_for().is_empty());
        assert_eq!(
            *script.0.lock().unwrap(),
            ["reset []", "reset []", "reset [1]", "reset []"]
        );
        assert!(!metrics.render().contains("service_profiles"));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_kind_that_need_not_be_there_and_cannot_be_listed() {
        let readiness = Readiness::default();
        let script = Script::default();
        let follow = Follow {
            what: Watch::HttpRoutes,
            index: script.clone(),
            optional: true,
            metrics: Metrics::default(),
            pending: readiness.register("http_routes"),
            stop: CancellationToken::new(),
        };
        let status = kube::core::Status::failure("no", "no").with_code(500);
        let broken = watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        let events = vec![Ok(Event::<u8>::Init), Err(broken)];
        let ended = drain(futures::stream::iter(events), follow);
        ended.await;
        assert!(readiness.waiting_for().is_empty());
        assert_eq!(*script.0.lock().unwrap(), ["unlisted"]);
    }
}
