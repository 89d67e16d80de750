//! What clients of etcd's own protocol ask for beyond what the API server does.

use reeve_store::{Check, Put, Relation, RevisionFilter, Sort, SortOrder, SortTarget, Target};

use super::*;

async fn holds(kv: &SharedKv, range: KeyRange, relation: Relation, target: Target) -> bool {
    let compare = vec![Compare::Check(Check { range, relation, target })];
    kv.txn(Txn { compare, ..Txn::default() }).await.unwrap().succeeded
}

/// What is compared, of a number.
type Number = fn(i64) -> Target;

pub(crate) async fn every_comparison_compares_what_it_says(kv: &SharedKv) {
    put(kv, "other", "x").await;
    put(kv, "a", "b").await;
    put(kv, "a", "b").await;
    let numbers: [(Number, i64); 4] =
        [(Target::Version, 2), (Target::CreateRevision, 3), (Target::ModRevision, 4), (Target::Lease, 0)];
    for (target, own) in numbers {
        for (relation, smaller, same, larger) in [
            (Relation::Equal, false, true, false),
            (Relation::NotEqual, true, false, true),
            (Relation::Greater, true, false, false),
            (Relation::Less, false, false, true),
        ] {
            for (other, expected) in [(own - 1, smaller), (own, same), (own + 1, larger)] {
                let shown = format!("{relation:?} {:?}", target(other));
                assert_eq!(holds(kv, key("a"), relation, target(other)).await, expected, "{shown}");
            }
        }
        assert!(holds(kv, key("not there"), Relation::Equal, target(0)).await, "{:?}", target(0));
        assert!(holds(kv, key("not there"), Relation::Greater, target(-1)).await, "{:?}", target(-1));
    }
    for (value, relation, expected) in [
        ("a", Relation::Greater, true),
        ("b", Relation::Greater, false),
        ("b", Relation::Less, false),
        ("ba", Relation::Less, true),
        ("c", Relation::NotEqual, true),
    ] {
        assert_eq!(holds(kv, key("a"), relation, Target::Value(value.into())).await, expected, "{relation:?} {value}");
        let absent = holds(kv, key("not there"), relation, Target::Value(value.into())).await;
        assert!(!absent, "what is not there compares with no value, not even with {relation:?}");
    }
}

pub(crate) async fn a_comparison_of_a_range_holds_for_every_key_in_it(kv: &SharedKv) {
    for name in ["p/a", "p/b", "q"] {
        put(kv, name, "same").await;
    }
    put(kv, "p/b", "same").await;
    let same = || Target::Value("same".into());
    assert!(holds(kv, prefix("p/"), Relation::Equal, same()).await);
    assert!(holds(kv, prefix("p/"), Relation::Less, Target::Version(3)).await);
    assert!(!holds(kv, prefix("p/"), Relation::Equal, Target::Version(1)).await);
    assert!(holds(kv, prefix("empty/"), Relation::Equal, Target::Version(0)).await);
    assert!(!holds(kv, prefix("empty/"), Relation::Equal, same()).await);
}

fn keeping(name: &str, value: Option<&str>, lease: Option<LeaseId>) -> Op {
    let value = value.map(|value| value.to_owned().into());
    Op::PutWith(Put { key: name.to_owned().into(), value, lease })
}

pub(crate) async fn a_put_can_keep_the_value_or_the_lease(kv: &SharedKv) {
    let lease = kv.lease_grant(LeaseId::NONE, 60).await.unwrap().id;
    commit(kv, vec![keeping("a", Some("1"), Some(lease))]).await;
    commit(kv, vec![keeping("a", Some("2"), None)]).await;
    let kept = get(kv, "a").await.unwrap();
    assert_eq!((&kept.value[..], kept.lease, kept.version), (&b"2"[..], lease, 2));
    commit(kv, vec![keeping("a", None, Some(LeaseId::NONE))]).await;
    let kept = get(kv, "a").await.unwrap();
    assert_eq!((&kept.value[..], kept.lease, kept.version), (&b"2"[..], LeaseId::NONE, 3));
}

