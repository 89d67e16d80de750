//! The changes a transaction is made of.

use super::expr::{Expr, Verdict};
use super::message::{Buffer, Header, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const SET_IS_MAP: u32 = 0x8;
const SET_HAS_TIMEOUTS: u32 = 0x10;
const SET_IS_DYNAMIC: u32 = 0x20;
const DATA_VERDICT: u32 = 0xffff_ff00;
const FAMILY_IPV4: u8 = 2;

/// Elements of one message: their list is one attribute, whose length is 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 300;

/// Where a base chain hooks into the kernel (`linux/netfilter.h`).
#[derive(Debug, Clone, Copy)]
pub enum Hook {
    /// Packets that have just arrived.
    Prerouting,
    /// Packets for this node.
    Input,
    /// Packets that pass through.
    Forward,
    /// Packets made here.
    Output,
    /// Packets about to leave.
    Postrouting,
}

/// A chain; with a hook, a base chain.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// `filter` or `nat`, its hook and priority.
    pub base: Option<(&'static str, Hook, i32)>,
}

/// A set or map. Lengths are those of the registers: four bytes per field.
#[derive(Debug, Clone, Copy)]
pub struct SetSpec {
    /// Its name.
    pub name: &'static str,
    /// nft's number for the key's type, for those who list the ruleset.
    pub key_type: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// What it maps to.
    pub data: DataSpec,
    /// For a set that rules fill: how many elements it holds at most. Each lasts as long as its rule says.
    pub dynamic: Option<u32>,
}

/// What a set's elements carry.
#[derive(Debug, Clone, Copy)]
pub enum DataSpec {
    /// Nothing.
    None,
    /// A verdict.
    Verdict,
    /// Bytes: nft's number for their type, and how many.
    Bytes(u32, u32),
}

/// What one element maps to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// Nothing: the element of a set.
    None,
    /// Bytes, as registers hold them.
    Bytes(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its key, as registers hold it.
    pub key: Vec<u8>,
    /// What it maps to.
    pub data: Data,
}

/// One change. All name the table they concern through the transaction.
#[derive(Debug, Clone)]
pub enum Op {
    /// Makes the table unless it exists.
    AddTable,
    /// Removes the table with all that is in it. It must exist.
    DeleteTable,
    /// Makes a chain.
    AddChain(Chain),
    /// Removes a chain with its rules. Nothing may lead to it any more.
    DeleteChain(String),
    /// Appends a rule to a chain.
    AddRule(String, Vec<Expr>),
    /// Makes a set or map.
    AddSet(SetSpec),
    /// Adds elements. They must not exist.
    AddElements(&'static str, Vec<Element>),
    /// Removes elements. They must exist.
    DeleteElements(&'static str, Vec<Element>),
}

impl Op {
    /// Writes the change as one or more messages; returns how many.
    pub fn encode(&self, table: &str, sequence: u32, buffer: &mut Buffer) -> u32 {
        match self {
            Self::AddTable => message(buffer, NEWTABLE, NLM_F_CREATE, sequence, |body| {
                body.text(1, table);
                body.number(2, 0);
            }),
            Self::DeleteTable => message(buffer, DELTABLE, 0, sequence, |body| body.text(1, table)),
            Self::AddChain(chain) => {
                message(buffer, NEWCHAIN, NLM_F_CREATE, sequence, |body| encode_chain(body, table, chain));
            }
            Self::DeleteChain(chain) => message(buffer, DELCHAIN, 0, sequence, |body| {
                body.text(1, table);
                body.text(3, chain);
            }),
            Self::AddRule(chain, expressions) => {
                message(buffer, NEWRULE, NLM_F_CREATE | NLM_F_APPEND, sequence, |body| {
                    body.text(1, table);
                    body.text(2, chain);
                    body.nested(4, |list| expressions.iter().for_each(|expression| expression.encode(list)));
                });
            }
            Self::AddSet(spec) => {
                message(buffer, NEWSET, NLM_F_CREATE, sequence, |body| encode_set(body, table, spec, sequence));
            }
            Self::AddElements(set, elements) => {
                return encode_elements(buffer, (NEWSETELEM, NLM_F_CREATE), sequence, (table, set), elements);
            }
            Self::DeleteElements(set, elements) => {
                return encode_elements(buffer, (DELSETELEM, 0), sequence, (table, set), elements);
            }
        }
        1
    }
}

fn message(buffer: &mut Buffer, kind: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Buffer)) {
    let header =
        Header { kind: SUBSYSTEM | kind, flags: NLM_F_REQUEST | flags, sequence, family: FAMILY_IPV4, resource: 0 };
    buffer.message(header, body);
}

fn encode_chain(body: &mut Buffer, table: &str, chain: &Chain) {
    body.text(1, table);
    body.text(3, &chain.name);
    let Some((kind, hook, priority)) = chain.base else { return };
    let number = match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    body.nested(4, |hook| {
        hook.number(1, number);
        hook.bytes(2, &priority.to_be_bytes());
    });
    body.number(5, 1); // policy accept
    body.text(7, kind);
}

fn encode_set(body: &mut Buffer, table: &str, spec: &SetSpec, id: u32) {
    body.text(1, table);
    body.text(2, spec.name);
    let mapping = if matches!(spec.data, DataSpec::None) { 0 } else { SET_IS_MAP };
    let dynamic = if spec.dynamic.is_some() { SET_HAS_TIMEOUTS | SET_IS_DYNAMIC } else { 0 };
    body.number(3, mapping | dynamic);
    body.number(4, spec.key_type);
    body.number(5, spec.key_len);
    match spec.data {
        DataSpec::None => {}
        DataSpec::Verdict => body.number(6, DATA_VERDICT),
        DataSpec::Bytes(kind, length) => {
            body.number(6, kind);
            body.number(7, length);
        }
    }
    if let Some(size) = spec.dynamic {
        body.nested(9, |description| description.number(1, size));
    }
    body.number(10, id);
}

fn encode_elements(
    buffer: &mut Buffer,
    (kind, flags): (u16, u16),
    sequence: u32,
    (table, set): (&str, &str),
    elements: &[Element],
) -> u32 {
    let mut count = 0;
    for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
        message(buffer, kind, flags, sequence + count, |body| {
            body.text(1, table);
            body.text(2, set);
            body.nested(3, |list| chunk.iter().for_each(|element| encode_element(list, element, kind == NEWSETELEM)));
        });
        count += 1;
    }
    count
}

fn encode_element(list: &mut Buffer, element: &Element, with_data: bool) {
    list.nested(1, |own| {
        own.nested(1, |key| key.bytes(1, &element.key));
        match &element.data {
            Data::Bytes(bytes) if with_data => own.nested(2, |data| data.bytes(1, bytes)),
            Data::Verdict(verdict) if with_data => own.nested(2, |data| verdict.encode(data)),
            _ => {}
        }
    });
}
