//! Looks at every packet of every interface (packet(7)) for markers in the clear, and prints how many connections it
//! has seen speak under each. Called by `app`, on a node's network; `greeted` is who speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType};
use serde::{Deserialize, Serialize};

/// `ETH_P_ALL` of linux/if_ether.h: packets of every protocol.
const EVERYTHING: u16 = 3;
/// What may wait until it is looked at; a burst of a thousand connections is less.
const BUFFER: usize = 64 << 20;
/// The longest packet there is, offloads included.
const PACKET: usize = 1 << 16;
/// How often it says what it has seen, where that changed.
const PAUSE: Duration = Duration::from_millis(200);
/// Digits of a connection's number, as `greeted` writes them.
const DIGITS: usize = 4;

/// The numbers that were seen under each marker.
type Spoken<'m> = BTreeMap<&'m str, BTreeSet<[u8; DIGITS]>>;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// Packets looked at.
    pub packets: u64,
    /// Of each marker, how many connections were seen saying it.
    pub seen: BTreeMap<String, usize>,
}

impl Sight {
    /// The latest sight that a capture printed into its log, if it has.
    pub fn parse(log: &str) -> Option<Self> {
        log.lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok())
    }
}

/// Looks until it is ended.
pub(super) fn run(markers: &[String]) -> anyhow::Result<()> {
    let protocol = std::num::NonZero::new(u32::from(EVERYTHING.to_be()));
    let protocol = protocol.map(Protocol::from_raw);
    let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, protocol)
        .context("no packet socket: it needs CAP_NET_RAW")?;
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)
        .context("no buffer of 64 MiB: it needs CAP_NET_ADMIN")?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PAUSE))?;
    let mut spoken: Spoken<'_> = markers
        .iter()
        .map(|marker| (marker.as_str(), BTreeSet::new()))
        .collect();
    let (mut packets, mut told, mut at) = (0, None, Instant::now());
    let mut buffer = vec![0; PACKET];
    loop {
        match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                packets += 1;
                look(&buffer[..length], &mut spoken);
            }
            // Nothing came, or an interface went away.
            Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN) => {}
            Err(error) => return Err(error).context("cannot receive packets"),
        }
        if at.elapsed() >= PAUSE {
            at = Instant::now();
            let seen = spoken.iter();
            let seen = seen.map(|(marker, numbers)| ((*marker).to_owned(), numbers.len()));
            let sight = Sight {
                packets,
                seen: seen.collect(),
            };
            if told.as_ref() != Some(&sight.seen) {
                println!("{}", serde_json::to_string(&sight)?);
                told = Some(sight.seen);
            }
        }
    }
}

/// Notes the number behind every marker in a packet.
fn look(packet: &[u8], spoken: &mut Spoken<'_>) {
    for (marker, numbers) in spoken {
        let marker = marker.as_bytes();
        for (index, _) in packet
            .windows(marker.len())
            .enumerate()
            .filter(|(_, window)| *window == marker)
        {
            let behind = &packet[index + marker.len()..];
            if let [b'-', a, b, c, d, b';', ..] = behind
                && [a, b, c, d].iter().all(|digit| digit.is_ascii_digit())
            {
                numbers.insert([*a, *b, *c, *d]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::greeted::words;
    use super::*;

    #[test]
    fn connections_are_told_apart_by_their_number() {
        let mut spoken = BTreeMap::from([("one", BTreeSet::new()), ("two", BTreeSet::new())]);
        let mut see = |text: &str| look(text.as_bytes(), &mut spoken);
        see(&format!("GET {} and {}", words("one", 7), words("one", 12)));
        see(&words("one", 7));
        see("--marker two --marker one-12 two-00x0;");
        assert_eq!((spoken["one"].len(), spoken["two"].len()), (2, 0));
    }
}