pub(crate) async fn a_put_that_keeps_what_is_not_there_is_refused(kv: &SharedKv) {
    for op in [keeping("a", None, Some(LeaseId::NONE)), keeping("a", Some("1"), None)] {
        let refused = kv.txn(Txn { then: vec![put_op("b", "1"), op], ..Txn::default() }).await;
        assert!(matches!(refused, Err(KvError::KeyNotFound { .. })), "{refused:?}");
    }
    assert_eq!(kv.range(RangeRequest::prefix("")).await.unwrap().revision, Revision(1));
}

fn inner(compare: Vec<Compare>, then: Vec<Op>, otherwise: Vec<Op>) -> Op {
    Op::Txn(Box::new(Txn { compare, then, otherwise }))
}

pub(crate) async fn an_inner_transaction_compares_what_was_before_the_outer_one(kv: &SharedKv) {
    let absent = |name: &str| vec![Compare::ModRevision { key: name.to_owned().into(), equals: Revision(0) }];
    let read = || Op::Range(RangeRequest::prefix(""));
    let deep = inner(absent("b"), vec![put_op("c", "3"), read()], vec![]);
    let ops = vec![put_op("a", "1"), inner(absent("a"), vec![put_op("b", "2"), deep], vec![]), read()];
    let response = commit(kv, ops).await;
    assert_eq!(response.revision, Revision(2), "all of it is one revision");
    let OpResponse::Txn(outer) = &response.responses[1] else { panic!("a transaction is answered by one") };
    let OpResponse::Txn(deep) = &outer.responses[1] else { panic!("a transaction is answered by one") };
    assert!(outer.succeeded && deep.succeeded, "neither key was there before");
    let OpResponse::Range(seen) = &deep.responses[1] else { panic!("a read is answered by a range") };
    let seen: Vec<_> = seen.kvs.iter().map(shown).collect();
    assert_eq!(seen, ["a=1@2", "b=2@2", "c=3@2"], "reads see the writes before them");
    let otherwise = vec![put_op("d", "else")];
    let response = commit(kv, vec![inner(absent("a"), vec![put_op("d", "then")], otherwise)]).await;
    let OpResponse::Txn(taken) = &response.responses[0] else { panic!("a transaction is answered by one") };
    assert!(!taken.succeeded);
    assert_eq!(get(kv, "d").await.unwrap().value, "else");
}

pub(crate) async fn a_transaction_with_too_many_steps_inside_is_refused(kv: &SharedKv) {
    let many = (0..100).map(|n| put_op(&n.to_string(), "")).collect();
    let more = (0..100).map(|n| put_op(&format!("more {n}"), "")).collect();
    let refused = kv.txn(Txn { then: vec![inner(vec![], many, vec![inner(vec![], more, vec![])])], ..Txn::default() });
    let refused = refused.await;
    assert!(matches!(refused, Err(KvError::Invalid { .. })), "{refused:?}");
    let clash = vec![inner(vec![], vec![put_op("a", "1")], vec![]), put_op("a", "2")];
    let refused = kv.txn(Txn { then: clash, ..Txn::default() }).await;
    assert!(matches!(refused, Err(KvError::Invalid { .. })), "{refused:?}");
    let either = vec![inner(vec![], vec![put_op("a", "1")], vec![put_op("a", "2")])];
    assert_eq!(commit(kv, either).await.revision, Revision(2), "only one of two branches is taken");
}

/// etcd lets an inner deletion follow an inner put of the same key; ours would have two changes of one revision.
pub(crate) async fn a_key_is_written_once_in_a_transaction_however_deep(kv: &SharedKv) {
    let then = vec![inner(vec![], vec![put_op("a", "1")], vec![]), inner(vec![], vec![Op::Delete(prefix(""))], vec![])];
    let refused = kv.txn(Txn { then, ..Txn::default() }).await;
    assert!(matches!(refused, Err(KvError::Invalid { .. })), "{refused:?}");
    let mut deep = vec![];
    (0..=reeve_store::TXN_DEPTH_MAX).for_each(|_| deep = vec![inner(vec![], std::mem::take(&mut deep), vec![])]);
    let refused = kv.txn(Txn { then: deep, ..Txn::default() }).await;
    assert!(matches!(refused, Err(KvError::Invalid { .. })), "{refused:?}");
}

async fn keys(kv: &SharedKv, request: RangeRequest) -> (String, usize, bool) {
    let response = kv.range(request).await.unwrap();
    let keys: Vec<_> = response.kvs.iter().map(|kv| kv.key.escape_ascii().to_string()).collect();
    (keys.join(" "), response.count, response.more)
}

