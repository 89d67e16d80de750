//! What every implementation of `Kv` promises, as tests that take any of them. A failing name says which
//! promise which implementation broke. Source of the promises: `etcd.io/docs/v3.6/learning/api_guarantees`.

use std::time::Duration;

use futures::StreamExt as _;
use reeve_store::{
    Compare, Event, EventKind, KeyRange, KeyValue, KvError, LeaseId, Limits, Op, OpResponse, RangeRequest, Revision,
    SharedKv, Txn, TxnResponse, WatchBatch, WatchRequest, WatchStream,
};

mod leases;
mod txns;

pub(crate) use leases::*;
pub(crate) use txns::*;

/// Expands to one test per promise, in a module of the implementation's name.
/// The second argument is an async function from [`Limits`] to something that derefs to a store.
macro_rules! store_suite {
    ($name:ident, $open:path) => {
        crate::suite::store_suite!($name, $open,
            history_is_bounded_without_anybody_asking,
            a_watcher_that_does_not_read_is_cut_off_without_a_gap,
            a_key_is_written_once_in_a_transaction_however_deep,
            an_uncounted_page_looks_no_further_than_what_decides,
            compaction_at_a_deletion_shows_the_deletion_to_a_watch_from_there,
        );
    };
    // Without what only our own stores promise, but what is named.
    ($name:ident, $open:path, $($own:ident),* $(,)?) => {
        mod $name {
            crate::suite::store_suite!(@tests $open: $($own,)*
                an_empty_store_stands_at_revision_1,
                a_put_is_read_back_with_its_revisions,
                a_transaction_takes_one_revision_however_much_it_writes,
                a_transaction_that_changes_nothing_takes_no_revision,
                only_one_of_two_creations_of_a_key_succeeds,
                an_update_on_a_stale_revision_takes_the_other_branch,
                a_comparison_sees_the_value,
                a_read_in_a_transaction_sees_the_writes_before_it,
                a_read_in_a_transaction_can_look_back,
                a_transaction_that_breaks_a_rule_writes_nothing,
                a_range_is_ordered_limited_and_counted,
                a_range_can_leave_out_values_or_keys,
                a_span_pages_through_a_prefix,
                a_read_at_an_old_revision_shows_the_past,
                a_key_that_comes_back_is_created_again,
                deleting_a_prefix_deletes_what_is_in_it_and_nothing_else,
                keys_and_values_of_any_bytes_survive,
                a_large_value_survives,
                compaction_hides_the_past_and_keeps_the_present,
                compaction_forgets_deleted_keys_but_not_living_ones,
                a_watch_sees_every_change_once_and_in_order,
                a_watch_from_an_old_revision_gets_what_it_missed_then_what_comes,
                a_watch_from_an_old_revision_gets_large_changes_in_pieces,
                a_watch_from_a_future_revision_waits_for_it,
                a_watch_never_splits_a_revision,
                a_watch_tells_progress_when_others_change,
                a_watch_carries_the_former_state_if_asked,
                a_watch_below_the_compaction_point_ends_with_compacted,
                concurrent_increments_lose_nothing,
                every_comparison_compares_what_it_says,
                a_comparison_of_a_range_holds_for_every_key_in_it,
                a_put_can_keep_the_value_or_the_lease,
                a_put_that_keeps_what_is_not_there_is_refused,
                an_inner_transaction_compares_what_was_before_the_outer_one,
                a_transaction_with_too_many_steps_inside_is_refused,
                a_range_is_sorted_by_what_is_asked_for,
                a_limit_cuts_after_sorting,
                a_range_leaves_out_keys_by_their_revisions,
                a_range_from_a_key_has_no_end,
                a_range_the_wrong_way_round_is_empty,
                a_read_of_the_compacted_past_in_a_transaction_fails_it_whole,
                a_watch_from_the_future_gets_nothing_before_its_revision,
                what_is_compacted_is_scrubbed,
                a_lease_is_granted_once_and_listed,
                a_lease_takes_its_keys_along_in_one_revision,
                a_key_belongs_to_the_lease_of_its_last_put,
                a_put_to_a_lease_that_is_not_there_is_refused,
                a_lease_ends_when_nobody_keeps_it_alive,
                a_lease_that_is_kept_alive_stays,
                a_lease_of_nonsense_is_refused,
            );
        }
    };
    (@tests $open:path: $($test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let store = $open(crate::suite::limits()).await;
                crate::suite::$test(&store).await;
                store.close().await;
            }
        )*
    };
}
pub(crate) use store_suite;

