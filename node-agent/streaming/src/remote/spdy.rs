//! A command's streams as streams of a SPDY connection, which the client opens; each says which one it is.

use std::time::Duration;

use bytes::Bytes;
use reeve_engine::engine::TerminalSize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Wanted;
use super::protocol::{Sizes, StreamOptions, Version};
use super::session::{self, Output, Streams};
use crate::spdy::{self, Reset, Stream};

/// How long a client may take to open its streams; the kubelet's number.
const STREAMS_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to end the connection once everything is said.
const GOODBYE_MAX: Duration = Duration::from_secs(10);
/// Streams that wait to be looked at. When it is full, the connection is not read.
const STREAMS: usize = 8;
/// Sizes that wait for the terminal. When it is full, newer ones are to come.
const SIZES: usize = 4;

/// The streams that the client has opened.
#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    fn place(&mut self, kind: &str) -> Option<&mut Option<Stream>> {
        match kind {
            "error" => Some(&mut self.error),
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    fn is_complete(&self, options: &StreamOptions, version: Version) -> bool {
        let wanted = [
            (true, &self.error),
            (options.stdin, &self.stdin),
            (options.stdout, &self.stdout),
            (options.stderr, &self.stderr),
            (options.tty && version >= Version::V3, &self.resize),
        ];
        wanted.iter().all(|(wanted, stream)| !wanted || stream.is_some())
    }
}

impl Output for spdy::Output {
    async fn data(&self, bytes: Bytes) -> bool {
        self.send(bytes).await
    }
}

/// Runs the command on an upgraded connection, until both are done.
pub(super) async fn serve<S>(wanted: &Wanted, version: Version, socket: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (sender, streams) = mpsc::channel(STREAMS);
    let serving = spdy::serve(socket, sender);
    tokio::pin!(serving);
    let gone = async { drop((&mut serving).await) };
    if session::while_there(run(wanted, version, streams), gone).await {
        // What was said last is still to be written; then the client hangs up.
        let _ = timeout(GOODBYE_MAX, serving).await;
    }
}

async fn run(wanted: &Wanted, version: Version, mut streams: mpsc::Receiver<Stream>) {
    let mut opened = Opened::default();
    let all = async {
        while !opened.is_complete(&wanted.options, version) {
            let Some(stream) = streams.recv().await else { return };
            stream.accept().await;
            let kind = stream.header("streamtype").to_owned();
            if let Some(place) = opened.place(&kind) {
                *place = Some(stream);
            }
        }
    };
    if timeout(STREAMS_TIME_MAX, all).await.is_err() {
        return tracing::debug!("a client did not open its streams in time");
    }
    // Further streams have no meaning; taken, they do not hold up the connection.
    let further = async {
        while streams.recv().await.is_some() {}
        std::future::pending().await
    };
    tokio::select! {
        () = carry(wanted, version, opened) => {}
        () = further => {}
    }
}

async fn carry(wanted: &Wanted, version: Version, opened: Opened) {
    let Some(error) = opened.error.as_ref().map(Stream::output) else { return };
    if version == Version::V1 {
        // The oldest clients take its end for the beginning.
        error.reset(Reset::Cancel).await;
    }
    let [stdout, stderr] = [&opened.stdout, &opened.stderr].map(|stream| stream.as_ref().map(Stream::output));
    let (sizes, wanted_sizes) = mpsc::channel(SIZES);
    let streams = Streams {
        stdin: opened.stdin.map(|stream| stream.input),
        sizes: wanted.options.tty.then_some(wanted_sizes),
        stdout: stdout.as_ref(),
        stderr: stderr.as_ref(),
    };
    let resizing = async {
        if let Some(stream) = opened.resize {
            read_sizes(stream.input, sizes).await;
        }
        std::future::pending().await
    };
    let last = tokio::select! {
        last = session::run(wanted, version, streams) => last,
        last = resizing => last,
    };
    for output in [stdout, stderr].into_iter().flatten() {
        output.close().await;
    }
    if version != Version::V1 {
        if let Some(text) = version.last_word(&last) {
            error.send(text.into()).await;
        }
        error.close().await;
    }
}

async fn read_sizes(mut from: mpsc::Receiver<Bytes>, to: mpsc::Sender<TerminalSize>) {
    let mut sizes = Sizes::default();
    while let Some(piece) = from.recv().await {
        let Ok(read) = sizes.read(&piece) else { return };
        // A full queue has newer sizes to come; an ended command needs none.
        for size in read {
            let _ = to.try_send(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_begins_when_all_its_streams_are_there() {
        let options = StreamOptions { stdout: true, tty: true, ..StreamOptions::default() };
        assert!(!Opened::default().is_complete(&options, Version::V4));
        assert!(Opened::default().place("other").is_none());
        assert!(Opened::default().place("resize").is_some());
    }
}
