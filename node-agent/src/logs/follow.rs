//! Reads a container's log as `kubectl logs` wants it: the last lines, since when, how much, and what comes.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::cri::{Record, parse};
use super::notify::Changes;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// Longest line that is kept together. The engine cuts at 16 KiB.
const LINE_MAX: usize = 1024 * 1024;

/// What of a log is wanted. Source: Kubernetes `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit_bytes: Option<u64>,
    /// `stdout`, `stderr`, or both.
    pub(crate) stream: Option<String>,
}

/// Ends a log that is followed: resolves when the container has ended.
pub(crate) type Ended = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a log's text goes. Holds a few pieces; a reader that is slow makes this one wait.
pub(crate) type Sink = mpsc::Sender<io::Result<Bytes>>;

/// Sends what is wanted of the log at `path`, older rotated files included, and returns at its end.
pub(crate) async fn stream(path: &Path, options: &LogOptions, ended: Option<Ended>, sink: &Sink) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    // Before the first look, so that nothing written meanwhile is missed.
    let mut changes = if options.follow { Some(Changes::of(dir)?) } else { None };
    let mut out = Output::new(options, sink);
    let mut ended = ended;
    let mut over = false;
    let mut current = match begin(path, options, &mut out).await? {
        Some(reader) => reader,
        None => match first_open(path, changes.as_mut(), &mut ended, &mut over, sink).await? {
            Some(reader) => reader,
            None => return Ok(()),
        },
    };
    loop {
        if !current.pump(&mut out).await? {
            return Ok(());
        }
        if current.was_replaced(path).await {
            // The new file is there only when the old one is complete; its end may have been written just now.
            if !current.pump(&mut out).await? {
                return Ok(());
            }
            let next = current.successor(path).await?;
            // Moved aside in this very moment: the next look finds it there.
            if let Some(reader) = Reader::open_if_there(&next).await? {
                current = reader;
            }
            continue;
        }
        let (Some(changes), false) = (&mut changes, over) else { return Ok(()) };
        tokio::select! {
            result = changes.next() => result?,
            () = end_of(&mut ended) => over = true,
            () = sink.closed() => return Ok(()),
        }
    }
}

/// Opens the log. The engine makes the file with the first line: a container that has said nothing has none, and
/// its log is empty, not an error. One that is followed is waited for.
async fn first_open(
    path: &Path,
    mut changes: Option<&mut Changes>,
    ended: &mut Option<Ended>,
    over: &mut bool,
    sink: &Sink,
) -> io::Result<Option<Reader>> {
    loop {
        if let Some(reader) = Reader::open_if_there(path).await? {
            return Ok(Some(reader));
        }
        let (Some(changes), false) = (&mut changes, *over) else { return Ok(None) };
        tokio::select! {
            result = changes.next() => result?,
            // What it said last may have been written just now: one more look.
            () = end_of(ended) => *over = true,
            () = sink.closed() => return Ok(None),
        }
    }
}

async fn end_of(ended: &mut Option<Ended>) {
    match ended {
        Some(ended) => ended.await,
        None => std::future::pending().await,
    }
}

/// Sends the rotated files as far as they are wanted; returns the newest file positioned for what follows.
async fn begin(path: &Path, options: &LogOptions, out: &mut Output<'_>) -> io::Result<Option<Reader>> {
    let Some(lines) = options.tail_lines else {
        for old in rotated(path).await? {
            if !Reader::open(&old).await?.pump(out).await? {
                return Ok(None);
            }
        }
        return Ok(None);
    };
    let mut missing = lines;
    // After a rotation the new file comes with the first line.
    let mut newest = Reader::open_if_there(path).await?;
    if let Some(reader) = &mut newest {
        let (start, still) = tail_start(&mut reader.file, lines).await?;
        reader.seek(start).await?;
        missing = still;
    }
    let mut starts = Vec::new();
    for old in rotated(path).await?.into_iter().rev() {
        if missing == 0 {
            break;
        }
        let mut file = File::open(&old).await?;
        let (start, still) = tail_start(&mut file, missing).await?;
        starts.push((file, start));
        missing = still;
    }
    for (file, start) in starts.into_iter().rev() {
        let mut old = Reader::new(file);
        old.seek(start).await?;
        old.pump(out).await?;
    }
    Ok(newest)
}

/// Rotated files of a log, the oldest first: `0.log.20261120-140000`.
async fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Where the last `lines` full lines begin, and how many are missing if the file has fewer.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<(u64, u64)> {
    let end = file.metadata().await?.len();
    if lines == 0 {
        return Ok((end, 0));
    }
    let mut search = TailSearch { lines, seen: 0, candidate: None, head: VecDeque::new() };
    let mut position = end;
    let mut chunk = vec![0; CHUNK];
    while position > 0 {
        let len = usize::try_from(position.min(CHUNK as u64)).unwrap_or(CHUNK);
        position -= len as u64;
        file.seek(SeekFrom::Start(position)).await?;
        let Some(part) = chunk.get_mut(..len) else { break };
        file.read_exact(part).await?;
        for (offset, byte) in (0_u64..).zip(part.iter()).collect::<Vec<_>>().into_iter().rev() {
            let at = position + offset;
            if *byte != b'\n' {
                search.before(*byte);
            } else if let Some(start) = search.on_record_start(Some(at + 1).filter(|start| *start < end)) {
                return Ok((start, 0));
            }
        }
    }
    if let Some(start) = search.on_record_start(Some(0)) {
        return Ok((start, 0));
    }
    Ok((0, lines.saturating_sub(search.seen + u64::from(end > 0))))
}

