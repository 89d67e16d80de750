//! How what members say to each other becomes a [`Parcel`], and back.

use bytes::Bytes;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{Message as RaftMessage, MessageType};
use reeve_proto::member::{Change as WireChange, Changed, Message, message::Kind};

use crate::status::{Change, MemberError};
use crate::transport::Parcel;

/// Entries that are sent together, unless one alone has more bytes.
const TOGETHER_BYTES_MAX: usize = 1024 * 1024;

/// The same messages, fewer: what is said to one member one after the other and can be said at once is. Appends become
/// one when the second goes on where the first ends, and of acknowledgements the last one says it all.
pub(crate) fn together(messages: Vec<RaftMessage>) -> Vec<RaftMessage> {
    let mut fewer: Vec<RaftMessage> = Vec::with_capacity(messages.len());
    for message in messages {
        let former = fewer.iter_mut().rev().find(|former| former.to == message.to);
        match former {
            Some(former) if goes_on(former, &message) => {
                former.commit = former.commit.max(message.commit);
                former.entries.extend(message.entries);
            }
            Some(former) if outdoes(former, &message) => *former = message,
            _ => fewer.push(message),
        }
    }
    fewer
}

/// Whether an append goes on where another one ends.
fn goes_on(former: &RaftMessage, next: &RaftMessage) -> bool {
    let is_append = |message: &RaftMessage| message.get_msg_type() == MessageType::MsgAppend;
    let bytes = |message: &RaftMessage| message.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
    let end = former.entries.last().map_or((former.index, former.log_term), |last| (last.index, last.term));
    is_append(former)
        && is_append(next)
        && former.term == next.term
        && end == (next.index, next.log_term)
        && bytes(former) + bytes(next) <= TOGETHER_BYTES_MAX
}

/// Whether an acknowledgement says all that another one does.
fn outdoes(former: &RaftMessage, next: &RaftMessage) -> bool {
    let is_taken = |message: &RaftMessage| message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
    is_taken(former)
        && is_taken(next)
        && former.term == next.term
        && former.index <= next.index
        && former.commit <= next.commit
}

/// One of Raft's messages, on its way.
pub(crate) fn raft_parcel(message: &RaftMessage) -> Option<Parcel> {
    let bytes = message.write_to_bytes().ok()?.into();
    let others = [MessageType::MsgAppend, MessageType::MsgSnapshot];
    let urgent = !others.contains(&message.get_msg_type());
    Some(parcel(message.from, message.to, Kind::Raft(bytes), urgent))
}

/// Any message, on its way.
pub(crate) fn parcel(from: u64, to: u64, kind: Kind, urgent: bool) -> Parcel {
    let message = Bytes::from(Message { kind: Some(kind) }.encode_to_vec());
    Parcel { from, to, message, urgent }
}

/// What is in a parcel; `None` when it cannot be understood.
pub(crate) fn open(parcel: &Parcel) -> Option<Kind> {
    Message::decode(parcel.message.clone()).ok()?.kind
}

/// One of Raft's messages; `None` when it cannot be understood, or does not say truly who sent it.
pub(crate) fn raft_message(bytes: &[u8], parcel: &Parcel) -> Option<RaftMessage> {
    let mut message = RaftMessage::default();
    message.merge_from_bytes(bytes).ok()?;
    (message.from == parcel.from && message.to == parcel.to).then_some(message)
}

/// A change of the members as it is sent to the leader.
pub(crate) fn to_change(number: u64, change: &Change) -> WireChange {
    let (kind, id, by, address) = match change {
        Change::AddLearner { id, address } => (1, *id, 0, address.clone()),
        Change::Promote { id } => (2, *id, 0, String::new()),
        Change::Remove { id } => (3, *id, 0, String::new()),
        Change::Replace { id, by } => (4, *id, *by, String::new()),
        Change::Move { id, address } => (5, *id, 0, address.clone()),
        Change::Transfer { id } => (6, id.unwrap_or(0), 0, String::new()),
    };
    WireChange { number, kind, id, by, address }
}

/// The same the other way; `None` when this version knows no such change.
pub(crate) fn from_change(change: WireChange) -> Option<Change> {
    let WireChange { kind, id, by, address, .. } = change;
    Some(match kind {
        1 => Change::AddLearner { id, address },
        2 => Change::Promote { id },
        3 => Change::Remove { id },
        4 => Change::Replace { id, by },
        5 => Change::Move { id, address },
        6 => Change::Transfer { id: (id != 0).then_some(id) },
        _ => return None,
    })
}

/// The leader first makes somebody else leader, who is to be asked.
pub(crate) const HANDED_OVER: u32 = 10;

/// Says so.
pub(crate) fn handed_over(number: u64) -> Changed {
    Changed { number, error: HANDED_OVER, ..Changed::default() }
}

