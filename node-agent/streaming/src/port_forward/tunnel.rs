//! SPDY inside a WebSocket: the bytes of the connection are those of its binary messages, one behind the other.

use std::io;
use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::place::Place;
use super::{CHUNK, spdy_pairs};
use crate::upgrade::Socket;

/// Bytes between the WebSocket and SPDY, each way. When they are full, the other side waits.
const BUFFER: usize = 64 * 1024;

/// Serves the connection inside the socket until either ends.
pub(super) async fn serve(socket: Socket, place: Arc<Place>) -> io::Result<()> {
    let (mut sink, mut messages) = socket.split();
    let (inner, outer) = tokio::io::duplex(BUFFER);
    let (mut from_inner, mut to_inner) = tokio::io::split(outer);
    let inwards = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) => to_inner.write_all(&bytes).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok(())
    };
    let outwards = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            let len = from_inner.read(&mut chunk).await?;
            if len == 0 {
                return Ok(());
            }
            let message = Message::binary(chunk.get(..len).unwrap_or_default().to_vec());
            sink.send(message).await.map_err(io::Error::other)?;
        }
    };
    let ended = tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
        ended = spdy_pairs::serve(inner, place) => ended,
    };
    // A client that has gone does not need the last word.
    let _ = sink.close().await;
    ended
}
