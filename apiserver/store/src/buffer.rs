//! A view that keeps its latest records in memory and hands them on to another one now and then, in the order of their
//! keys. What a death of the process takes of it is replayed from the log, of which nothing is cut before
//! [`View::settle`] has run ([`crate::member`]).
//!
//! It hands on in three steps, each in small batches, of which the base need not make a whole: new records, then the
//! position they lead to, then removals. Killed in the first step it leaves records of revisions
//! behind the position, which nobody reads and the replay writes again; in the last one records that a scrub finds
//! again, for they go in reverse order: the states of keys before the history that leads to them.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use imbl::OrdMap;

use crate::encoding::POSITION_KEY;
use crate::view::{Scanner, View, ViewBatch, ViewError, Visit, Visitor};

/// Entries that are taken out of the buffer before others get their turn.
const RELEASE_STEP: usize = 256;
/// Records in a batch of the base.
const SETTLE_STEP: usize = 256;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct BufferedView {
    base: Arc<dyn View>,
    buffer: RwLock<Buffer>,
    /// Held by whoever settles.
    settling: Mutex<()>,
    /// An [`View::apply`] that leaves more than this in the buffer settles before it returns.
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Buffer {
    /// What stands here counts, not what the base has under the same key.
    entries: OrdMap<Bytes, Entry>,
    bytes: usize,
    /// The number of the last batch.
    batch: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The batch it came with.
    batch: u64,
    /// `None`: the record is removed.
    value: Option<Bytes>,
}

impl Entry {
    fn bytes(&self, key_len: usize) -> usize {
        ENTRY_BYTES + key_len + self.value.as_ref().map_or(0, Bytes::len)
    }
}

impl Buffer {
    fn put(&mut self, key: Bytes, entry: Entry) {
        let len = key.len();
        self.bytes += entry.bytes(len);
        if let Some(old) = self.entries.insert(key, entry) {
            self.bytes -= old.bytes(len);
        }
    }

    /// Drops an entry that the base has, unless it has changed since `batch`.
    fn release(&mut self, key: &Bytes, batch: u64) {
        if self.entries.get(key).is_some_and(|entry| entry.batch <= batch)
            && let Some(old) = self.entries.remove(key)
        {
            self.bytes -= old.bytes(key.len());
        }
    }
}

impl BufferedView {
    pub(crate) fn new(base: Arc<dyn View>, bytes_max: usize) -> Self {
        Self { base, buffer: RwLock::default(), settling: Mutex::default(), bytes_max }
    }

    /// What is in the buffer, and the number of its last batch.
    fn entries(&self) -> (OrdMap<Bytes, Entry>, u64) {
        let buffer = self.buffer.read().unwrap_or_else(PoisonError::into_inner);
        (buffer.entries.clone(), buffer.batch)
    }

    fn walk(&self, from: &[u8], to: &[u8], walk: Walk, scanner: &mut Scanner<'_>) -> Result<(), ViewError> {
        // Taken before the base is read: what is settled meanwhile is seen here, there, or in both places.
        let (entries, _) = self.entries();
        let mut from = from.to_vec();
        while *from < *to {
            let bounds = (Bound::Included(&from[..]), Bound::Excluded(to));
            let mut merge = Merge { over: entries.range::<_, [u8]>(bounds).peekable(), seek: None, stopped: false };
            let mut show = |key: &[u8], record: Option<&[u8]>| {
                if merge.show_before(key, scanner) && !merge.hides(key) {
                    merge.show(scanner(key, record));
                }
                if merge.ended() { Visit::Stop } else { Visit::Next }
            };
            match walk {
                Walk::Visit => self.base.visit(&from, to, &mut |key, record| show(key, Some(record)))?,
                Walk::Scan => self.base.scan(&from, to, &mut show)?,
            }
            merge.show_rest(scanner);
            match merge.seek {
                Some(key) => from = key,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

/// What is wanted of the records of the base.
#[derive(Debug, Clone, Copy)]
enum Walk {
    /// All of them.
    Visit,
    /// What it has at hand.
    Scan,
}

impl View for BufferedView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        {
            let buffer = self.buffer.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = buffer.entries.get(key) {
                return Ok(entry.value.clone());
            }
        }
        self.base.get(key)
    }

    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        // Only a scan shows a key without its record.
        self.walk(from, to, Walk::Visit, &mut |key, record| visitor(key, record.unwrap_or_default()))
    }

    fn scan(&self, from: &[u8], to: &[u8], scanner: &mut Scanner<'_>) -> Result<(), ViewError> {
        self.walk(from, to, Walk::Scan, scanner)
    }

    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError> {
        let bytes = {
            let mut buffer = self.buffer.write().unwrap_or_else(PoisonError::into_inner);
            buffer.batch += 1;
            let number = buffer.batch;
            for (key, value) in batch.changes {
                buffer.put(key, Entry { batch: number, value });
            }
            buffer.bytes
        };
        if bytes > self.bytes_max { self.settle() } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), ViewError> {
        self.settle()?;
        self.base.sync()
    }

    fn unsettled(&self) -> usize {
        self.buffer.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    fn settle(&self) -> Result<(), ViewError> {
        let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let (entries, batch) = self.entries();
        let is_position = |key: &Bytes| key[..] == *POSITION_KEY;
        let (puts, removals): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, entry)| entry.value.is_some());
        let (position, puts): (Vec<_>, Vec<_>) = puts.into_iter().partition(|(key, _)| is_position(key));
        let removals: Vec<_> = removals.into_iter().rev().collect();
        let copied = |(key, entry): &(&Bytes, &Entry)| (Bytes::clone(key), entry.value.clone());
        for step in puts.chunks(SETTLE_STEP).chain([&position[..]]).chain(removals.chunks(SETTLE_STEP)) {
            if !step.is_empty() {
                self.base.apply(ViewBatch { changes: step.iter().map(copied).collect() })?;
            }
        }
        let keys: Vec<Bytes> = entries.keys().cloned().collect();
        drop((puts, position, removals));
        drop(entries);
        for step in keys.chunks(RELEASE_STEP) {
            let mut buffer = self.buffer.write().unwrap_or_else(PoisonError::into_inner);
            step.iter().for_each(|key| buffer.release(key, batch));
        }
        self.base.settle()
    }

    fn settle_gently(&self) -> Result<(), ViewError> {
        self.settle()?;
        self.base.settle_gently()
    }
}

/// One pass over base and buffer together.
struct Merge<'b, I: Iterator<Item = (&'b Bytes, &'b Entry)>> {
    over: Peekable<I>,
    /// Where the visitor wants to go on; ends the pass.
    seek: Option<Vec<u8>>,
    stopped: bool,
}

