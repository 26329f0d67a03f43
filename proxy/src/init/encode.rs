//! A ruleset as nf_tables messages (linux/netfilter/nf_tables.h), one atomic batch.
//! Called by `init`; `transaction` sends what it makes. Knows nothing of sockets or flags.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, InetHookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

use super::expressions::{acting, matching};
use super::ruleset::{
    ALIVE, ALIVE_SIZE, ALIVE_TIMEOUT_MS, Chain, Family, Hook, Key, Rule, Ruleset, TABLE,
};
use super::transaction::Step;

const NF_ACCEPT: u32 = 1;
/// nft's numbers for its types `nf_proto` and `ether_type`; the kernel only hands them back.
const NFT_TYPE_NFPROTO: u32 = 2;
const NFT_TYPE_ETHERTYPE: u32 = 10;
/// The only set of the batch.
pub(crate) const ALIVE_ID: u32 = 1;

/// The steps that replace our table in both families by `ruleset`.
///
/// A table is created before it is deleted, so that deleting never fails.
pub(crate) fn encode(ruleset: &Ruleset) -> Vec<Step> {
    let family = ruleset.family;
    let other = match family {
        Family::Inet => Family::Ipv4,
        Family::Ipv4 => Family::Inet,
    };
    let mut steps = vec![
        new_table(other),
        delete_table(other),
        new_table(family),
        delete_table(family),
        new_table(family),
    ];
    if ruleset.fail_open {
        steps.push(new_set(family));
    }
    for chain in &ruleset.chains {
        steps.push(new_chain(family, chain));
    }
    for chain in &ruleset.chains {
        let rules = chain.rules.iter();
        steps.extend(rules.map(|rule| new_rule(family, chain.name, rule)));
    }
    steps
}

fn table(family: Family) -> (String, TableMessage) {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    let what = format!("table {} {TABLE}", family.name());
    (what, TableMessage { attributes })
}

fn new_table(family: Family) -> Step {
    let (what, message) = table(family);
    Step {
        what,
        family,
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewTable(message),
    }
}

fn delete_table(family: Family) -> Step {
    let (what, message) = table(family);
    Step {
        what,
        family,
        flags: 0,
        message: NfTablesMessage::DeleteTable(message),
    }
}

fn new_set(family: Family) -> Step {
    let (key_type, key_length) = match family.key() {
        Key::Nfproto => (NFT_TYPE_NFPROTO, 1),
        Key::Protocol => (NFT_TYPE_ETHERTYPE, 2),
    };
    let attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(ALIVE.to_owned()),
        SetAttribute::Id(ALIVE_ID),
        SetAttribute::Flags(SetFlags::Timeout | SetFlags::Eval),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(key_length),
        SetAttribute::Timeout(ALIVE_TIMEOUT_MS),
        SetAttribute::Description(vec![SetDescription::Size(ALIVE_SIZE)]),
    ];
    Step {
        what: format!("set {ALIVE}"),
        family,
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewSet(SetMessage { attributes }),
    }
}

fn new_chain(family: Family, chain: &Chain) -> Step {
    let hook = match chain.hook {
        Hook::Prerouting => InetHookNumber::PreRouting,
        Hook::Output => InetHookNumber::LocalOut,
    };
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.name.to_owned()),
        ChainAttribute::Type(chain.kind.to_owned()),
        ChainAttribute::Policy(NF_ACCEPT),
        ChainAttribute::Hook(vec![
            HookAttribute::Number(hook.into()),
            HookAttribute::Priority(chain.priority.cast_unsigned()),
        ]),
    ];
    Step {
        what: format!("chain {} (type {})", chain.name, chain.kind),
        family,
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewChain(ChainMessage { attributes }),
    }
}

fn new_rule(family: Family, chain: &str, rule: &Rule) -> Step {
    let mut expressions = Vec::new();
    for one in &rule.matches {
        matching(family, *one, &mut expressions);
    }
    acting(rule.action, &mut expressions);
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
    ];
    Step {
        what: format!("rule `{rule}` of chain {chain}"),
        family,
        flags: NLM_F_CREATE | NLM_F_APPEND,
        message: NfTablesMessage::NewRule(RuleMessage { attributes }),
    }
}
