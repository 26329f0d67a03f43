//! What a worker's inbounds are held to as it changes, permissions and closed ports, and the permit of each connection,
//! which learns of it: by comparing a number whenever it has something to do, and by being woken where it has not.
//! `worker` sets it, `connection`, the relay and `terminate` ask. It knows no connection but by its waker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_crds::identity::Identity;

use super::{Permissions, Verdict};
use crate::routes::{Closed, Ports};
use crate::telemetry::Server;

/// The permissions in force, and the ports that are closed.
#[derive(Debug, Default)]
pub struct Gate {
    permissions: RefCell<Permissions>,
    ports: Rc<Ports>,
    /// How often they have changed.
    generation: Cell<u64>,
    waiting: RefCell<Waiting>,
}

/// The wakers of connections, each in a place of its own.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Gate {
    /// Puts these in force. Where they differ from the last, every connection is woken, to judge itself.
    pub fn set(&self, permissions: Permissions) {
        if *self.permissions.borrow() == permissions {
            return;
        }
        self.permissions.replace(permissions);
        self.tell();
    }

    /// Closes these ports. Where they differ from the last, every connection is woken: some have to leave.
    pub fn close(&self, closed: &Closed) {
        if self.ports.replace(closed) {
            self.tell();
        }
    }

    fn tell(&self) {
        self.generation.set(self.generation.get() + 1);
        let waiting = self.waiting.borrow();
        waiting.wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// What a port is counted under; none where no resource describes it.
    pub fn server(&self, port: u16) -> Option<Server> {
        self.permissions.borrow().server(port)
    }

    /// Every port that a resource describes, and what it is counted under.
    pub fn servers(&self) -> Vec<(u16, Server)> {
        self.permissions.borrow().servers()
    }

    /// The permit of a connection to this port, which has not been judged yet.
    pub fn permit(self: &Rc<Self>, port: u16) -> Permit {
        Permit {
            gate: Rc::clone(self),
            port,
            seen: None,
            place: None,
        }
    }

    /// Connections that are woken by a change.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.waiting.borrow().wakers.iter().flatten().count()
    }
}

/// What one connection knows of what it is held to.
#[derive(Debug)]
pub struct Permit {
    gate: Rc<Gate>,
    port: u16,
    /// The generation that it was judged by last.
    seen: Option<u64>,
    place: Option<usize>,
}

impl Permit {
    /// Whether it has not been judged by what is in force now.
    pub fn is_stale(&self) -> bool {
        self.seen != Some(self.gate.generation.get())
    }

    /// Judges the peer by what is in force now.
    pub fn judge(&mut self, peer: Option<&Identity>) -> Verdict {
        self.seen = Some(self.gate.generation.get());
        self.gate.permissions.borrow().judge(self.port, peer)
    }

    /// What its port lets in, among those of others.
    pub fn ports(&self) -> &Rc<Ports> {
        &self.gate.ports
    }

    /// Whether its port lets in only what there is a route for.
    pub fn is_closed(&self) -> bool {
        self.gate.ports.is_closed(self.port)
    }

    /// Has the task woken by every change from now on: a connection stays in the task that it began in.
    pub fn watch(&mut self, cx: &Context<'_>) {
        if self.place.is_some() {
            return;
        }
        let waiting = &mut *self.gate.waiting.borrow_mut();
        let waker = Some(cx.waker().clone());
        let place = waiting.free.pop().unwrap_or(waiting.wakers.len());
        match waiting.wakers.get_mut(place) {
            Some(free) => *free = waker,
            None => waiting.wakers.push(waker),
        }
        self.place = Some(place);
    }