impl<'b, I: Iterator<Item = (&'b Bytes, &'b Entry)>> Merge<'b, I> {
    fn ended(&self) -> bool {
        self.stopped || self.seek.is_some()
    }

    fn show(&mut self, wanted: Visit) {
        match wanted {
            Visit::Next => {}
            Visit::Seek(key) => self.seek = Some(key),
            Visit::Stop => self.stopped = true,
        }
    }

    /// Shows what the buffer has before a record of the base; whether the pass goes on.
    fn show_before(&mut self, key: &[u8], scanner: &mut Scanner<'_>) -> bool {
        while let Some((over, entry)) = self.over.next_if(|(over, _)| over[..] < *key) {
            if let Some(value) = &entry.value {
                self.show(scanner(over, Some(value)));
                if self.ended() {
                    return false;
                }
            }
        }
        true
    }

    /// Whether the buffer has something else to say of a record of the base: it is shown then, if it is still there.
    fn hides(&mut self, key: &[u8]) -> bool {
        self.over.peek().is_some_and(|(over, _)| over[..] == *key)
    }

    fn show_rest(&mut self, scanner: &mut Scanner<'_>) {
        while !self.ended() {
            let Some((over, entry)) = self.over.next() else { return };
            if let Some(value) = &entry.value {
                self.show(scanner(over, Some(value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::MemoryView;

    fn batch(changes: &[(&str, Option<&str>)]) -> ViewBatch {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let owned = |(key, value): &(&str, Option<&str>)| (bytes(key), value.map(bytes));
        ViewBatch { changes: changes.iter().map(owned).collect() }
    }

    fn all(view: &dyn View) -> String {
        let mut seen = String::new();
        view.visit(b"", b"~", &mut |key, value| {
            seen += &format!("{}={} ", key.escape_ascii(), value.escape_ascii());
            Visit::Next
        })
        .unwrap();
        seen
    }

    #[test]
    fn settled_or_not_the_view_reads_the_same() {
        let base = MemoryView::default();
        let view = BufferedView::new(Arc::new(base.clone()), usize::MAX);
        view.apply(batch(&[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))])).unwrap();
        assert_eq!((all(&view), all(&base)), ("a=1 b=2 c=3 ".to_owned(), String::new()));
        view.settle().unwrap();
        assert_eq!((all(&view), view.unsettled()), (all(&base), 0));
        view.apply(batch(&[("a", None), ("b", Some("new")), ("d", Some("4"))])).unwrap();
        assert_eq!(all(&view), "b=new c=3 d=4 ");
        assert_eq!((view.get(b"a").unwrap(), view.get(b"b").unwrap()), (None, Some("new".into())));
        view.settle().unwrap();
        assert_eq!((all(&view), all(&base)), ("b=new c=3 d=4 ".to_owned(), "b=new c=3 d=4 ".to_owned()));
    }

    /// A base during whose batch somebody else writes to the view in front.
    #[derive(Debug)]
    struct Meanwhile {
        inner: MemoryView,
        front: RwLock<Option<Arc<BufferedView>>>,
    }

    impl View for Meanwhile {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
            self.inner.get(key)
        }

        fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
            self.inner.visit(from, to, visitor)
        }

        fn apply(&self, taken: ViewBatch) -> Result<(), ViewError> {
            if let Some(front) = self.front.write().unwrap().take() {
                front.apply(batch(&[("a", Some("later")), ("b", None)])).unwrap();
            }
            self.inner.apply(taken)
        }

        fn sync(&self) -> Result<(), ViewError> {
            self.inner.sync()
        }
    }

    #[test]
    fn what_is_written_while_it_settles_stays_in_front() {
        let base = Arc::new(Meanwhile { inner: MemoryView::default(), front: RwLock::default() });
        let view = Arc::new(BufferedView::new(base.clone(), usize::MAX));
        view.apply(batch(&[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))])).unwrap();
        *base.front.write().unwrap() = Some(view.clone());
        view.settle().unwrap();
        assert_eq!((all(&*view), all(&base.inner)), ("a=later c=3 ".to_owned(), "a=1 b=2 c=3 ".to_owned()));
        view.settle().unwrap();
        assert_eq!(all(&base.inner), "a=later c=3 ");
    }