/// Small enough that the tests reach them.
pub(crate) fn limits() -> Limits {
    Limits { history_max: 400, watch_buffer_max: 50, watchers_max: 100, ..Limits::default() }
}

// ## How the tests speak

async fn put(kv: &SharedKv, key: &str, value: &str) -> Revision {
    commit(kv, vec![put_op(key, value)]).await.revision
}

async fn delete(kv: &SharedKv, range: KeyRange) -> TxnResponse {
    commit(kv, vec![Op::Delete(range)]).await
}

async fn commit(kv: &SharedKv, then: Vec<Op>) -> TxnResponse {
    kv.txn(Txn { then, ..Txn::default() }).await.unwrap()
}

fn put_op(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned().into(), value: value.to_owned().into() }
}

fn key(key: &str) -> KeyRange {
    KeyRange::Key(key.to_owned().into())
}

fn prefix(prefix: &str) -> KeyRange {
    KeyRange::Prefix(prefix.to_owned().into())
}

async fn get(kv: &SharedKv, name: &str) -> Option<KeyValue> {
    kv.range(RangeRequest::key(name.to_owned())).await.unwrap().kvs.pop()
}

async fn at(kv: &SharedKv, range: KeyRange, revision: Revision) -> Result<Vec<String>, KvError> {
    let response = kv.range(RangeRequest { revision: Some(revision), ..RangeRequest::new(range) }).await?;
    Ok(response.kvs.iter().map(shown).collect())
}

fn shown(kv: &KeyValue) -> String {
    format!("{}={}@{}", kv.key.escape_ascii(), kv.value.escape_ascii(), kv.mod_revision)
}

fn shown_event(event: &Event) -> String {
    match event.kind {
        EventKind::Put => format!("put {}", shown(&event.kv)),
        EventKind::Delete => format!("delete {}@{}", event.kv.key.escape_ascii(), event.kv.mod_revision),
    }
}

async fn watch(kv: &SharedKv, range: KeyRange, start: Option<Revision>) -> WatchStream {
    kv.watch(WatchRequest { range, start, previous: false }).await.unwrap()
}

async fn next(stream: &mut WatchStream) -> Option<Result<WatchBatch, KvError>> {
    tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("the watch says nothing for 20 s")
}

/// Everything up to and including a revision.
async fn until(stream: &mut WatchStream, revision: Revision) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let batch = next(stream).await.expect("the watch ended").expect("the watch failed");
        events.extend(batch.events);
        if batch.revision >= revision {
            return events;
        }
    }
}

// ## Reading and writing

pub(crate) async fn an_empty_store_stands_at_revision_1(kv: &SharedKv) {
    let response = kv.range(RangeRequest::prefix("")).await.unwrap();
    assert_eq!((response.revision, response.count, kv.revision()), (Revision(1), 0, Revision(1)));
}

pub(crate) async fn a_put_is_read_back_with_its_revisions(kv: &SharedKv) {
    let first = put(kv, "a", "1").await;
    let second = put(kv, "a", "2").await;
    assert_eq!((first, second, kv.revision()), (Revision(2), Revision(3), Revision(3)));
    let expected = KeyValue {
        key: "a".into(),
        value: "2".into(),
        create_revision: first,
        mod_revision: second,
        version: 2,
        lease: LeaseId::NONE,
    };
    assert_eq!(get(kv, "a").await, Some(expected));
    assert_eq!(get(kv, "b").await, None);
}

pub(crate) async fn a_transaction_takes_one_revision_however_much_it_writes(kv: &SharedKv) {
    put(kv, "old", "").await;
    let response = commit(kv, vec![put_op("a", "1"), put_op("b", "2"), Op::Delete(key("old"))]).await;
    assert_eq!(response.revision, Revision(3));
    assert_eq!(at(kv, prefix(""), Revision(3)).await.unwrap(), ["a=1@3", "b=2@3"]);
    assert!(matches!(&response.responses[0], OpResponse::Put { previous: None }));
    assert!(matches!(&response.responses[2], OpResponse::Delete { previous } if previous.len() == 1));
}

