//! Holds packets for a time, as a long way would: those that a rule of the firewall hands over (target NFQUEUE,
//! linux/netfilter/nfnetlink_queue.h). Called by `app`, in the network of the pod whose packets they are. For kernels
//! without netem.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// `NFNL_SUBSYS_QUEUE`, in the upper half of a message's type.
const QUEUE: u16 = 3 << 8;
/// `NFQNL_MSG_PACKET`, `NFQNL_MSG_VERDICT` and `NFQNL_MSG_CONFIG`.
const PACKET: u16 = QUEUE;
const VERDICT: u16 = QUEUE | 1;
const CONFIG: u16 = QUEUE | 2;
/// `NLM_F_REQUEST`, and `NLM_F_ACK`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// Lengths of nlmsghdr, and with nfgenmsg behind it.
const HEADER: usize = 16;
const HEADERS: usize = 20;
/// `NFQA_PACKET_HDR` of a packet, whose first four bytes are its number.
const PACKET_HEADER: u16 = 1;
/// `NFQA_VERDICT_HDR` of a verdict, and `NF_ACCEPT`.
const VERDICT_HEADER: u16 = 2;
const ACCEPT: u32 = 1;
/// Of a configuration: the command, what to copy, how many may wait.
const COMMAND: u16 = 1;
const PARAMETERS: u16 = 2;
const LONGEST_QUEUE: u16 = 3;
/// `NFQNL_CFG_CMD_BIND`, and `NFQNL_COPY_META`: nothing of a packet but its number.
const BIND: u8 = 1;
const META: u8 = 1;
/// Packets that may wait; more are dropped.
const WAITING: u32 = 65_536;
/// Room for what comes at once.
const RECEIVED: usize = 1 << 16;

/// Holds the packets of a queue until it is ended.
pub(super) fn run(queue: u16, hold: Duration) -> anyhow::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    for attribute in [
        attribute(COMMAND, &[BIND, 0, 0, 0]),
        attribute(PARAMETERS, &[0, 0, 0, 0, META]),
        attribute(LONGEST_QUEUE, &WAITING.to_be_bytes()),
    ] {
        configure(&socket, queue, &attribute)?;
    }
    println!("packets of queue {queue} are held for {hold:?}");
    let (hand_over, held) = mpsc::channel::<(Instant, u32)>();
    let socket = Arc::new(socket);
    let releasing = socket.clone();
    let release = std::thread::spawn(move || {
        for (until, id) in held {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            let verdict = [ACCEPT.to_be_bytes(), id.to_be_bytes()].concat();
            let verdict = attribute(VERDICT_HEADER, &verdict);
            releasing.send(&message(VERDICT, REQUEST, queue, &verdict), 0)?;
        }
        std::io::Result::Ok(())
    });
    let mut received = Vec::with_capacity(RECEIVED);
    while !release.is_finished() {
        received.clear();
        socket
            .recv(&mut received, 0)
            .context("cannot receive packets")?;
        let until = Instant::now() + hold;
        for id in numbers(&received) {
            // The kernel bounds how many there are.
            hand_over.send((until, id))?;
        }
    }
    Ok(release.join().expect("it does not panic")?)
}

/// Sends a setting and waits for the system's word on it.
fn configure(socket: &Socket, queue: u16, attribute: &[u8]) -> anyhow::Result<()> {
    socket.send(&message(CONFIG, REQUEST | ACK, queue, attribute), 0)?;
    let mut answer = Vec::with_capacity(RECEIVED);
    socket.recv(&mut answer, 0)?;
    let error = answer.get(HEADER..HEADERS).context("no answer")?;
    ensure!(
        error == [0; 4],
        "the system refuses queue {queue} ({error:?}): it needs CAP_NET_ADMIN, and one at a time"
    );
    Ok(())
}

/// nlmsghdr and nfgenmsg before an attribute.
fn message(kind: u16, flags: u16, queue: u16, attribute: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADERS + attribute.len());
    let length = u32::try_from(HEADERS + attribute.len()).expect("a few attributes");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 10]); // sequence, port; any family, version 0
    bytes.extend(queue.to_be_bytes());
    bytes.extend(attribute);
    bytes
}

/// nlattr, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short value");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The numbers of the packets in what came.
fn numbers(mut messages: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        while let Some(length) = word(messages, 0) {
            let length = usize::try_from(length).ok()?.max(HEADER);
            let message = messages.get(..length)?;
            let rest = messages.get(length.next_multiple_of(4)..);
            messages = rest.unwrap_or_default();
            if message.get(4..6) == Some(&PACKET.to_ne_bytes())
                && let Some(number) = number(message.get(HEADERS..)?)
            {
                return Some(number);
            }
        }
        None
    })
}

/// The number among a packet's attributes.
fn number(mut attributes: &[u8]) -> Option<u32> {
    loop {
        let head: [u8; 4] = attributes.get(..4)?.try_into().ok()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if u16::from_ne_bytes([head[2], head[3]]) == PACKET_HEADER {
            return word(attributes, 4).map(|bytes| u32::from_be_bytes(bytes.to_ne_bytes()));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_by_their_numbers() {
        let packet = |number: u32| {
            let other = attribute(9, b"abc");
            let header = [&number.to_be_bytes()[..], &[8, 0, 4]].concat();
            let attributes = [other, attribute(PACKET_HEADER, &header)].concat();
            message(PACKET, 0, 7, &attributes)
        };
        let received = [packet(5), message(CONFIG, 0, 7, &[]), packet(6)].concat();
        assert_eq!(numbers(&received).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(numbers(&received[..30]).count(), 0);
        assert_eq!(numbers(&[]).count(), 0);
    }
}