/// a: version 1, created 2, changed 2, value "z"; b: 3, 3, 6, "x"; c: 1, 7, 7, "y".
async fn three_keys(kv: &SharedKv) {
    put(kv, "a", "z").await;
    put(kv, "b", "1").await;
    put(kv, "b", "2").await;
    put(kv, "b", "3").await;
    delete(kv, key("not there")).await;
    put(kv, "b", "x").await;
    put(kv, "c", "y").await;
}

fn sorted(target: SortTarget, order: SortOrder) -> RangeRequest {
    RangeRequest { sort: Sort { target, order }, ..RangeRequest::prefix("") }
}

pub(crate) async fn a_range_is_sorted_by_what_is_asked_for(kv: &SharedKv) {
    three_keys(kv).await;
    for (target, ascending, descending) in [
        (SortTarget::Key, "a b c", "c b a"),
        (SortTarget::Version, "a c b", "b a c"),
        (SortTarget::CreateRevision, "a b c", "c b a"),
        (SortTarget::ModRevision, "a b c", "c b a"),
        (SortTarget::Value, "b c a", "a c b"),
    ] {
        for (order, expected) in [(SortOrder::Ascending, ascending), (SortOrder::Descending, descending)] {
            let read = keys(kv, sorted(target, order)).await;
            assert_eq!(read, (expected.to_owned(), 3, false), "{target:?} {order:?}");
            let old = RangeRequest { revision: Some(Revision(7)), keys_only: true, ..sorted(target, order) };
            put(kv, "later", "").await;
            assert_eq!(keys(kv, old).await.0, expected, "{target:?} {order:?} in the past");
            delete(kv, key("later")).await;
        }
    }
}

pub(crate) async fn a_limit_cuts_after_sorting(kv: &SharedKv) {
    three_keys(kv).await;
    let first = RangeRequest { limit: 1, ..sorted(SortTarget::Value, SortOrder::Ascending) };
    assert_eq!(keys(kv, first.clone()).await, ("b".to_owned(), 3, true));
    let last = RangeRequest { limit: 2, ..sorted(SortTarget::ModRevision, SortOrder::Descending) };
    assert_eq!(keys(kv, last).await, ("c b".to_owned(), 3, true));
    let whole = RangeRequest { limit: 3, ..first };
    assert_eq!(keys(kv, whole).await, ("b c a".to_owned(), 3, false));
    // Without a direction the limit is what is read, and that is sorted.
    let unsaid = RangeRequest { limit: 1, ..sorted(SortTarget::Value, SortOrder::Unsaid) };
    assert_eq!(keys(kv, unsaid).await, ("b".to_owned(), 3, true));
    let unsaid = RangeRequest { limit: 1, ..sorted(SortTarget::Version, SortOrder::Unsaid) };
    assert_eq!(keys(kv, unsaid).await, ("a".to_owned(), 3, true));
}

pub(crate) async fn a_range_leaves_out_keys_by_their_revisions(kv: &SharedKv) {
    three_keys(kv).await;
    let filtered = |filter| RangeRequest { filter, ..RangeRequest::prefix("") };
    let none = RevisionFilter::default();
    for (filter, expected) in [
        (RevisionFilter { min_mod: 3, ..none }, "b c"),
        (RevisionFilter { max_mod: 6, ..none }, "a b"),
        (RevisionFilter { min_create: 3, ..none }, "b c"),
        (RevisionFilter { max_create: 2, ..none }, "a"),
        (RevisionFilter { min_create: 3, max_mod: 6, ..none }, "b"),
        (RevisionFilter { min_mod: 99, ..none }, ""),
    ] {
        let read = keys(kv, filtered(filter)).await;
        assert_eq!(read, (expected.to_owned(), 3, false), "{filter:?}: what is left out is counted");
        let one = keys(kv, RangeRequest { limit: 1, ..filtered(filter) }).await;
        assert_eq!((one.0.as_str(), one.2), (expected.get(..1).unwrap_or(""), expected.len() > 1), "{filter:?}");
    }
    let single = RangeRequest { filter: RevisionFilter { min_mod: 3, ..none }, ..RangeRequest::key("a") };
    assert_eq!(keys(kv, single).await, (String::new(), 1, false));
}