pub(crate) async fn a_transaction_that_changes_nothing_takes_no_revision(kv: &SharedKv) {
    put(kv, "a", "1").await;
    let deletion = delete(kv, key("not there")).await;
    let read = commit(kv, vec![Op::Range(RangeRequest::key("a"))]).await;
    assert_eq!((deletion.revision, read.revision, kv.revision()), (Revision(2), Revision(2), Revision(2)));
    assert!(matches!(&read.responses[0], OpResponse::Range(range) if range.kvs.len() == 1));
}

fn create(name: &str, value: &str) -> Txn {
    Txn {
        compare: vec![Compare::ModRevision { key: name.to_owned().into(), equals: Revision(0) }],
        then: vec![put_op(name, value)],
        otherwise: vec![Op::Range(RangeRequest::key(name.to_owned()))],
    }
}

pub(crate) async fn only_one_of_two_creations_of_a_key_succeeds(kv: &SharedKv) {
    let (first, second) = tokio::join!(kv.txn(create("a", "1")), kv.txn(create("a", "2")));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.succeeded, second.succeeded);
    let loser = if first.succeeded { second } else { first };
    let OpResponse::Range(range) = &loser.responses[0] else { panic!("the loser reads") };
    assert_eq!(range.kvs[0], get(kv, "a").await.unwrap(), "the loser sees what the winner wrote");
}

pub(crate) async fn an_update_on_a_stale_revision_takes_the_other_branch(kv: &SharedKv) {
    let stale = put(kv, "a", "1").await;
    let fresh = put(kv, "a", "2").await;
    for (revision, expected) in [(stale, false), (fresh, true)] {
        let compare = vec![Compare::ModRevision { key: "a".into(), equals: revision }];
        let response = kv.txn(Txn { compare, then: vec![put_op("a", "3")], otherwise: vec![] }).await.unwrap();
        assert_eq!(response.succeeded, expected, "compared with {revision}");
    }
    assert_eq!(get(kv, "a").await.unwrap().version, 3);
}

pub(crate) async fn a_comparison_sees_the_value(kv: &SharedKv) {
    put(kv, "a", "1").await;
    for (value, expected) in [("1", true), ("2", false)] {
        let compare = vec![Compare::Value { key: "a".into(), equals: value.into() }];
        let response = kv.txn(Txn { compare, then: vec![], otherwise: vec![] }).await.unwrap();
        assert_eq!(response.succeeded, expected, "compared with {value}");
    }
    let compare = vec![Compare::Value { key: "not there".into(), equals: "".into() }];
    assert!(!kv.txn(Txn { compare, ..Txn::default() }).await.unwrap().succeeded);
}

pub(crate) async fn a_read_in_a_transaction_sees_the_writes_before_it(kv: &SharedKv) {
    commit(kv, vec![put_op("p/a", "1"), put_op("p/b", "2"), put_op("q", "3")]).await;
    let read = || Op::Range(RangeRequest::prefix("p/"));
    let response = commit(kv, vec![put_op("p/c", "3"), Op::Delete(key("p/a")), read(), put_op("p/d", "4")]).await;
    let OpResponse::Range(range) = &response.responses[2] else { panic!("a read is answered by a range") };
    assert_eq!(range.kvs.iter().map(shown).collect::<Vec<_>>(), ["p/b=2@2", "p/c=3@3"]);
}

pub(crate) async fn a_read_in_a_transaction_can_look_back(kv: &SharedKv) {
    let old = put(kv, "a", "1").await;
    put(kv, "a", "2").await;
    let read = |revision| Op::Range(RangeRequest { revision: Some(revision), ..RangeRequest::key("a") });
    let response = commit(kv, vec![put_op("a", "3"), read(old)]).await;
    let OpResponse::Range(range) = &response.responses[1] else { panic!("a read is answered by a range") };
    assert_eq!(range.kvs.iter().map(shown).collect::<Vec<_>>(), ["a=1@2"]);
    let future = kv.txn(Txn { then: vec![put_op("a", "4"), read(Revision(99))], ..Txn::default() }).await;
    assert!(matches!(future, Err(KvError::Future { .. })), "{future:?}");
    assert_eq!(get(kv, "a").await.unwrap().value, "3", "a transaction that fails writes nothing");
}

