//! The names in Dataplanes, with the address that each is reached by. They are asked for beside the looks, all at once, and
//! what DNS last said stands. Asked by `facts` for addresses, moved on by `documents`; it knows no document.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a look waits for names that are new. One that is answered later is taken over by a later look.
const LOOKUP: Duration = Duration::from_secs(2);
/// Most names that are asked for at a time: each takes a thread until the system gives it up.
const AT_ONCE: usize = 64;

/// What answers for a name.
type Resolver = fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;

/// The names in Dataplanes.
pub(super) struct Hosts {
    resolver: Resolver,
    names: HashMap<String, Name>,
    lookups: JoinSet<(String, io::Result<Vec<IpAddr>>)>,
    places: Arc<Semaphore>,
    /// An answer is not what was said before.
    is_changed: bool,
}

/// One name.
struct Name {
    /// The address, or why there is none; `None` while it is new.
    known: Option<Result<IpAddr, String>>,
    is_used: bool,
    is_asked: bool,
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new(|host| Box::pin(lookup(host)))
    }
}

async fn lookup(host: String) -> io::Result<Vec<IpAddr>> {
    let addresses = tokio::net::lookup_host((host, 0)).await?;
    Ok(addresses.map(|address| address.ip()).collect())
}

impl Hosts {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            names: HashMap::new(),
            lookups: JoinSet::new(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            is_changed: false,
        }
    }

    /// Begins to go over all Dataplanes.
    pub(super) fn begin(&mut self) {
        self.names
            .values_mut()
            .for_each(|name| name.is_used = false);
        self.is_changed = false;
    }

    /// Forgets what no Dataplane has any more.
    pub(super) fn end(&mut self) {
        self.names.retain(|_, name| name.is_used);
    }

    /// The address of a host, as far as it is known.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn resolve(&mut self, host: &str, port: u16) -> Result<SocketAddr, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok((address, port).into());
        }
        let name = self.names.entry(host.to_owned()).or_insert(Name {
            known: None,
            is_used: true,
            is_asked: false,
        });
        name.is_used = true;
        match &name.known {
            Some(Ok(address)) => Ok((*address, port).into()),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it is being asked for".to_owned()),
        }
    }

    /// Takes over what was answered since the last look; whether any address is another.
    pub(super) fn look(&mut self) -> bool {
        while let Some(done) = self.lookups.try_join_next() {
            self.take(done);
        }
        self.is_changed
    }

    /// Asks for every name anew, but those that are being asked for.
    pub(super) fn ask(&mut self) {
        for (host, name) in &mut self.names {
            if std::mem::replace(&mut name.is_asked, true) {
                continue;
            }
            let (host, places) = (host.clone(), self.places.clone());
            let asking = (self.resolver)(host.clone());
            self.lookups.spawn(async move {
                let _place = places.acquire_owned().await.expect("it is never closed");
                (host, asking.await)
            });
        }
    }

    /// Waits for the names that are new, at most [`LOOKUP`]; whether there were any.
    pub(super) async fn settle(&mut self) -> bool {
        let is_settled = |hosts: &Self| hosts.names.values().all(|name| name.known.is_some());
        if is_settled(self) {
            return false;
        }
        let answered = async {
            while !is_settled(self)
                && let Some(done) = self.lookups.join_next().await
            {
                self.take(done);
            }
        };
        let _late = tokio::time::timeout(LOOKUP, answered).await;
        for name in self.names.values_mut() {
            let late = || Err(format!("no answer within {} s", LOOKUP.as_secs()));
            name.known.get_or_insert_with(late);
        }
        true
    }

    /// An address that is among the answers stays, in whatever order they come; while there is no answer it stays, too.
    fn take(&mut self, done: Result<(String, io::Result<Vec<IpAddr>>), tokio::task::JoinError>) {
        let (host, answer) = done.expect("a lookup does not panic");
        let Some(name) = self.names.get_mut(&host) else {
            return;
        };
        name.is_asked = false;
        let kept = name
            .known
            .as_ref()
            .and_then(|known| known.as_ref().ok())
            .copied();
        let answer = answer.map_err(|error| error.to_string()).and_then(|found| {
            let smallest = found.iter().min().copied();
            let kept = kept.filter(|kept| found.contains(kept));
            kept.or(smallest)
                .ok_or_else(|| "it has no address".to_owned())
        });
        let now = Some(answer.or_else(|why| kept.ok_or(why)));
        self.is_changed |= name.known != now;
        name.known = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    fn used(hosts: &mut Hosts, names: &[&str]) -> Vec<Result<String, String>> {
        hosts.begin();
        let found = names.iter().map(|name| hosts.resolve(name, 80));
        let found = found.map(|found| found.map(|address| address.to_string()));
        let found = found.collect();
        hosts.end();
        found
    }

    fn ok(address: &str) -> Vec<Result<String, String>> {
        vec![Ok(address.to_owned())]
    }

    /// Asks, and waits until everything is answered.
    async fn answered(hosts: &mut Hosts) -> bool {
        hosts.ask();
        while let Some(done) = hosts.lookups.join_next().await {
            hosts.take(done);
        }
        hosts.look()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_stays_while_it_is_among_the_answers_or_there_is_none() {
        static ANSWERS: Mutex<Vec<&[&str]>> = Mutex::new(Vec::new());
        let say = |answers: &'static [&'static str]| ANSWERS.lock().unwrap().push(answers);
        let mut hosts = Hosts::new(|_| {
            let said = ANSWERS.lock().unwrap().pop().unwrap();
            let found = said
                .iter()
                .map(|address| address.parse().unwrap())
                .collect();
            Box::pin(async move {
                match said {
                    ["::"] => Err(io::Error::other("DNS is away")),
                    _ => Ok(found),
                }
            })
        });
        let web = &["web.example"];
        let told = used(&mut hosts, web);
        assert!(
            told[0]
                .as_ref()
                .is_err_and(|why| why.contains("being asked"))
        );
        say(&["10.0.0.2", "10.0.0.1", "10.0.0.3"]);
        hosts.ask();
        assert!(hosts.settle().await && hosts.look());
        assert_eq!(used(&mut hosts, web), ok("10.0.0.1:80"));
        assert!(!hosts.settle().await, "it is not new any more");
        let same: [&[&str]; 3] = [&["10.0.0.3", "10.0.0.0", "10.0.0.1"], &["::"], &[]];
        for answers in same {
            say(answers);
            assert!(!answered(&mut hosts).await, "{answers:?}");
            assert_eq!(used(&mut hosts, web), ok("10.0.0.1:80"));
        }
        say(&["10.0.0.3", "10.0.0.2"]);
        assert!(answered(&mut hosts).await);
        assert_eq!(used(&mut hosts, web), ok("10.0.0.2:80"));
        assert!(!hosts.look(), "it was taken over");
        // Numbers are asked of nobody.
        assert_eq!(used(&mut hosts, &["10.9.9.9"]), ok("10.9.9.9:80"));
        assert!(hosts.names.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_are_not_answered_are_waited_for_together_and_once() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let mut hosts = Hosts::new(|host| {
            Box::pin(async move {
                ASKED.fetch_add(1, Ordering::Relaxed);
                match host.as_str() {
                    "last" => tokio::time::sleep(LOOKUP * 3).await,
                    _ => std::future::pending().await,
                }
                Ok(vec![[10, 0, 0, 1].into()])
            })
        });
        let names: Vec<String> = (0..AT_ONCE * 2).map(|number| number.to_string()).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        let few = &["last", "never"];
        used(&mut hosts, few);
        hosts.ask();
        let begun = Instant::now();
        assert!(hosts.settle().await);
        assert_eq!(begun.elapsed(), LOOKUP);
        let told = used(&mut hosts, few);
        assert!(
            told.iter()
                .all(|one| one.as_ref().is_err_and(|why| why.contains("2 s")))
        );
        // Looks go on, and none of them asks twice.
        for _ in 0..3 {
            hosts.ask();
            assert!(!hosts.settle().await && !hosts.look());
        }
        tokio::time::sleep(LOOKUP * 3).await;
        assert!(hosts.look(), "a late answer counts");
        assert_eq!(used(&mut hosts, few)[0], ok("10.0.0.1:80")[0]);
        assert_eq!(ASKED.load(Ordering::Relaxed), 2);
        names.extend(few);
        used(&mut hosts, &names);
        hosts.ask();
        assert!(hosts.settle().await);
        assert!(
            ASKED.load(Ordering::Relaxed) <= AT_ONCE + 2,
            "the others wait for a place"
        );
    }
}