pub(crate) async fn a_range_from_a_key_has_no_end(kv: &SharedKv) {
    for name in ["a", "b", "c"] {
        put(kv, name, "").await;
    }
    let all_from = |name: &str| KeyRange::From(name.to_owned().into());
    assert_eq!(keys(kv, RangeRequest::new(all_from("b"))).await, ("b c".to_owned(), 2, false));
    let mut stream = watch(kv, all_from("b"), Some(Revision(2))).await;
    assert_eq!(until(&mut stream, Revision(4)).await.len(), 2);
    let response = delete(kv, all_from("b")).await;
    assert!(matches!(&response.responses[0], OpResponse::Delete { previous } if previous.len() == 2));
    assert_eq!(keys(kv, RangeRequest::prefix("")).await.0, "a");
    let old = RangeRequest { revision: Some(Revision(4)), ..RangeRequest::new(all_from("bb")) };
    assert_eq!(keys(kv, old).await.0, "c");
}

pub(crate) async fn a_range_the_wrong_way_round_is_empty(kv: &SharedKv) {
    put(kv, "b", "").await;
    put(kv, "c", "").await;
    for (start, end) in [("c", "a"), ("b", "b")] {
        let range = KeyRange::Span { start: start.into(), end: end.into() };
        assert_eq!(keys(kv, RangeRequest::new(range.clone())).await, (String::new(), 0, false));
        let old = RangeRequest { revision: Some(Revision(2)), ..RangeRequest::new(range.clone()) };
        assert_eq!(keys(kv, old).await, (String::new(), 0, false));
        assert_eq!(delete(kv, range).await.revision, Revision(3), "nothing is deleted");
    }
}

/// etcd 18089 and 19179: etcd 3.4 still misses the deletion.
pub(crate) async fn compaction_at_a_deletion_shows_the_deletion_to_a_watch_from_there(kv: &SharedKv) {
    put(kv, "a", "1").await;
    let deleted = delete(kv, key("a")).await.revision;
    let last = put(kv, "b", "2").await;
    kv.compact(deleted).await.unwrap();
    kv.scrubbed(deleted).await.unwrap();
    let mut stream = watch(kv, prefix(""), Some(deleted)).await;
    let events: Vec<_> = until(&mut stream, last).await.iter().map(shown_event).collect();
    assert_eq!(events, ["delete a@3", "put b=2@4"]);
}

/// etcd 18667.
pub(crate) async fn a_read_of_the_compacted_past_in_a_transaction_fails_it_whole(kv: &SharedKv) {
    for n in 0..5 {
        put(kv, "a", &n.to_string()).await;
    }
    kv.compact(Revision(4)).await.unwrap();
    let read = |revision| Op::Range(RangeRequest { revision: Some(revision), ..RangeRequest::key("a") });
    for deep in [false, true] {
        let old = if deep { inner(vec![], vec![read(Revision(3))], vec![]) } else { read(Revision(3)) };
        let refused = kv.txn(Txn { then: vec![put_op("b", "1"), old], ..Txn::default() }).await;
        assert!(matches!(refused, Err(KvError::Compacted { .. })), "{refused:?}");
        assert_eq!(get(kv, "b").await, None);
    }
    assert!(commit(kv, vec![put_op("b", "1"), read(Revision(4))]).await.succeeded);
}

/// etcd 20221.
pub(crate) async fn a_watch_from_the_future_gets_nothing_before_its_revision(kv: &SharedKv) {
    put(kv, "a", "old").await;
    let mut stream = watch(kv, prefix(""), Some(Revision(5))).await;
    put(kv, "a", "3").await;
    put(kv, "a", "4").await;
    let early = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    if let Ok(batch) = early {
        panic!("told before its revision: {batch:?}");
    }
    put(kv, "a", "5").await;
    let first = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(first.events.iter().map(shown_event).collect::<Vec<_>>(), ["put a=5@5"]);
}

pub(crate) async fn what_is_compacted_is_scrubbed(kv: &SharedKv) {
    for n in 0..300 {
        put(kv, &format!("k{}", n % 3), &n.to_string()).await;
    }
    kv.compact(Revision(250)).await.unwrap();
    kv.scrubbed(Revision(250)).await.unwrap();
    assert_eq!(at(kv, prefix(""), Revision(250)).await.unwrap().len(), 3);
}
