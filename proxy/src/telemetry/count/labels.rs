//! What single counters are counted under: which of their labels anybody can make up, and what they become past the
//! budget. Called by `count` for every event; knows no budget.

use crate::telemetry::budget::Claim;
use crate::telemetry::family::Family;
use crate::telemetry::labels::{
    AuthzLabels, Direction, HttpErrorLabels, NotFoundLabels, Stand, TcpErrorLabels,
};
use crate::telemetry::render::{Render, Unparsed};
use crate::telemetry::rules::Rules;

/// The labels of a single counter.
pub(in crate::telemetry) trait Single<'a>: Copy + Render {
    /// Without the values that nothing is recorded under.
    #[must_use]
    fn project(self, _rules: &'a Rules, _family: Family) -> Self {
        self
    }

    /// Who can have made them up; `None` where only configuration and code make more of them.
    fn origin(&self) -> Option<Origin<'a>> {
        None
    }

    /// With the overflow in place of labels that anybody can make up, but for an authority that is vouched for.
    #[must_use]
    fn overflowed(self, _stand: &'a Stand, _vouched: bool) -> Self {
        self
    }

    /// With the overflow in place of ports.
    #[must_use]
    fn without_ports(self) -> Self {
        self
    }
}

/// What the claim of a client's labels goes by.
#[derive(Clone, Copy)]
pub(in crate::telemetry) struct Origin<'a> {
    pub(in crate::telemetry) authority: &'a str,
    pub(in crate::telemetry) port: u16,
    pub(in crate::telemetry) is_open: bool,
}

impl Origin<'_> {
    pub(in crate::telemetry) fn claim(self, rules: &Rules) -> Claim {
        rules.claim(self.is_open, self.authority, self.port)
    }
}

impl<'a> Single<'a> for AuthzLabels<'a> {
    fn project(mut self, rules: &'a Rules, family: Family) -> Self {
        let blanks = rules.blanks(family);
        if blanks.authority {
            self.authority = self.authority.map(|_| "");
        }
        if blanks.name {
            self.tls = rules.stand().for_tls(self.tls);
        }
        self
    }

    fn origin(&self) -> Option<Origin<'a>> {
        Some(Origin {
            authority: self.authority.unwrap_or_default(),
            port: self.target_port,
            is_open: self.is_open(),
        })
    }

    fn overflowed(self, stand: &'a Stand, vouched: bool) -> Self {
        AuthzLabels::overflowed(self, stand, vouched)
    }

    fn without_ports(self) -> Self {
        AuthzLabels::without_ports(self)
    }
}

impl<'a> Single<'a> for NotFoundLabels<'a> {
    fn project(mut self, rules: &'a Rules, family: Family) -> Self {
        let blanks = rules.blanks(family);
        if blanks.authority {
            self.authority = "";
        }
        if blanks.name {
            self.tls = rules.stand().for_tls(self.tls);
        }
        self
    }

    fn origin(&self) -> Option<Origin<'a>> {
        Some(Origin {
            authority: self.authority,
            port: self.target_port,
            is_open: self.is_open(),
        })
    }

    fn overflowed(self, stand: &'a Stand, vouched: bool) -> Self {
        NotFoundLabels::overflowed(self, stand, vouched)
    }

    fn without_ports(self) -> Self {
        NotFoundLabels::without_ports(self)
    }
}

impl Single<'_> for TcpErrorLabels {
    fn without_ports(self) -> Self {
        TcpErrorLabels::without_ports(self)
    }
}

impl<'a> Single<'a> for HttpErrorLabels<'a> {
    fn without_ports(self) -> Self {
        HttpErrorLabels::without_ports(self)
    }
}

impl Single<'_> for Unparsed {}

impl Single<'_> for Direction {}
