//! Matches and actions as the expressions of the kernel's rule machine, each through register 1.
//! Called by `encode`. Knows nothing of tables, chains and batches.

use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload,
    Register, Verdict, VerdictAttribute,
};

use super::encode::ALIVE_ID;
use super::exclusions::Subnet;
use super::ruleset::{ALIVE, Action, Family, Key, Match};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// Of the destination port in a TCP or UDP header.
const DPORT_OFFSET: u32 = 2;
const IFNAMSIZ: usize = 16;

const NFTA_DYNSET_SET_NAME: u16 = 1;
const NFTA_DYNSET_SET_ID: u16 = 2;
const NFTA_DYNSET_OP: u16 = 3;
const NFTA_DYNSET_SREG_KEY: u16 = 4;
const NFT_DYNSET_OP_UPDATE: u32 = 1;

const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
/// The routing table's type of an address of this host (linux/rtnetlink.h).
const RTN_LOCAL: u32 = 2;

/// Appends what stops the rule where the packet does not match.
pub(crate) fn matching(family: Family, one: Match, to: &mut Vec<Expressions>) {
    match one {
        Match::Uid(uid) => {
            to.push(meta(MetaKey::SocketUserId));
            to.push(equal(&uid.to_ne_bytes()));
        }
        Match::OutLoopback => {
            let mut name = [0; IFNAMSIZ];
            name[..2].copy_from_slice(b"lo");
            to.push(meta(MetaKey::Oifname));
            to.push(equal(&name));
        }
        Match::LocalDestination => {
            to.push(address_type_of_destination());
            to.push(equal(&RTN_LOCAL.to_ne_bytes()));
        }
        Match::Alive(key) => {
            to.push(family_of_packet(key));
            to.push(Expressions::Lookup(vec![
                Lookup::Set(ALIVE.to_owned()),
                Lookup::SourceRegister(Register::Reg1),
                Lookup::SetId(ALIVE_ID),
            ]));
        }
        Match::Source(subnet) => in_subnet(family, subnet, Side::Source, to),
        Match::Destination(subnet) => in_subnet(family, subnet, Side::Destination, to),
        Match::Tcp => protocol(IPPROTO_TCP, to),
        Match::TcpPort(range) => {
            protocol(IPPROTO_TCP, to);
            to.push(payload(NFT_PAYLOAD_TRANSPORT_HEADER, DPORT_OFFSET, 2));
            if range.first == range.last {
                to.push(equal(&range.first.to_be_bytes()));
            } else {
                let (first, last) = (range.first.to_be_bytes(), range.last.to_be_bytes());
                to.push(compare(Operator::GreatherThanEqual, &first));
                to.push(compare(Operator::LessThanEqual, &last));
            }
        }
        Match::UdpPort(port) => {
            protocol(IPPROTO_UDP, to);
            to.push(payload(NFT_PAYLOAD_TRANSPORT_HEADER, DPORT_OFFSET, 2));
            to.push(equal(&port.to_be_bytes()));
        }
    }
}

/// Appends what the rule does.
pub(crate) fn acting(action: Action, to: &mut Vec<Expressions>) {
    match action {
        Action::Return => to.push(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
                Verdict::Return,
            )])),
        ])),
        Action::Redirect(port) => {
            to.push(Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Reg1),
                Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
            ]));
            let register = number(NFTA_REDIR_REG_PROTO_MIN, Register::Reg1.into());
            to.push(other("redir", vec![register]));
        }
        Action::Beat(key) => {
            to.push(family_of_packet(key));
            to.push(other(
                "dynset",
                vec![
                    DefaultNla::new(NFTA_DYNSET_SET_NAME, terminated(ALIVE)),
                    number(NFTA_DYNSET_SET_ID, ALIVE_ID),
                    number(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
                    number(NFTA_DYNSET_SREG_KEY, Register::Reg1.into()),
                ],
            ));
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn in_subnet(family: Family, subnet: Subnet, side: Side, to: &mut Vec<Expressions>) {
    // Offsets of the two addresses: RFC 791 section 3.1, RFC 8200 section 3.
    let (protocol, offset, network) = match (subnet.network, side) {
        (IpAddr::V4(v4), Side::Source) => (NFPROTO_IPV4, 12, v4.octets().to_vec()),
        (IpAddr::V4(v4), Side::Destination) => (NFPROTO_IPV4, 16, v4.octets().to_vec()),
        (IpAddr::V6(v6), Side::Source) => (NFPROTO_IPV6, 8, v6.octets().to_vec()),
        (IpAddr::V6(v6), Side::Destination) => (NFPROTO_IPV6, 24, v6.octets().to_vec()),
    };
    if family == Family::Inet {
        to.push(meta(MetaKey::Nfproto));
        to.push(equal(&[protocol]));
    }
    let length = if protocol == NFPROTO_IPV4 { 4 } else { 16 };
    to.push(payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length));
    if !subnet.is_host() {
        to.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(length),
            Bitwise::Mask(DataAttribute::Value(mask(subnet.prefix, network.len()))),
            Bitwise::Xor(DataAttribute::Value(vec![0; network.len()])),
        ]));
    }
    to.push(equal(&network));
}

fn mask(prefix: u8, length: usize) -> Vec<u8> {
    let bits = usize::from(prefix);
    (0..length)
        .map(|byte| match bits.saturating_sub(byte * 8) {
            0 => 0,
            left @ 1..8 => 0xff << (8 - left),
            _ => 0xff,
        })
        .collect()
}

fn protocol(number: u8, to: &mut Vec<Expressions>) {
    to.push(meta(MetaKey::L4Proto));
    to.push(equal(&[number]));
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![
        Meta::Key(key),
        Meta::DestinationRegister(Register::Reg1),
    ])
}

fn family_of_packet(key: Key) -> Expressions {
    meta(match key {
        Key::Nfproto => MetaKey::Nfproto,
        Key::Protocol => MetaKey::EtherTypeProtocol,
    })
}

fn payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn equal(value: &[u8]) -> Expressions {
    compare(Operator::Equal, value)
}

fn compare(operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

fn address_type_of_destination() -> Expressions {
    other(
        "fib",
        vec![
            number(NFTA_FIB_DREG, Register::Reg1.into()),
            number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
            number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR),
        ],
    )
}

/// An expression the packet crate has no type for.
fn other(expression_type: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other {
        expression_type: expression_type.to_owned(),
        attributes,
    }
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cut_inside_bytes() {
        assert_eq!(mask(0, 4), [0, 0, 0, 0]);
        assert_eq!(mask(10, 4), [0xff, 0xc0, 0, 0]);
        assert_eq!(mask(32, 4), [0xff; 4]);
        assert_eq!(mask(127, 16)[15], 0xfe);
    }
}
