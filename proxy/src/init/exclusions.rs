//! What is never redirected: ports and subnets as they are written in flags and annotations.
//! Parsed by clap for `init::Args`, read by `ruleset`. Knows nothing of nftables.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A port list as Kuma and Linkerd write it: `4567,8000-8010`, or nothing.
///
/// Sorted, without overlaps: what overlaps or touches is one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<PortRange>);

/// The ports `first..=last`, both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// Addresses and CIDR blocks of both families: `10.0.0.0/8,192.0.2.7,fd00::/8`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnets(Vec<Subnet>);

/// A network and its prefix length; the host bits of `network` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub network: IpAddr,
    pub prefix: u8,
}

/// Why an exclusion list is refused; the text names the entry and what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExclusionError {
    #[error("{0:?} is not a port: use a number from 1 to 65535, or a range such as 8000-8010")]
    Port(String),
    #[error("the range {0:?} runs backwards: write the lower port first")]
    Backwards(String),
    #[error("{0:?} is not an address or subnet: use 192.0.2.7, 10.0.0.0/8 or fd00::/8")]
    Subnet(String),
    #[error("{0:?} has too long a prefix: at most /32 for IPv4 and /128 for IPv6")]
    Prefix(String),
}

impl Ports {
    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// The same ports and `port`.
    #[must_use]
    pub fn with(&self, port: u16) -> Self {
        let mut ranges = self.0.clone();
        ranges.push(PortRange {
            first: port,
            last: port,
        });
        Self::merge(ranges)
    }

    fn merge(mut ranges: Vec<PortRange>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl FromStr for Ports {
    type Err = ExclusionError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let ranges: Result<Vec<PortRange>, _> = entries(list).map(str::parse).collect();
        ranges.map(Self::merge)
    }
}

impl FromStr for PortRange {
    type Err = ExclusionError;

    fn from_str(entry: &str) -> Result<Self, Self::Err> {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(ExclusionError::Port(entry.to_owned())),
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(ExclusionError::Backwards(entry.to_owned()));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Subnets {
    /// The subnets in the order given.
    pub fn iter(&self) -> impl Iterator<Item = Subnet> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for Subnets {
    type Err = ExclusionError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let subnets: Result<Vec<Subnet>, _> = entries(list).map(str::parse).collect();
        subnets.map(Self)
    }
}

impl Subnet {
    /// Keeps the first `prefix` bits of `address`.
    pub(crate) fn new(address: IpAddr, prefix: u8) -> Self {
        let network = match address {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((bits & mask).into())
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((bits & mask).into())
            }
        };
        Self { network, prefix }
    }

    /// Whether the subnet is a single address.
    pub(crate) fn is_host(self) -> bool {
        self.prefix == full_prefix(self.network)
    }
}

impl FromStr for Subnet {
    type Err = ExclusionError;

    fn from_str(entry: &str) -> Result<Self, Self::Err> {
        let wrong = || ExclusionError::Subnet(entry.to_owned());
        let (address, prefix) = match entry.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (entry, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let longest = full_prefix(address);
        let prefix = match prefix {
            Some(prefix) => prefix.trim().parse::<u8>().map_err(|_| wrong())?,
            None => longest,
        };
        if prefix > longest {
            return Err(ExclusionError::Prefix(entry.to_owned()));
        }
        Ok(Self::new(address, prefix))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            return write!(f, "{}", self.network);
        }
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn full_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|e| !e.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(list: &str) -> Result<String, ExclusionError> {
        let ports: Ports = list.parse()?;
        let texts: Vec<String> = ports.ranges().iter().map(ToString::to_string).collect();
        Ok(texts.join(","))
    }

    #[test]
    fn port_lists_are_sorted_and_merged() {
        assert_eq!(ports("").unwrap(), "");
        assert_eq!(ports(" 4568 , 4567, ").unwrap(), "4567-4568");
        assert_eq!(ports("8000-8010,8005-8020,22").unwrap(), "22,8000-8020");
        assert_eq!(ports("65535,1-65535").unwrap(), "1-65535");
    }

    #[test]
    fn a_bad_port_is_named_with_the_remedy() {
        for bad in ["http", "0", "65536", "80-", "-80", "1-2-3", "0-10"] {
            let error = ports(bad).unwrap_err();
            assert_eq!(error, ExclusionError::Port(bad.to_owned()));
        }
        let error = ports("1,90-80").unwrap_err().to_string();
        assert_eq!(
            error,
            "the range \"90-80\" runs backwards: write the lower port first"
        );
    }

    #[test]
    fn subnets_lose_their_host_bits() {
        let subnets: Subnets = "10.1.2.3/8, 192.0.2.7,fd00:1::9/16,::/0,0.0.0.0/0"
            .parse()
            .unwrap();
        let texts: Vec<String> = subnets.iter().map(|s| s.to_string()).collect();
        assert_eq!(
            texts,
            ["10.0.0.0/8", "192.0.2.7", "fd00::/16", "::/0", "0.0.0.0/0"]
        );
    }

    #[test]
    fn a_bad_subnet_is_named_with_the_remedy() {
        let parse = |text: &str| text.parse::<Subnets>().unwrap_err();
        assert_eq!(parse("web/8"), ExclusionError::Subnet("web/8".into()));
        assert_eq!(
            parse("10.0.0.0/"),
            ExclusionError::Subnet("10.0.0.0/".into())
        );
        assert_eq!(
            parse("10.0.0.0/33"),
            ExclusionError::Prefix("10.0.0.0/33".into())
        );
        assert_eq!(
            parse("fd00::/129"),
            ExclusionError::Prefix("fd00::/129".into())
        );
    }
}