pub(crate) async fn a_transaction_that_breaks_a_rule_writes_nothing(kv: &SharedKv) {
    let broken = [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("p/a", "1"), Op::Delete(prefix("p/"))],
        vec![put_op("a", "1"), put_op("", "2")],
        vec![put_op("a", &"x".repeat(reeve_store::TXN_BYTES_MAX))],
        (0..=reeve_store::TXN_OPS_MAX).map(|n| put_op(&n.to_string(), "")).collect(),
    ];
    for ops in broken {
        let outcome = kv.txn(Txn { then: ops, ..Txn::default() }).await;
        assert!(matches!(outcome, Err(KvError::Invalid { .. })), "{outcome:?}");
    }
    assert_eq!(kv.revision(), Revision(1));
}

pub(crate) async fn a_range_is_ordered_limited_and_counted(kv: &SharedKv) {
    for name in ["p/c", "p/a", "q/x", "p/b", "o"] {
        put(kv, name, name).await;
    }
    let response = kv.range(RangeRequest { limit: 2, ..RangeRequest::prefix("p/") }).await.unwrap();
    assert_eq!(response.kvs.iter().map(shown).collect::<Vec<_>>(), ["p/a=p/a@3", "p/b=p/b@5"]);
    assert_eq!((response.count, response.more, response.revision), (3, true, Revision(6)));
    let all = kv.range(RangeRequest::prefix("p/")).await.unwrap();
    assert_eq!((all.kvs.len(), all.count, all.more), (3, 3, false));
    for (limit, read, more) in [(1, 1, true), (2, 2, true), (3, 3, false), (4, 3, false)] {
        let page = RangeRequest { limit, uncounted: true, ..RangeRequest::prefix("p/") };
        let page = kv.range(page).await.unwrap();
        assert_eq!((page.kvs.len(), page.more), (read, more), "limit {limit}");
    }
}

pub(crate) async fn an_uncounted_page_looks_no_further_than_what_decides(kv: &SharedKv) {
    for name in ["a", "b", "c", "d", "e"] {
        put(kv, name, name).await;
    }
    for limit in 1..=5 {
        let page = kv.range(RangeRequest { limit, uncounted: true, ..RangeRequest::prefix("") }).await.unwrap();
        assert_eq!((page.kvs.len(), page.count), (limit, 5.min(limit + 1)), "limit {limit}");
    }
}

pub(crate) async fn a_range_can_leave_out_values_or_keys(kv: &SharedKv) {
    put(kv, "p/a", "1").await;
    put(kv, "p/b", "2").await;
    let keys = kv.range(RangeRequest { keys_only: true, ..RangeRequest::prefix("p/") }).await.unwrap();
    assert_eq!(keys.kvs.iter().map(shown).collect::<Vec<_>>(), ["p/a=@2", "p/b=@3"]);
    let key_only = kv.range(RangeRequest { keys_only: true, ..RangeRequest::key("p/a") }).await.unwrap();
    assert_eq!(key_only.kvs.iter().map(shown).collect::<Vec<_>>(), ["p/a=@2"]);
    let count = kv.range(RangeRequest { count_only: true, ..RangeRequest::prefix("p/") }).await.unwrap();
    assert_eq!((count.kvs.len(), count.count, count.more), (0, 2, false));
}

pub(crate) async fn a_span_pages_through_a_prefix(kv: &SharedKv) {
    for n in 0..10 {
        put(kv, &format!("p/{n}"), "").await;
    }
    let (mut start, mut seen) = ("p/".to_owned(), Vec::new());
    loop {
        let range = KeyRange::Span { start: start.clone().into(), end: "p0".into() };
        let request = RangeRequest { revision: Some(Revision(11)), limit: 3, ..RangeRequest::new(range) };
        let page = kv.range(request).await.unwrap();
        seen.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        put(kv, &format!("p/later-{}", seen.len()), "").await; // not part of the snapshot that is paged
        if !page.more {
            break;
        }
        start = format!("{}\0", seen.last().unwrap().escape_ascii());
    }
    let expected: Vec<String> = (0..10).map(|n| format!("p/{n}")).collect();
    assert_eq!(seen, expected);
}

