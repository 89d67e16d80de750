//! Between the seam's types and what stands in the log.

use reeve_proto::store::{self as proto, command, compare, key_range, op};

use crate::evaluate::Command;
use crate::kv::{Compare, KeyRange, Op, RangeRequest, Revision, Txn};

/// A field that must be there is missing: written by a newer version, or not by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or unknown")]
#[allow(unreachable_pub, reason = "a trait on public types cannot have an error less public")]
pub struct Unknown(&'static str);

impl From<&Command> for proto::Command {
    fn from(command: &Command) -> Self {
        Self {
            kind: Some(match command {
                Command::Txn(txn) => command::Kind::Txn(txn.into()),
                Command::Compact(revision) => command::Kind::Compact(revision.0),
            }),
        }
    }
}

impl TryFrom<proto::Command> for Command {
    type Error = Unknown;

    fn try_from(command: proto::Command) -> Result<Self, Unknown> {
        Ok(match command.kind.ok_or(Unknown("a command's kind"))? {
            command::Kind::Txn(txn) => Self::Txn(txn.try_into()?),
            command::Kind::Compact(revision) => Self::Compact(Revision(revision)),
        })
    }
}

impl From<&Txn> for proto::Txn {
    fn from(txn: &Txn) -> Self {
        Self {
            compare: txn.compare.iter().map(Into::into).collect(),
            then: txn.then.iter().map(Into::into).collect(),
            otherwise: txn.otherwise.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Txn> for Txn {
    type Error = Unknown;

    fn try_from(txn: proto::Txn) -> Result<Self, Unknown> {
        Ok(Self {
            compare: txn.compare.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            then: txn.then.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            otherwise: txn.otherwise.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Compare> for proto::Compare {
    fn from(compare: &Compare) -> Self {
        let (key, target) = match compare {
            Compare::ModRevision { key, equals } => (key, compare::Target::ModRevision(equals.0)),
            Compare::Value { key, equals } => (key, compare::Target::Value(equals.clone())),
        };
        Self { key: key.clone(), target: Some(target) }
    }
}

impl TryFrom<proto::Compare> for Compare {
    type Error = Unknown;

    fn try_from(compare: proto::Compare) -> Result<Self, Unknown> {
        let key = compare.key;
        Ok(match compare.target.ok_or(Unknown("a comparison's target"))? {
            compare::Target::ModRevision(revision) => Self::ModRevision { key, equals: Revision(revision) },
            compare::Target::Value(equals) => Self::Value { key, equals },
        })
    }
}

impl From<&Op> for proto::Op {
    fn from(op: &Op) -> Self {
        Self {
            kind: Some(match op {
                Op::Put { key, value } => op::Kind::Put(proto::Put { key: key.clone(), value: value.clone() }),
                Op::Delete(range) => op::Kind::Delete(range.into()),
                Op::Range(request) => op::Kind::Range(request.into()),
            }),
        }
    }
}

impl TryFrom<proto::Op> for Op {
    type Error = Unknown;

    fn try_from(op: proto::Op) -> Result<Self, Unknown> {
        Ok(match op.kind.ok_or(Unknown("a step's kind"))? {
            op::Kind::Put(put) => Self::Put { key: put.key, value: put.value },
            op::Kind::Delete(range) => Self::Delete(range.try_into()?),
            op::Kind::Range(range) => Self::Range(range.try_into()?),
        })
    }
}

impl From<&KeyRange> for proto::KeyRange {
    fn from(range: &KeyRange) -> Self {
        Self {
            kind: Some(match range {
                KeyRange::Key(key) => key_range::Kind::Key(key.clone()),
                KeyRange::Prefix(prefix) => key_range::Kind::Prefix(prefix.clone()),
                KeyRange::Span { start, end } => {
                    key_range::Kind::Span(proto::Span { start: start.clone(), end: end.clone() })
                }
            }),
        }
    }
}

impl TryFrom<proto::KeyRange> for KeyRange {
    type Error = Unknown;

    fn try_from(range: proto::KeyRange) -> Result<Self, Unknown> {
        Ok(match range.kind.ok_or(Unknown("a range's kind"))? {
            key_range::Kind::Key(key) => Self::Key(key),
            key_range::Kind::Prefix(prefix) => Self::Prefix(prefix),
            key_range::Kind::Span(span) => Self::Span { start: span.start, end: span.end },
        })
    }
}

impl From<&RangeRequest> for proto::Range {
    fn from(request: &RangeRequest) -> Self {
        Self {
            range: Some((&request.range).into()),
            revision: request.revision.map(|revision| revision.0),
            limit: request.limit as u64,
            keys_only: request.keys_only,
            count_only: request.count_only,
        }
    }
}

impl TryFrom<proto::Range> for RangeRequest {
    type Error = Unknown;

    fn try_from(range: proto::Range) -> Result<Self, Unknown> {
        Ok(Self {
            range: range.range.ok_or(Unknown("a read's range"))?.try_into()?,
            revision: range.revision.map(Revision),
            limit: usize::try_from(range.limit).unwrap_or(usize::MAX),
            keys_only: range.keys_only,
            count_only: range.count_only,
            // Only for reads of their own: what a transaction reads is counted.
            uncounted: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_command_comes_back_from_the_log_as_it_went_in() {
        let span = KeyRange::Span { start: "a".into(), end: "b".into() };
        let txn = Txn {
            compare: vec![
                Compare::ModRevision { key: "k".into(), equals: Revision(0) },
                Compare::Value { key: "k".into(), equals: "".into() },
            ],
            then: vec![Op::Put { key: "k".into(), value: "v".into() }, Op::Delete(KeyRange::Prefix("p".into()))],
            otherwise: vec![
                Op::Delete(span.clone()),
                Op::Range(RangeRequest {
                    revision: Some(Revision(7)),
                    limit: 3,
                    keys_only: true,
                    ..RangeRequest::new(span)
                }),
                Op::Range(RangeRequest { count_only: true, ..RangeRequest::key("k") }),
            ],
        };
        for command in [Command::Txn(txn), Command::Compact(Revision(9))] {
            let bytes = proto::Command::from(&command).encode_to_vec();
            let back = proto::Command::decode(&bytes[..]).unwrap();
            assert_eq!(Command::try_from(back), Ok(command));
        }
    }

    #[test]
    fn a_command_of_an_unknown_kind_is_refused() {
        assert!(Command::try_from(proto::Command { kind: None }).is_err());
    }
}
