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
use super::render::Render;
use super::rules::Rules;
use super::set::{ALLOCATION, Set};
use super::worker::{Attached, Attachment, Hand, Table, Wish, entry_bytes};

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
    /// Whether it stays though nothing is counted.
    is_known: bool,
    attachment: Attachment,
    count: Counter,
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

    /// Counts one, under `wider` labels where the budget has no room for more. Answers what counts the next with the
    /// same labels; none where they were refused.
    pub(super) fn count(
        &self,
        hand: &Rc<Hand>,
        family: Family,
        labels: &impl Render,
        wider: &impl Render,
    ) -> Option<CountRef> {
        let text = &mut *self.scratch.borrow_mut();
        let known = self.find(family, render(labels, text));
        let known = known.or_else(|| self.add(hand, family, text, (Claim::Overflow, false)));
        let Some(entry) = known else {
            hand.refuse(family.kind());
            let known = self.find(family, render(wider, text));
            let known = known.or_else(|| self.add(hand, family, text, (Claim::Last, false)));
            known.expect("the last claim is never refused").add();
            return None;
        };
        entry.add();
        Some(CountRef(Rc::downgrade(&entry)))
    }

    /// Has a counter printed from now on, whether anything is counted or not.
    pub(super) fn know(&self, hand: &Rc<Hand>, family: Family, labels: &impl Render) {
        let text = &mut *self.scratch.borrow_mut();
        if self.find(family, render(labels, text)).is_none() {
            self.add(hand, family, text, (Claim::Last, true));
        }
    }

    /// Takes over changed rules: there are few single counters, and some have to be printed before they count again.
    pub(super) fn renew(&self, hand: &Rc<Hand>) {
        for former in self.table.renew() {
            let how = (Claim::Last, former.is_known);
            self.add(hand, former.family, &former.labels, how);
        }
    }

    /// Takes over rules with the same layout.
    pub(super) fn restate(&self, rules: &Arc<Rules>) {
        self.table.restate(rules);
    }

    pub(super) fn let_go(&self, gone: &mut Vec<Arc<Set>>) {
        self.table.let_go(gone);
    }

    fn find(&self, family: Family, text: &str) -> Option<Rc<CountEntry>> {
        let labels = CountLabels(family, text);
        self.table.get(self.table.hash(&labels), &labels)
    }

    fn add(
        &self,
        hand: &Rc<Hand>,
        family: Family,
        text: &str,
        (claim, is_known): (Claim, bool),
    ) -> Option<Rc<CountEntry>> {
        let wish = Wish {
            kind: family.kind(),
            labels: text,
            claim,
            stands_in: false,
            hash: self.table.hash(&CountLabels(family, text)),
            dst: None,
            bytes: entry_bytes::<CountEntry>() + text.len() + ALLOCATION,
        };
        if !hand.store.may_attach(wish.kind, claim, wish.hash) {
            return None;
        }
        let attachment = Attachment::new(hand, &wish)?;
        let cells = attachment.base(family, "");
        Some(self.table.insert(CountEntry {
            family,
            labels: text.into(),
            is_known,
            attachment,
            count: Counter(cells),
        }))
    }
}

fn render<'a>(labels: &impl Render, text: &'a mut String) -> &'a str {
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

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    fn is_permanent(&self) -> bool {
        self.is_known || self.family.bounded()
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