pub(crate) async fn a_read_at_an_old_revision_shows_the_past(kv: &SharedKv) {
    for n in 0..20 {
        put(kv, "a", &n.to_string()).await; // more versions than a scan steps over
    }
    put(kv, "b", "x").await;
    delete(kv, key("a")).await;
    assert_eq!(at(kv, prefix(""), Revision(5)).await.unwrap(), ["a=3@5"]);
    assert_eq!(at(kv, prefix(""), Revision(22)).await.unwrap(), ["a=19@21", "b=x@22"]);
    assert_eq!(at(kv, prefix(""), Revision(23)).await.unwrap(), ["b=x@22"]);
    assert_eq!(at(kv, prefix(""), Revision(1)).await.unwrap(), [""; 0]);
    let future = at(kv, prefix(""), Revision(24)).await;
    assert!(matches!(future, Err(KvError::Future { requested: Revision(24), newest: Revision(23) })), "{future:?}");
}

pub(crate) async fn a_key_that_comes_back_is_created_again(kv: &SharedKv) {
    put(kv, "a", "1").await;
    delete(kv, key("a")).await;
    put(kv, "a", "2").await;
    let again = get(kv, "a").await.unwrap();
    assert_eq!((again.create_revision, again.mod_revision, again.version), (Revision(4), Revision(4), 1));
}

pub(crate) async fn deleting_a_prefix_deletes_what_is_in_it_and_nothing_else(kv: &SharedKv) {
    commit(kv, vec![put_op("p", "0"), put_op("p/a", "1"), put_op("p/b", "2"), put_op("p0", "3")]).await;
    let response = delete(kv, prefix("p/")).await;
    let OpResponse::Delete { previous } = &response.responses[0] else { panic!("a deletion is answered by one") };
    assert_eq!(previous.iter().map(shown).collect::<Vec<_>>(), ["p/a=1@2", "p/b=2@2"]);
    assert_eq!(at(kv, prefix(""), Revision(3)).await.unwrap(), ["p=0@2", "p0=3@2"]);
}

pub(crate) async fn keys_and_values_of_any_bytes_survive(kv: &SharedKv) {
    let names: [&'static [u8]; 5] = [b"\0", b"\0\0", b"\0\xff", b"\xff", b"\xff\xff"];
    for name in names {
        let op = Op::Put { key: name.into(), value: name.into() };
        commit(kv, vec![op]).await;
    }
    let all = kv.range(RangeRequest::prefix("")).await.unwrap();
    assert_eq!(all.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), names);
    assert!(all.kvs.iter().all(|kv| kv.key == kv.value));
    let tail = kv.range(RangeRequest::prefix(&b"\xff"[..])).await.unwrap();
    assert_eq!(tail.count, 2);
}

pub(crate) async fn a_large_value_survives(kv: &SharedKv) {
    let large: String = (0..1_000_000).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
    put(kv, "p/a", "small").await;
    put(kv, "p/b", &large).await;
    put(kv, "p/c", "small").await;
    assert_eq!(get(kv, "p/b").await.unwrap().value, large);
    put(kv, "p/b", "small").await;
    assert_eq!(at(kv, prefix("p/"), Revision(3)).await.unwrap()[1], format!("p/b={large}@3"));
    kv.compact(Revision(5)).await.unwrap();
    assert_eq!(at(kv, prefix("p/"), Revision(5)).await.unwrap(), ["p/a=small@2", "p/b=small@5", "p/c=small@4"]);
}

// ## Compaction

pub(crate) async fn compaction_hides_the_past_and_keeps_the_present(kv: &SharedKv) {
    for n in 1..=5 {
        put(kv, "a", &n.to_string()).await;
    }
    put(kv, "b", "x").await;
    kv.compact(Revision(5)).await.unwrap();
    assert_eq!(at(kv, prefix(""), Revision(5)).await.unwrap(), ["a=4@5"]);
    assert_eq!(at(kv, prefix(""), Revision(7)).await.unwrap(), ["a=5@6", "b=x@7"]);
    let past = at(kv, prefix(""), Revision(4)).await;
    assert!(matches!(past, Err(KvError::Compacted { requested: Revision(4), compacted: Revision(5) })), "{past:?}");
    assert!(matches!(kv.compact(Revision(5)).await, Err(KvError::Compacted { .. })));
    assert!(matches!(kv.compact(Revision(99)).await, Err(KvError::Future { .. })));
    assert_eq!(kv.revision(), Revision(7), "compaction takes no revision");
}

