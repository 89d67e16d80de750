//! Between the seam's types and what stands in the log.

use bytes::Bytes;
use reeve_proto::store::{self as proto, check, command, compare, key_range, op};

use crate::evaluate::Command;
use crate::kv::{Compare, KeyRange, Op, RangeRequest, Revision, Txn};
use crate::lease::LeaseId;
use crate::txn::{Check, Put, Relation, RevisionFilter, Sort, SortOrder, SortTarget, Target};

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
                Command::LeaseGrant(id, ttl, from) => {
                    command::Kind::LeaseGrant(proto::LeaseGrant { id: id.0, ttl: *ttl, from: *from })
                }
                Command::LeaseRevoke(id) => command::Kind::LeaseRevoke(id.0),
                Command::LeaseRenew(id) => command::Kind::LeaseRenew(id.0),
                Command::LeaseExpire(id, renewals) => {
                    command::Kind::LeaseExpire(proto::LeaseExpire { id: id.0, renewals: *renewals })
                }
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
            command::Kind::LeaseGrant(grant) => Self::LeaseGrant(LeaseId(grant.id), grant.ttl, grant.from),
            command::Kind::LeaseRevoke(id) => Self::LeaseRevoke(LeaseId(id)),
            command::Kind::LeaseRenew(id) => Self::LeaseRenew(LeaseId(id)),
            command::Kind::LeaseExpire(expire) => Self::LeaseExpire(LeaseId(expire.id), expire.renewals),
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
            Compare::ModRevision { key, equals } => (key.clone(), compare::Target::ModRevision(equals.0)),
            Compare::Value { key, equals } => (key.clone(), compare::Target::Value(equals.clone())),
            Compare::Check(check) => (Bytes::new(), compare::Target::Check(check.into())),
        };
        Self { key, target: Some(target) }
    }
}

impl From<&Check> for proto::Check {
    fn from(check: &Check) -> Self {
        let relation = match check.relation {
            Relation::Equal => proto::Relation::Equal,
            Relation::NotEqual => proto::Relation::NotEqual,
            Relation::Greater => proto::Relation::Greater,
            Relation::Less => proto::Relation::Less,
        };
        let target = match &check.target {
            Target::Version(number) => check::Target::Version(*number),
            Target::CreateRevision(number) => check::Target::CreateRevision(*number),
            Target::ModRevision(number) => check::Target::ModRevision(*number),
            Target::Value(value) => check::Target::Value(value.clone()),
            Target::Lease(number) => check::Target::Lease(*number),
        };
        Self { range: Some((&check.range).into()), relation: relation.into(), target: Some(target) }
    }
}

impl TryFrom<proto::Check> for Check {
    type Error = Unknown;

    fn try_from(check: proto::Check) -> Result<Self, Unknown> {
        let relation = match proto::Relation::try_from(check.relation).map_err(|_| Unknown("a relation"))? {
            proto::Relation::Equal => Relation::Equal,
            proto::Relation::NotEqual => Relation::NotEqual,
            proto::Relation::Greater => Relation::Greater,
            proto::Relation::Less => Relation::Less,
        };
        let target = match check.target.ok_or(Unknown("a comparison's target"))? {
            check::Target::Version(number) => Target::Version(number),
            check::Target::CreateRevision(number) => Target::CreateRevision(number),
            check::Target::ModRevision(number) => Target::ModRevision(number),
            check::Target::Value(value) => Target::Value(value),
            check::Target::Lease(number) => Target::Lease(number),
        };
        Ok(Self { range: check.range.ok_or(Unknown("a comparison's range"))?.try_into()?, relation, target })
    }
}

impl TryFrom<proto::Compare> for Compare {
    type Error = Unknown;

