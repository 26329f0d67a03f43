//! From labels to the entry of a worker's table that they are counted in: their own, a new one if the budget has room,
//! else that of the overflow. Called by the recorder for every connection and every request that no cache knows.

use std::hash::Hash;
use std::rc::Rc;

use indexmap::Equivalent;

use super::budget::Claim;
use super::family::Kind;
use super::labels::{Dst, Stand};
use super::render::Render;
use super::rules::Rules;
use super::set::ALLOCATION;
use super::worker::{Attached, Attachment, Hand, Table, Wish, entry_bytes};

/// Labels that a worker looks up.
pub(super) trait Lookup<'a>: Copy + Hash + Render + Equivalent<Rc<Self::Entry>> {
    /// What they are looked up for.
    const KIND: Kind;
    type Entry: Attached;

    /// Without the values that nothing is recorded under.
    fn project(self, _rules: &'a Rules) -> Self {
        self
    }

    /// Equality.
    fn is(&self, other: &Self) -> bool;

    /// How strong their claim on the budget is.
    fn claim(&self, rules: &Rules) -> Claim;

    /// With the overflow in place of labels that anybody can make up, but for an authority that is vouched for.
    fn overflowed(self, _stand: &'a Stand, _vouched: bool) -> Self {
        self
    }

    /// With the overflow in place of ports.
    fn without_ports(self) -> Self {
        self
    }

    /// The destination they are about.
    fn dst(&self) -> Option<&'a Dst> {
        None
    }

    /// Bytes of text that an entry has of its own.
    fn own_text(&self) -> usize {
        0
    }

    /// The entry for them.
    fn entry(self, attachment: Attachment) -> Self::Entry;
}

/// The entry for these labels.
pub(super) fn resolve<'a, L: Lookup<'a>>(
    hand: &Rc<Hand>,
    table: &Table<L::Entry>,
    rules: &'a Rules,
    labels: L,
) -> Rc<L::Entry> {
    let labels = labels.project(rules);
    let hash = table.hash(&labels);
    let known = table.get(hash, &labels);
    known.unwrap_or_else(|| unknown(hand, table, rules, (labels, hash)))
}

#[cold]
fn unknown<'a, L: Lookup<'a>>(
    hand: &Rc<Hand>,
    table: &Table<L::Entry>,
    rules: &'a Rules,
    (labels, hash): (L, u64),
) -> Rc<L::Entry> {
    let claim = labels.claim(rules);
    if let Some(entry) = ask(hand, (labels, hash), claim, false) {
        return table.insert(entry);
    }
    let vouched = claim != Claim::Open;
    let mut wider = labels.overflowed(rules.stand(), vouched);
    for claim in [Claim::Overflow, Claim::Last] {
        if claim == Claim::Last {
            wider = wider.without_ports();
        }
        let stands_in = !wider.is(&labels);
        let hash = table.hash(&wider);
        let known = table.get(hash, &wider);
        let entry = known.or_else(|| {
            let entry = ask(hand, (wider, hash), claim, stands_in)?;
            Some(table.insert(entry))
        });
        if let Some(entry) = entry {
            if stands_in {
                hand.refuse(L::KIND);
            }
            return entry;
        }
    }
    unreachable!("the last claim is never refused")
}

/// A new entry, if the budget has room. Where it is spent, the store is not asked in vain.
fn ask<'a, L: Lookup<'a>>(
    hand: &Rc<Hand>,
    (labels, hash): (L, u64),
    claim: Claim,
    stands_in: bool,
) -> Option<L::Entry> {
    if !hand.store.may_attach(L::KIND, claim, hash) {
        return None;
    }
    let mut text = String::with_capacity(512);
    labels.render(&mut text);
    let wish = Wish {
        kind: L::KIND,
        labels: &text,
        claim,
        stands_in,
        hash,
        dst: labels.dst().filter(|_| claim < Claim::Overflow),
        bytes: entry_bytes::<L::Entry>() + labels.own_text() + ALLOCATION,
    };
    Attachment::new(hand, &wish).map(|attachment| labels.entry(attachment))
}

/// The rendered labels that take what is refused to an entry, for a stronger claim than its own.
pub(super) fn wider<'a, L: Lookup<'a>>(
    labels: L,
    (rules, own): (&'a Rules, Claim),
    claim: Claim,
) -> String {
    let labels = if own < Claim::Overflow {
        labels.overflowed(rules.stand(), own == Claim::Known)
    } else {
        labels
    };
    let labels = match claim {
        Claim::Last => labels.without_ports(),
        Claim::Open | Claim::Known | Claim::Overflow => labels,
    };
    let mut text = String::new();
    labels.render(&mut text);
    text
}