    /// A base that takes so many batches and then fails.
    #[derive(Debug)]
    struct Dying {
        inner: MemoryView,
        batches_left: Mutex<usize>,
    }

    impl View for Dying {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
            self.inner.get(key)
        }

        fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
            self.inner.visit(from, to, visitor)
        }

        fn apply(&self, taken: ViewBatch) -> Result<(), ViewError> {
            let mut left = self.batches_left.lock().unwrap();
            *left = left.checked_sub(1).ok_or(ViewError { what: "fails", reason: "told to".to_owned() })?;
            self.inner.apply(taken)
        }

        fn sync(&self) -> Result<(), ViewError> {
            self.inner.sync()
        }
    }

    /// What a base holds of states and history, and whether it has the new position, when it dies after so many
    /// batches.
    fn dying_after(batches: usize) -> (usize, usize, bool) {
        let inner = MemoryView::default();
        let old =
            |n: u8| [("r", n), ("v", n)].map(|(space, n)| (format!("{space}old{n:03}").into_bytes(), None::<Vec<u8>>));
        inner.apply((0..100).flat_map(old).map(|(key, _)| (key, Some(vec![1]))).collect()).unwrap();
        let view =
            BufferedView::new(Arc::new(Dying { inner: inner.clone(), batches_left: Mutex::new(batches) }), usize::MAX);
        let new =
            |n: u8| [("r", n), ("v", n)].map(|(space, n)| (format!("{space}new{n:03}").into_bytes(), Some(vec![1])));
        let changes = (0..100).flat_map(|n| old(n).into_iter().chain(new(n)));
        view.apply(changes.chain([(POSITION_KEY.to_vec(), Some(vec![2]))]).collect()).unwrap();
        let _ = view.settle();
        let count = |prefix: &str| all(&inner).split(' ').filter(|record| record.starts_with(prefix)).count();
        (count("vold"), count("rold"), inner.get(POSITION_KEY).unwrap().is_some())
    }

    #[test]
    fn a_base_that_dies_while_it_settles_has_removed_nothing_before_the_position_and_no_history_before_its_states() {
        let mut states = Vec::new();
        for batches in 0..10 {
            let (states_left, history_left, has_position) = dying_after(batches);
            assert!(has_position || (states_left, history_left) == (100, 100), "{batches} batches");
            assert!(history_left == 100 || states_left == 0, "{batches} batches");
            states.push((states_left, history_left));
        }
        assert_eq!((states.first(), states.last()), (Some(&(100, 100)), Some(&(0, 0))));
    }

    #[test]
    fn a_visitor_may_seek_and_stop_in_either_layer() {
        let view = BufferedView::new(Arc::new(MemoryView::default()), usize::MAX);
        view.apply(batch(&[("a", Some("1")), ("c", Some("3")), ("e", Some("5"))])).unwrap();
        view.settle().unwrap();
        view.apply(batch(&[("b", Some("2")), ("d", Some("4")), ("f", Some("6"))])).unwrap();
        let walk = |next: fn(&[u8]) -> Visit| {
            let mut seen = String::new();
            view.visit(b"a", b"z", &mut |key, _| {
                seen += &key.escape_ascii().to_string();
                next(key)
            })
            .unwrap();
            seen
        };
        assert_eq!(walk(|_| Visit::Next), "abcdef");
        assert_eq!(walk(|key| if key == b"b" { Visit::Seek(b"d".to_vec()) } else { Visit::Next }), "abdef");
        assert_eq!(walk(|key| if key == b"c" { Visit::Seek(b"d2".to_vec()) } else { Visit::Next }), "abcef");
        assert_eq!(walk(|key| if key == b"f" { Visit::Seek(b"x".to_vec()) } else { Visit::Next }), "abcdef");
        assert_eq!(walk(|key| if key == b"d" { Visit::Stop } else { Visit::Next }), "abcd");
        assert_eq!(walk(|key| if key == b"e" { Visit::Stop } else { Visit::Next }), "abcde");
    }
}