pub(crate) async fn compaction_forgets_deleted_keys_but_not_living_ones(kv: &SharedKv) {
    put(kv, "lives", "1").await;
    put(kv, "dies", "1").await;
    delete(kv, key("dies")).await;
    for n in 0..10 {
        let revision = put(kv, "busy", &n.to_string()).await;
        kv.compact(revision).await.unwrap();
    }
    assert_eq!(at(kv, prefix(""), kv.revision()).await.unwrap(), ["busy=9@14", "lives=1@2"]);
    let again = put(kv, "dies", "2").await;
    assert_eq!(get(kv, "dies").await.unwrap().create_revision, again);
}

pub(crate) async fn history_is_bounded_without_anybody_asking(kv: &SharedKv) {
    let newest = 1 + 3 * limits().history_max;
    for n in 1..newest {
        put(kv, "a", &n.to_string()).await;
    }
    let kept = Revision(newest - limits().history_max);
    assert_eq!(at(kv, prefix(""), kept).await.unwrap().len(), 1);
    let oldest = at(kv, prefix(""), Revision(newest - 2 * limits().history_max)).await;
    assert!(matches!(oldest, Err(KvError::Compacted { .. })), "{oldest:?}");
}

// ## Watching

pub(crate) async fn a_watch_sees_every_change_once_and_in_order(kv: &SharedKv) {
    let mut stream = watch(kv, prefix("p/"), None).await;
    put(kv, "p/a", "1").await;
    put(kv, "other", "x").await;
    put(kv, "p/a", "2").await;
    delete(kv, key("p/a")).await;
    let last = put(kv, "p/b", "3").await;
    let events: Vec<_> = until(&mut stream, last).await.iter().map(shown_event).collect();
    assert_eq!(events, ["put p/a=1@2", "put p/a=2@4", "delete p/a@5", "put p/b=3@6"]);
}

pub(crate) async fn a_watch_from_an_old_revision_gets_what_it_missed_then_what_comes(kv: &SharedKv) {
    for n in 0..300 {
        put(kv, &format!("p/{}", n % 7), &n.to_string()).await; // more than a batch of history
    }
    let mut stream = watch(kv, prefix("p/"), Some(Revision(2))).await;
    let missed = until(&mut stream, Revision(301)).await;
    for n in 300..320 {
        put(kv, &format!("p/{}", n % 7), &n.to_string()).await;
    }
    let came = until(&mut stream, Revision(321)).await;
    let revisions: Vec<u64> = missed.iter().chain(&came).map(|event| event.kv.mod_revision.0).collect();
    assert_eq!(revisions, (2..=321).collect::<Vec<_>>());
    assert_eq!(missed[6].kv.value, "6");
}

pub(crate) async fn a_watch_from_an_old_revision_gets_large_changes_in_pieces(kv: &SharedKv) {
    let large = "x".repeat(400_000);
    for n in 0..8 {
        commit(kv, vec![put_op("a", &large), put_op("b", &n.to_string())]).await;
    }
    let mut stream = watch(kv, prefix(""), Some(Revision(2))).await;
    let first = next(&mut stream).await.unwrap().unwrap();
    assert!(first.events.len() < 16, "more than three megabytes at once");
    let rest = until(&mut stream, Revision(9)).await;
    let revisions: Vec<u64> = first.events.iter().chain(&rest).map(|event| event.kv.mod_revision.0).collect();
    assert_eq!(revisions, (2..=9).flat_map(|r| [r, r]).collect::<Vec<_>>());
}

pub(crate) async fn a_watch_from_a_future_revision_waits_for_it(kv: &SharedKv) {
    let mut stream = watch(kv, prefix(""), Some(Revision(4))).await;
    for n in 2..=5 {
        put(kv, "a", &n.to_string()).await;
    }
    let events: Vec<_> = until(&mut stream, Revision(5)).await.iter().map(shown_event).collect();
    assert_eq!(events, ["put a=4@4", "put a=5@5"]);
}