    /// Waits until the peer may not connect any more. What else changes is left to be judged.
    pub async fn lost(&mut self, peer: Option<&Identity>) {
        poll_fn(|cx| {
            self.watch(cx);
            let lost = || self.gate.permissions.borrow().judge(self.port, peer) == Verdict::Denied;
            if self.is_stale() && lost() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waiting = &mut *self.gate.waiting.borrow_mut();
        waiting.wakers[place] = None;
        waiting.free.push(place);
        if waiting.free.len() == waiting.wakers.len() {
            // A burst's memory goes back.
            *waiting = Waiting::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use weir_crds::permission::Permission;
    use weir_crds::settings::{InboundSettings, MtlsMode, Settings};

    use super::*;

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn api(mode: MtlsMode) -> Permissions {
        let mut settings = Settings::without_metrics("default");
        let source = [("kuma.io/service".to_owned(), "api".to_owned())];
        let permission = Permission {
            name: "api".into(),
            sources: vec![source.into()],
        };
        settings.inbounds = Some(vec![InboundSettings {
            port: 80,
            service: "web".into(),
            permission: Some(permission),
            routes: None,
        }]);
        Permissions::of(&settings, mode)
    }

    fn peer(service: &str) -> Identity {
        Identity::read(["x.test"], [format!("spiffe://default/{service}").as_str()])
    }

    #[test]
    fn a_change_wakes_whoever_is_there_and_nothing_wakes_for_what_is_as_it_was() {
        let gate = Rc::new(Gate::default());
        let wakes = Arc::new(Counts(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let mut permits: Vec<_> = (0..3).map(|_| gate.permit(80)).collect();
        for permit in &mut permits {
            assert!(permit.is_stale(), "it was never judged");
            assert_eq!(permit.judge(None), Verdict::Allowed(None));
            (0..2).for_each(|_| permit.watch(&cx));
        }
        let woken = |n| assert_eq!(wakes.0.swap(0, Ordering::Relaxed), n);
        gate.set(api(MtlsMode::Strict));
        woken(3);
        gate.set(api(MtlsMode::Strict));
        woken(0);
        permits.remove(1);
        gate.set(api(MtlsMode::Permissive));
        woken(2);
        assert!(permits.iter().all(Permit::is_stale));
        assert_eq!(permits[0].judge(Some(&peer("web"))), Verdict::Denied);
        assert!(!permits[0].is_stale());
        // A place is used again, and all of them go with the last.
        let mut next = gate.permit(80);
        next.watch(&cx);
        assert_eq!((next.place, gate.waiting()), (Some(1), 3));
        drop((permits, next));
        assert_eq!(gate.waiting.borrow().wakers.capacity(), 0);
    }

    #[test]
    fn a_port_that_is_closed_wakes_whoever_is_there() {
        let gate = Rc::new(Gate::default());
        let wakes = Arc::new(Counts(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut permit = gate.permit(80);
        permit.watch(&Context::from_waker(&waker));
        let _allowed = permit.judge(None);
        let mut settings = Settings::without_metrics("default");
        settings.inbounds = Some(vec![InboundSettings {
            port: 80,
            service: "web".into(),
            permission: None,
            routes: Some(Vec::new()),
        }]);
        let (closed, _) = Closed::of(&settings, &Closed::default());
        for is_told in [true, false] {
            gate.close(&closed);
            assert_eq!(wakes.0.swap(0, Ordering::Relaxed) > 0, is_told);
            assert_eq!(permit.is_stale(), is_told);
            assert_eq!(
                permit.judge(None),
                Verdict::Allowed(None),
                "permissions stay"
            );
            assert!(permit.is_closed() && !gate.permit(81).is_closed());
        }
        gate.close(&Closed::default());
        assert!(permit.is_stale() && !permit.is_closed());
    }

    #[test]
    fn a_permit_is_lost_by_what_denies_it_and_by_nothing_else() {
        let gate = Rc::new(Gate::default());
        let mut permit = gate.permit(80);
        let _allowed = permit.judge(None);
        let (api_itself, mut cx) = (peer("api"), Context::from_waker(Waker::noop()));
        let mut lost = Box::pin(permit.lost(Some(&api_itself)));
        assert!(lost.as_mut().poll(&mut cx).is_pending());
        gate.set(api(MtlsMode::Strict));
        assert!(lost.as_mut().poll(&mut cx).is_pending());
        gate.set(Permissions::of(
            &Settings {
                inbounds: Some(Vec::new()),
                ..Settings::without_metrics("default")
            },
            MtlsMode::Strict,
        ));
        assert!(lost.as_mut().poll(&mut cx).is_ready());
        drop(lost);
        assert!(permit.is_stale(), "it is still to be judged");
    }
}