/// What came of a change, as it is sent back.
pub(crate) fn to_changed(number: u64, outcome: &Result<(), MemberError>) -> Changed {
    let (error, numbers, words) = match outcome {
        Ok(()) => (0, vec![], String::new()),
        Err(MemberError::Unknown { id }) => (1, vec![*id], String::new()),
        Err(MemberError::Exists { id }) => (2, vec![*id], String::new()),
        Err(MemberError::Removed { id }) => (3, vec![*id], String::new()),
        Err(MemberError::Voter { id }) => (4, vec![*id], String::new()),
        Err(MemberError::Learner { id }) => (5, vec![*id], String::new()),
        Err(MemberError::Behind { id, entries }) => (6, vec![*id, *entries], String::new()),
        Err(MemberError::LosesQuorum { voters, reachable, needed }) => {
            (7, vec![*voters, *reachable, *needed], String::new())
        }
        Err(MemberError::Busy) => (8, vec![], String::new()),
        Err(MemberError::Unavailable { reason }) => (9, vec![], reason.clone()),
        Err(err @ (MemberError::Alone | MemberError::Stopped(_))) => (9, vec![], err.to_string()),
    };
    Changed { number, error, numbers, words }
}

/// The same the other way.
pub(crate) fn from_changed(changed: Changed) -> Result<(), MemberError> {
    let number = |n: usize| changed.numbers.get(n).copied().unwrap_or(0);
    let id = number(0);
    Err(match changed.error {
        0 => return Ok(()),
        1 => MemberError::Unknown { id },
        2 => MemberError::Exists { id },
        3 => MemberError::Removed { id },
        4 => MemberError::Voter { id },
        5 => MemberError::Learner { id },
        6 => MemberError::Behind { id, entries: number(1) },
        7 => MemberError::LosesQuorum { voters: number(0), reachable: number(1), needed: number(2) },
        8 => MemberError::Busy,
        _ => MemberError::Unavailable { reason: changed.words },
    })
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    #[test]
    fn what_is_asked_and_answered_arrives_as_it_was() {
        let changes = [
            Change::AddLearner { id: 4, address: "a:1".to_owned() },
            Change::Promote { id: 4 },
            Change::Remove { id: 4 },
            Change::Replace { id: 3, by: 4 },
            Change::Move { id: 3, address: "b:1".to_owned() },
            Change::Transfer { id: None },
            Change::Transfer { id: Some(2) },
        ];
        for change in changes {
            assert_eq!(from_change(to_change(7, &change)), Some(change));
        }
        let errors = [
            MemberError::Unknown { id: 1 },
            MemberError::Exists { id: 2 },
            MemberError::Removed { id: 3 },
            MemberError::Voter { id: 4 },
            MemberError::Learner { id: 5 },
            MemberError::Behind { id: 6, entries: 700 },
            MemberError::LosesQuorum { voters: 3, reachable: 1, needed: 2 },
            MemberError::Busy,
            MemberError::Unavailable { reason: "so it is".to_owned() },
        ];
        for error in errors {
            let said = error.to_string();
            assert_eq!(from_changed(to_changed(7, &Err(error))).unwrap_err().to_string(), said);
        }
        assert!(from_changed(to_changed(7, &Ok(()))).is_ok());
    }

    #[test]
    fn what_goes_on_where_the_former_ends_is_sent_with_it_and_nothing_else() {
        let append = |to, (index, log_term), entries: &[(u64, u64)], commit| {
            let entry = |(index, term): &(u64, u64)| Entry { index: *index, term: *term, ..Entry::default() };
            let entries = entries.iter().map(entry).collect();
            let message = RaftMessage { to, index, log_term, entries, commit, term: 3, ..RaftMessage::default() };
            let mut message = message;
            message.set_msg_type(MessageType::MsgAppend);
            message
        };
        let answer = |index, reject| {
            let mut message = RaftMessage { to: 9, index, reject, term: 3, ..RaftMessage::default() };
            message.set_msg_type(MessageType::MsgAppendResponse);
            message
        };
        let said = vec![
            append(2, (4, 2), &[], 4),
            append(3, (4, 2), &[(5, 2)], 4),
            append(2, (4, 2), &[(5, 2), (6, 3)], 4),
            append(2, (6, 3), &[(7, 3)], 5),
            append(2, (6, 2), &[(7, 2)], 5),
            answer(5, false),
            answer(7, false),
            answer(6, true),
            answer(8, false),
        ];
        let fewer = vec![
            append(2, (4, 2), &[(5, 2), (6, 3), (7, 3)], 5),
            said[1].clone(),
            said[4].clone(),
            answer(7, false),
            answer(6, true),
            answer(8, false),
        ];
        assert_eq!(together(said), fewer);
    }

    #[test]
    fn a_message_that_lies_about_its_sender_is_dropped() {
        let message = RaftMessage { from: 1, to: 2, ..RaftMessage::default() };
        let parcel = raft_parcel(&message).unwrap();
        let Some(Kind::Raft(bytes)) = open(&parcel) else { panic!("one of Raft's") };
        assert_eq!(raft_message(&bytes, &parcel), Some(message));
        assert_eq!(raft_message(&bytes, &Parcel { from: 3, ..parcel }), None);
    }
}