    fn try_from(compare: proto::Compare) -> Result<Self, Unknown> {
        let key = compare.key;
        Ok(match compare.target.ok_or(Unknown("a comparison's target"))? {
            compare::Target::ModRevision(revision) => Self::ModRevision { key, equals: Revision(revision) },
            compare::Target::Value(equals) => Self::Value { key, equals },
            compare::Target::Check(check) => Self::Check(check.try_into()?),
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
                Op::PutWith(put) => op::Kind::PutWith(proto::PutWith {
                    key: put.key.clone(),
                    value: put.value.clone(),
                    lease: put.lease.map(|lease| lease.0),
                }),
                Op::Txn(inner) => op::Kind::Txn(Box::new((&**inner).into())),
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
            op::Kind::PutWith(put) => {
                Self::PutWith(Put { key: put.key, value: put.value, lease: put.lease.map(LeaseId) })
            }
            op::Kind::Txn(inner) => Self::Txn(Box::new((*inner).try_into()?)),
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
                KeyRange::From(start) => key_range::Kind::From(start.clone()),
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
            key_range::Kind::From(start) => Self::From(start),
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
            sort_target: match request.sort.target {
                SortTarget::Key => proto::SortTarget::Key,
                SortTarget::Version => proto::SortTarget::Version,
                SortTarget::CreateRevision => proto::SortTarget::CreateRevision,
                SortTarget::ModRevision => proto::SortTarget::ModRevision,
                SortTarget::Value => proto::SortTarget::Value,
            }
            .into(),
            sort_order: match request.sort.order {
                SortOrder::Unsaid => proto::SortOrder::Unsaid,
                SortOrder::Ascending => proto::SortOrder::Ascending,
                SortOrder::Descending => proto::SortOrder::Descending,
            }
            .into(),
            min_mod: request.filter.min_mod,
            max_mod: request.filter.max_mod,
            min_create: request.filter.min_create,
            max_create: request.filter.max_create,
        }
    }
}

fn sort(range: &proto::Range) -> Result<Sort, Unknown> {
    let target = match proto::SortTarget::try_from(range.sort_target).map_err(|_| Unknown("a sort target"))? {
        proto::SortTarget::Key => SortTarget::Key,
        proto::SortTarget::Version => SortTarget::Version,
        proto::SortTarget::CreateRevision => SortTarget::CreateRevision,
        proto::SortTarget::ModRevision => SortTarget::ModRevision,
        proto::SortTarget::Value => SortTarget::Value,
    };
    let order = match proto::SortOrder::try_from(range.sort_order).map_err(|_| Unknown("a sort order"))? {
        proto::SortOrder::Unsaid => SortOrder::Unsaid,
        proto::SortOrder::Ascending => SortOrder::Ascending,
        proto::SortOrder::Descending => SortOrder::Descending,
    };
    Ok(Sort { target, order })
}

impl TryFrom<proto::Range> for RangeRequest {
    type Error = Unknown;

    fn try_from(range: proto::Range) -> Result<Self, Unknown> {
        Ok(Self {
            sort: sort(&range)?,
            filter: RevisionFilter {
                min_mod: range.min_mod,
                max_mod: range.max_mod,
                min_create: range.min_create,
                max_create: range.max_create,
            },
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
        let everything = Txn {
            compare: [
                Target::Version(-1),
                Target::CreateRevision(1),
                Target::ModRevision(2),
                Target::Value("v".into()),
                Target::Lease(3),
            ]
            .into_iter()
            .zip([Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less, Relation::Equal])
            .map(|(target, relation)| Compare::Check(Check { range: KeyRange::From("k".into()), relation, target }))
            .collect(),
            then: vec![
                Op::PutWith(Put { key: "k".into(), value: None, lease: Some(LeaseId(-5)) }),
                Op::PutWith(Put { key: "l".into(), value: Some("".into()), lease: None }),
                Op::Txn(Box::new(txn.clone())),
            ],
            otherwise: vec![Op::Range(RangeRequest {
                sort: Sort { target: SortTarget::Value, order: SortOrder::Descending },
                filter: RevisionFilter { min_mod: 1, max_mod: 2, min_create: 3, max_create: 4 },
                ..RangeRequest::prefix("")
            })],
        };
        let id = LeaseId(-5);
        let leases = [
            Command::LeaseGrant(id, 60, u64::MAX),
            Command::LeaseRevoke(id),
            Command::LeaseRenew(id),
            Command::LeaseExpire(id, 3),
        ];
        let others = [Command::Txn(txn), Command::Txn(everything), Command::Compact(Revision(9))];
        for command in others.into_iter().chain(leases) {
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