/// Looks for the beginning of a line from the end of a file. A line may have several records; it begins where
/// the record before it ends a line.
struct TailSearch {
    lines: u64,
    seen: u64,
    /// Where the record after the one being read begins.
    candidate: Option<u64>,
    /// The first bytes of the record being read, enough for its tag.
    head: VecDeque<u8>,
}

impl TailSearch {
    fn before(&mut self, byte: u8) {
        self.head.push_front(byte);
        self.head.truncate(64);
    }

    /// The record being read begins at `start`: what begins after it may be the line that is looked for.
    fn on_record_start(&mut self, start: Option<u64>) -> Option<u64> {
        let head: Vec<u8> = self.head.drain(..).collect();
        let candidate = std::mem::replace(&mut self.candidate, start)?;
        if parse(&head).is_none_or(|record| record.full) {
            self.seen += 1;
        }
        (self.seen == self.lines).then_some(candidate)
    }
}

/// A log file that is read to its end, again and again.
struct Reader {
    file: File,
    line: Vec<u8>,
}

impl Reader {
    async fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path).await?))
    }

    /// None if there is no such file.
    async fn open_if_there(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path).await {
            Ok(reader) => Ok(Some(reader)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new(file: File) -> Self {
        Self { file, line: Vec::new() }
    }

    async fn seek(&mut self, to: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(to)).await.map(drop)
    }

    /// Whether `path` is another file by now.
    async fn was_replaced(&self, path: &Path) -> bool {
        match (self.file.metadata().await, tokio::fs::metadata(path).await) {
            (Ok(own), Ok(there)) => own.ino() != there.ino(),
            _ => false,
        }
    }

    /// The file that comes after this one: the next that was moved aside, or the log itself. A log that grows fast may
    /// have been exchanged more than once.
    async fn successor(&self, path: &Path) -> io::Result<PathBuf> {
        let own = self.file.metadata().await?.ino();
        let mut old = rotated(path).await?.into_iter();
        let oldest = old.as_slice().first().cloned();
        while let Some(file) = old.next() {
            if tokio::fs::metadata(&file).await.is_ok_and(|meta| meta.ino() == own) {
                return Ok(old.next().unwrap_or_else(|| path.to_owned()));
            }
        }
        // This one has been removed: what is left begins with the oldest.
        Ok(oldest.unwrap_or_else(|| path.to_owned()))
    }

    /// Sends everything up to the end of the file; false when nobody wants more.
    async fn pump(&mut self, out: &mut Output<'_>) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if out.lines == Some(0) {
                return Ok(false);
            }
            let len = self.file.read(&mut chunk).await?;
            let mut rest = chunk.get(..len).unwrap_or_default();
            if rest.is_empty() {
                return Ok(true);
            }
            let mut text = Vec::new();
            while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                self.line.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                if let Some(record) = parse(&self.line)
                    && out.lines != Some(0)
                {
                    out.take(&record, &mut text);
                }
                self.line.clear();
            }
            if self.line.len() < LINE_MAX {
                self.line.extend_from_slice(rest);
            }
            if !out.send(text).await {
                return Ok(false);
            }
        }
    }
}

/// What of the records goes out.
struct Output<'o> {
    options: &'o LogOptions,
    sink: &'o Sink,
    /// Bytes that may still be sent.
    left: Option<u64>,
    /// Lines that may still be sent: a log from which the last ones are wanted grows while it is read.
    lines: Option<u64>,
    /// Whether the line that began on each stream is wanted, while it goes on.
    partial: [Option<bool>; 2],
}

impl<'o> Output<'o> {
    fn new(options: &'o LogOptions, sink: &'o Sink) -> Self {
        let lines = options.tail_lines.filter(|_| !options.follow);
        Self { options, sink, left: options.limit_bytes, lines, partial: [None, None] }
    }

    fn take(&mut self, record: &Record<'_>, text: &mut Vec<u8>) {
        if self.options.stream.as_deref().is_some_and(|wanted| wanted != record.stream) {
            return;
        }
        let state = &mut self.partial[usize::from(record.stream == "stderr")];
        let begins = state.is_none();
        let since = self.options.since;
        let wanted =
            *state.get_or_insert_with(|| since.is_none_or(|since| record.timestamp().is_none_or(|time| time >= since)));
        if record.full {
            *state = None;
            self.lines = self.lines.map(|lines| lines.saturating_sub(1));
        }
        if !wanted {
            return;
        }
        if self.options.timestamps && begins {
            text.extend_from_slice(record.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(record.text);
        if record.full {
            text.push(b'\n');
        }
    }

    /// Sends; false when the limit is reached or nobody listens.
    async fn send(&mut self, mut text: Vec<u8>) -> bool {
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left = left.saturating_sub(text.len() as u64);
        }
        if !text.is_empty() && self.sink.send(Ok(text.into())).await.is_err() {
            return false;
        }
        self.left != Some(0)
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
