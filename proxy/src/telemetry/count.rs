//! Single counters: label sets with one family that are not worth a handle, found by their rendered labels. Called by
//! the recorder, once an event.

use std::cell::RefCell;
use std::hash::{Hash, Hasher, RandomState};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use indexmap::Equivalent;

use super::budget::Claim;
use super::cells::Counter;
use super::family::Family;
use super::rules::Rules;
use super::set::{ALLOCATION, Set};
use super::worker::{Attached, Attachment, Hand, Table, Wish, entry_bytes};

mod labels;

pub(super) use labels::{Origin, Single};

/// A worker's single counters.
pub(super) struct Counts {
    table: Table<CountEntry>,
    /// Where labels are rendered to be looked up.
    scratch: RefCell<String>,
}

/// A single counter, identified by family and rendered labels.
struct CountEntry {
    family: Family,
    labels: Box<str>,
    role: Role,
    /// Who can have made up its labels; `None` where only configuration and code do.
    origin: Option<Made>,
    attachment: Attachment,
    count: Counter,
}

/// What a counter is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To count under its labels.
    Own,
    /// To be printed, though nothing is counted.
    Known,
    /// To count what was refused.
    StandIn,
}

/// The owned form of [`Origin`].
struct Made {
    authority: Box<str>,
    port: u16,
    is_open: bool,
}

/// Remembers a single counter without keeping it; what a connection holds that counts again and again.
#[derive(Clone)]
pub struct CountRef(Weak<CountEntry>);

impl CountRef {
    /// Counts one more. False once the counter has been let go or would no longer be the one: then the recorder finds
    /// or makes it anew.
    pub fn count(&self) -> bool {
        let entry = self.0.upgrade();
        let entry = entry.filter(|entry| entry.attachment.is_current());
        entry.inspect(|entry| entry.add()).is_some()
    }
}

/// The borrowed identity.
struct CountLabels<'a>(Family, &'a str);

impl Counts {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            table: Table::new(hasher),
            scratch: RefCell::default(),
        }
    }

    /// Counts one, under wider labels where the budget has no room for more. Answers what counts the next with the same
    /// labels.
    pub(super) fn count<'a>(
        &self,
        hand: &Rc<Hand>,
        rules: &'a Rules,
        family: Family,
        labels: impl Single<'a>,
    ) -> CountRef {
        let text = &mut *self.scratch.borrow_mut();
        let labels = labels.project(rules, family);
        let origin = labels.origin();
        let claim = origin.map_or(Claim::Overflow, |origin| origin.claim(rules));
        let own = self.entry((hand, family), &labels, text, (claim, origin, Role::Own));
        let entry = own.unwrap_or_else(|| {
            hand.refuse(family.kind());
            let wider = labels.overflowed(rules.stand(), claim == Claim::Known);
            let how = |claim| (claim, None, Role::StandIn);
            let known = self.entry((hand, family), &wider, text, how(Claim::Overflow));
            let known = known.or_else(|| {
                let widest = wider.without_ports();
                self.entry((hand, family), &widest, text, how(Claim::Last))
            });
            known.expect("the last claim is never refused")
        });
        entry.add();
        CountRef(Rc::downgrade(&entry))
    }

    /// Has a counter printed from now on, whether anything is counted or not.
    pub(super) fn know<'a>(&self, hand: &Rc<Hand>, family: Family, labels: &impl Single<'a>) {
        let text = &mut *self.scratch.borrow_mut();
        if self.find(family, render(labels, text)).is_none() {
            self.add((hand, family), text, (Claim::Last, None, Role::Known));
        }
    }

    /// Takes over changed rules. What configuration and code make is few, and some of it has to be printed before it
    /// counts again; the rest is looked up when it counts again.
    pub(super) fn renew(&self, hand: &Rc<Hand>) {
        for former in self.table.renew() {
            if former.origin.is_none() {
                let role = former.role;
                self.add(
                    (hand, former.family),
                    &former.labels,
                    (Claim::Last, None, role),
                );
            }
        }
    }

    /// Takes over rules with the same layout.
    pub(super) fn restate(&self, rules: &Arc<Rules>) {
        self.table.restate(rules);
    }

    pub(super) fn let_go(&self, gone: &mut Vec<Arc<Set>>) {
        self.table.let_go(gone);
    }

    /// The counter of these labels, made if the budget has room for the claim.
    fn entry<'a>(
        &self,
        (hand, family): (&Rc<Hand>, Family),
        labels: &impl Single<'a>,
        text: &mut String,
        how: (Claim, Option<Origin<'_>>, Role),
    ) -> Option<Rc<CountEntry>> {
        let known = self.find(family, render(labels, text));
        known.or_else(|| self.add((hand, family), text, how))
    }

    fn find(&self, family: Family, text: &str) -> Option<Rc<CountEntry>> {
        let labels = CountLabels(family, text);
        self.table.get(self.table.hash(&labels), &labels)
    }

    fn add(
        &self,
        (hand, family): (&Rc<Hand>, Family),
        text: &str,
        (claim, origin, role): (Claim, Option<Origin<'_>>, Role),
    ) -> Option<Rc<CountEntry>> {
        let own_text = text.len() + origin.map_or(0, |origin| origin.authority.len());
        let wish = Wish {
            kind: family.kind(),
            labels: text,
            claim,
            stands_in: role == Role::StandIn,
            hash: self.table.hash(&CountLabels(family, text)),
            dst: None,
            bytes: entry_bytes::<CountEntry>() + own_text + 2 * ALLOCATION,
        };
        if !hand.store.may_attach(wish.kind, claim, wish.hash) {
            return None;
        }
        let attachment = Attachment::new(hand, &wish)?;
        let cells = attachment.base(family, "");
        Some(self.table.insert(CountEntry {
            family,
            labels: text.into(),
            role,
            origin: origin.map(Made::from),
            attachment,
            count: Counter(cells),
        }))
    }
}

fn render<'a, 'b>(labels: &impl Single<'b>, text: &'a mut String) -> &'a str {
    text.clear();
    labels.render(text);
    text
}

impl Attached for CountEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        true
    }

    fn claim(&self, rules: &Rules) -> Claim {
        let made = self.origin.as_ref();
        made.map_or(Claim::Last, |made| made.origin().claim(rules))
    }

    fn is_permanent(&self) -> bool {
        self.role == Role::Known || self.family.bounded()
    }
}

impl From<Origin<'_>> for Made {
    fn from(origin: Origin<'_>) -> Self {
        Self {
            authority: origin.authority.into(),
            port: origin.port,
            is_open: origin.is_open,
        }
    }
}

impl Made {
    fn origin(&self) -> Origin<'_> {
        Origin {
            authority: &self.authority,
            port: self.port,
            is_open: self.is_open,
        }
    }
}

impl CountEntry {
    fn add(&self) {
        self.attachment.touch();
        self.count.add(1);
    }

    fn identity(&self) -> CountLabels<'_> {
        CountLabels(self.family, &self.labels)
    }
}

impl Hash for CountLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Hash for CountEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialEq for CountEntry {
    fn eq(&self, other: &Self) -> bool {
        self.family == other.family && self.labels == other.labels
    }
}

impl Eq for CountEntry {}

impl Equivalent<Rc<CountEntry>> for CountLabels<'_> {
    fn equivalent(&self, entry: &Rc<CountEntry>) -> bool {
        self.0 == entry.family && *self.1 == *entry.labels
    }
}
