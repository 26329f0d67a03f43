//! One nf_tables batch over a netlink socket: all of it takes effect, or nothing.
//! Called by `init`. Knows messages and errno values, not what the rules mean.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

use super::ruleset::Family;

/// The subsystem number that marks a batch as one of nf_tables.
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// One message of the batch and what to call it in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) what: String,
    pub(crate) family: Family,
    /// Flags beside NLM_F_REQUEST.
    pub(crate) flags: u16,
    pub(crate) message: NfTablesMessage,
}

/// Why nothing was changed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The socket could not be made, written or read.
    Socket(io::Error),
    /// The kernel refused the whole batch.
    Batch(Errno),
    /// The kernel refused `steps[index]`.
    Step { index: usize, errno: Errno },
}

/// Sends `steps` as one batch and waits for the kernel's verdict.
pub(crate) fn commit(steps: &[Step]) -> Result<(), Failure> {
    let batch = serialize(steps);
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(Failure::Socket)?;
    socket.bind_auto().map_err(Failure::Socket)?;
    socket
        .connect(&SocketAddr::new(0, 0))
        .map_err(Failure::Socket)?;
    // The kernel works through a batch within send, so every answer is queued when it returns.
    socket.set_non_blocking(true).map_err(Failure::Socket)?;
    socket.send(&batch, 0).map_err(Failure::Socket)?;
    let mut acknowledged = false;
    loop {
        let answer = match socket.recv_from_full() {
            Ok((answer, _)) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(Failure::Socket(error)),
        };
        for (sequence, errno) in verdicts(&answer)? {
            match errno {
                Some(errno) => return Err(locate(sequence, errno, steps.len())),
                None => acknowledged = true,
            }
        }
    }
    if acknowledged {
        return Ok(());
    }
    let silent = "the kernel did not answer a netfilter batch";
    Err(Failure::Socket(io::Error::other(silent)))
}

/// Sequence numbers: 0 opens the batch, `i + 1` is step `i`. Only the last step asks for an
/// acknowledgement; an error is answered unasked.
fn serialize(steps: &[Step]) -> Vec<u8> {
    let mut batch = Vec::new();
    append(&mut batch, 0, 0, control(ControlMessage::BatchBegin));
    for (index, step) in steps.iter().enumerate() {
        let family = match step.family {
            Family::Inet => NetfilterProtoFamily::Inet,
            Family::Ipv4 => NetfilterProtoFamily::IPv4,
        };
        let header = NetfilterHeader::new(family, 0, 0);
        let message = NetfilterMessage::new(header, step.message.clone());
        let ack = if index + 1 == steps.len() {
            NLM_F_ACK
        } else {
            0
        };
        append(&mut batch, index + 1, step.flags | ack, message);
    }
    let end = control(ControlMessage::BatchEnd);
    append(&mut batch, steps.len() + 1, 0, end);
    batch
}

fn control(message: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    NetfilterMessage::new(header, NetfilterMessageInner::None(message))
}

fn append(batch: &mut Vec<u8>, sequence: usize, flags: u16, message: NetfilterMessage) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number =
        u32::try_from(sequence).expect("a batch of 2^32 messages does not fit in memory");
    message.finalize();
    let start = batch.len();
    // Every netlink attribute and header is padded to 4 bytes, so the next message is aligned.
    batch.resize(start + message.buffer_len(), 0);
    message.serialize(&mut batch[start..]);
}

/// The error and acknowledgement messages of one datagram: sequence number, errno if any.
fn verdicts(mut datagram: &[u8]) -> Result<Vec<(u32, Option<Errno>)>, Failure> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(datagram)
            .map_err(|error| Failure::Socket(io::Error::other(error)))?;
        if let NetlinkPayload::Error(error) = &message.payload {
            let errno = error
                .code
                .map(|code| Errno::from_raw_os_error(code.get().abs()));
            found.push((message.header.sequence_number, errno));
        }
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        let aligned = length.max(1).saturating_add(3) & !3;
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
    Ok(found)
}

fn locate(sequence: u32, errno: Errno, steps: usize) -> Failure {
    match usize::try_from(sequence) {
        Ok(sequence @ 1..) if sequence <= steps => Failure::Step {
            index: sequence - 1,
            errno,
        },
        _ => Failure::Batch(errno),
    }
}
