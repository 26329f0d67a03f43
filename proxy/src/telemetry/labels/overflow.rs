//! What labels become past the budget: those that anybody can make up are replaced, then the ports, nothing else. So
//! totals by direction, status and class stay right. Called by a worker's look-up; knows no budget.

use super::{
    ANY_PORT, AuthzLabels, Dst, HttpErrorLabels, HttpLabels, HttpSide, NotFoundLabels, OVERFLOW,
    Server, TcpErrorLabels, Tls, TransportEnd, TransportLabels,
};

/// What stands for the names in [`Tls`] where they are not told apart.
pub(in crate::telemetry) struct Stand {
    mutual: Tls,
    opaque: Tls,
}

impl Default for Stand {
    fn default() -> Self {
        Self {
            mutual: Tls::Mutual {
                id: OVERFLOW.into(),
            },
            opaque: Tls::Opaque {
                sni: OVERFLOW.into(),
            },
        }
    }
}

impl Stand {
    /// The same kind of security with nobody's name.
    pub(in crate::telemetry) fn for_tls<'a>(&'a self, tls: &'a Tls) -> &'a Tls {
        match tls {
            Tls::Mutual { .. } => &self.mutual,
            Tls::Opaque { .. } => &self.opaque,
            Tls::NoIdentity(_) => tls,
        }
    }
}

/// An authority without a port.
pub(in crate::telemetry) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

impl Tls {
    fn is_open(&self) -> bool {
        !matches!(self, Self::NoIdentity(_))
    }
}

impl Dst {
    fn is_open(&self) -> bool {
        self.0.overflow().is_some()
    }

    /// The same keys, every value the overflow's.
    fn overflowed(&self) -> &Self {
        self.0.overflow().unwrap_or(self)
    }
}

impl Server {
    fn without_port(&self) -> &Self {
        self.0.overflow().unwrap_or(self)
    }
}

impl<'a> HttpLabels<'a> {
    /// Whether any label is one that anybody can make up.
    pub(in crate::telemetry) fn is_open(&self) -> bool {
        let dst = matches!(self.side, HttpSide::Outbound { dst } if dst.is_open());
        !self.authority.is_empty() || self.tls.is_open() || dst
    }

    /// With the overflow in place of such labels, but for an authority that is vouched for.
    pub(in crate::telemetry) fn overflowed(mut self, stand: &'a Stand, vouched: bool) -> Self {
        if !vouched && !self.authority.is_empty() {
            self.authority = OVERFLOW;
        }
        self.tls = stand.for_tls(self.tls);
        if let HttpSide::Outbound { dst } = &mut self.side {
            *dst = dst.overflowed();
        }
        self
    }

    /// With the overflow in place of ports, and an authority that is still there without its own.
    pub(in crate::telemetry) fn without_ports(mut self) -> Self {
        self.target_port = ANY_PORT;
        self.authority = without_port(self.authority);
        if let HttpSide::Inbound { server, .. } = &mut self.side {
            *server = server.without_port();
        }
        self
    }
}

impl<'a> TransportLabels<'a> {
    /// The authority, where there is one.
    pub(in crate::telemetry) fn authority(&self) -> &'a str {
        match self.end {
            TransportEnd::OutboundDst { authority, .. } => authority,
            _ => "",
        }
    }

    /// Without the authority, for where none is recorded.
    pub(in crate::telemetry) fn without_authority(mut self) -> Self {
        if let TransportEnd::OutboundDst { authority, .. } = &mut self.end {
            *authority = "";
        }
        self
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn is_open(&self) -> bool {
        let dst = matches!(self.end, TransportEnd::OutboundDst { dst, .. } if dst.is_open());
        !self.authority().is_empty() || self.tls.is_open() || dst
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn overflowed(mut self, stand: &'a Stand, vouched: bool) -> Self {
        self.tls = stand.for_tls(self.tls);
        if let TransportEnd::OutboundDst { authority, dst } = &mut self.end {
            if !vouched && !authority.is_empty() {
                *authority = OVERFLOW;
            }
            *dst = dst.overflowed();
        }
        self
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn without_ports(mut self) -> Self {
        self.target_port = ANY_PORT;
        if let TransportEnd::InboundSrc { server } = &mut self.end {
            *server = server.without_port();
        }
        self
    }
}

impl<'a> AuthzLabels<'a> {
    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn is_open(&self) -> bool {
        self.authority.is_some_and(|name| !name.is_empty()) || self.tls.is_open()
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn overflowed(mut self, stand: &'a Stand, vouched: bool) -> Self {
        if !vouched && self.authority.is_some_and(|name| !name.is_empty()) {
            self.authority = Some(OVERFLOW);
        }
        self.tls = stand.for_tls(self.tls);
        self
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn without_ports(mut self) -> Self {
        self.authority = self.authority.map(without_port);
        self.server = self.server.without_port();
        self
    }
}

impl<'a> NotFoundLabels<'a> {
    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn is_open(&self) -> bool {
        !self.authority.is_empty() || self.tls.is_open()
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn overflowed(mut self, stand: &'a Stand, vouched: bool) -> Self {
        if !vouched && !self.authority.is_empty() {
            self.authority = OVERFLOW;
        }
        self.tls = stand.for_tls(self.tls);
        self
    }

    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn without_ports(mut self) -> Self {
        self.authority = without_port(self.authority);
        self.server = self.server.without_port();
        self
    }
}

impl TcpErrorLabels {
    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn without_ports(self) -> Self {
        Self {
            target_port: ANY_PORT,
            ..self
        }
    }
}

impl HttpErrorLabels<'_> {
    /// As of [`HttpLabels`].
    pub(in crate::telemetry) fn without_ports(self) -> Self {
        Self {
            server: self.server.map(Server::without_port),
            ..self
        }
    }
}