pub(crate) async fn a_watch_never_splits_a_revision(kv: &SharedKv) {
    let mut live = watch(kv, prefix(""), None).await;
    for n in 0..40 {
        commit(kv, (0..20).map(|k| put_op(&k.to_string(), &n.to_string())).collect()).await;
        if n % 2 == 0 {
            check_whole_revisions(&mut live, Revision(2 + n)).await;
        }
    }
    let mut old = watch(kv, prefix(""), Some(Revision(2))).await;
    check_whole_revisions(&mut old, kv.revision()).await;
}

async fn check_whole_revisions(stream: &mut WatchStream, last: Revision) {
    loop {
        let batch = next(stream).await.unwrap().unwrap();
        assert_eq!(batch.events.len() % 20, 0, "the batch up to {} holds parts of a revision", batch.revision);
        assert!(batch.events.iter().all(|event| event.kv.mod_revision <= batch.revision));
        if batch.revision >= last {
            return;
        }
    }
}

pub(crate) async fn a_watch_tells_progress_when_others_change(kv: &SharedKv) {
    let mut stream = watch(kv, prefix("p/"), None).await;
    let revision = put(kv, "other", "x").await;
    let batch = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(batch, WatchBatch { revision, events: vec![] });
}

pub(crate) async fn a_watch_carries_the_former_state_if_asked(kv: &SharedKv) {
    let request = |start| WatchRequest { range: prefix(""), start, previous: true };
    let mut live = kv.watch(request(None)).await.unwrap();
    put(kv, "a", "1").await;
    put(kv, "a", "2").await;
    let last = delete(kv, key("a")).await.revision;
    let mut old = kv.watch(request(Some(Revision(2)))).await.unwrap();
    for stream in [&mut live, &mut old] {
        let events = until(stream, last).await;
        let former: Vec<_> = events.iter().map(|event| event.previous.as_ref().map(shown)).collect();
        assert_eq!(former, [None, Some("a=1@2".to_owned()), Some("a=2@3".to_owned())]);
    }
}

pub(crate) async fn a_watch_below_the_compaction_point_ends_with_compacted(kv: &SharedKv) {
    for n in 0..5 {
        put(kv, "a", &n.to_string()).await;
    }
    kv.compact(Revision(4)).await.unwrap();
    let mut stream = watch(kv, prefix(""), Some(Revision(3))).await;
    assert!(matches!(next(&mut stream).await, Some(Err(KvError::Compacted { .. }))));
    assert!(next(&mut stream).await.is_none());
    let mut stream = watch(kv, prefix(""), Some(Revision(4))).await;
    assert_eq!(until(&mut stream, Revision(6)).await.len(), 3, "the compaction point itself can be watched from");
}

pub(crate) async fn a_watcher_that_does_not_read_is_cut_off_without_a_gap(kv: &SharedKv) {
    let mut stream = watch(kv, prefix(""), None).await;
    put(kv, "a", "seen").await;
    assert_eq!(until(&mut stream, Revision(2)).await.len(), 1);
    for n in 0..=limits().watch_buffer_max {
        put(kv, "a", &n.to_string()).await;
    }
    match next(&mut stream).await {
        Some(Err(KvError::SlowWatcher { behind })) => assert!(behind > limits().watch_buffer_max),
        other => panic!("what it has not read must not come in part: {other:?}"),
    }
    assert!(next(&mut stream).await.is_none());
    let mut again = watch(kv, prefix(""), Some(Revision(3))).await;
    assert_eq!(until(&mut again, kv.revision()).await.len(), 1 + limits().watch_buffer_max);
}

// ## Together

pub(crate) async fn concurrent_increments_lose_nothing(kv: &SharedKv) {
    put(kv, "counter", "0").await;
    let increment = |kv: SharedKv| async move {
        for _ in 0..10 {
            loop {
                let old = get(&kv, "counter").await.unwrap();
                let n: u64 = std::str::from_utf8(&old.value).unwrap().parse().unwrap();
                let compare = vec![Compare::ModRevision { key: "counter".into(), equals: old.mod_revision }];
                let then = vec![put_op("counter", &(n + 1).to_string())];
                if kv.txn(Txn { compare, then, otherwise: vec![] }).await.unwrap().succeeded {
                    break;
                }
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(increment(kv.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counter = get(kv, "counter").await.unwrap();
    assert_eq!((&counter.value[..], counter.version), (&b"80"[..], 81));
}
