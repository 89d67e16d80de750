//! `v4.channel.k8s.io` and `v4.base64.channel.k8s.io`: two channels of a WebSocket per port, data and error; each
//! begins with the port's number.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::place::Place;
use super::{Output, forward};
use crate::upgrade::{Socket, from_channel, to_channel};

/// Messages between the pod and the client. When it is full, the pod waits.
const MESSAGES: usize = 8;
/// Pieces of input that wait for the pod. When it is full, the client waits.
const INPUTS: usize = 8;

/// A channel of the socket.
struct Channel {
    number: u8,
    is_base64: bool,
    messages: mpsc::Sender<Message>,
}

impl Output for Channel {
    async fn data(&self, bytes: Bytes) -> bool {
        self.messages.send(to_channel(self.is_base64, self.number, &bytes)).await.is_ok()
    }
}

/// Serves one connection per port until all have ended or the client is gone.
pub(super) async fn serve(socket: Socket, is_base64: bool, ports: &[u16], place: &Place) {
    let (mut sink, mut from) = socket.split();
    let (messages, mut queue) = mpsc::channel(MESSAGES);
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    for (number, port) in (0..=u8::MAX).step_by(2).zip(ports) {
        let (input, waiting) = mpsc::channel(INPUTS);
        inputs.push(input);
        let channel = Channel { number, is_base64, messages: messages.clone() };
        connections.push(run(place, *port, channel, waiting));
    }
    drop(messages);
    let reader = async {
        while let Some(Ok(message)) = from.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                _ => continue,
            };
            let Some((number, bytes)) = from_channel(is_base64, &data) else { continue };
            let input = inputs.get(usize::from(number / 2)).filter(|_| number % 2 == 0);
            if let Some(input) = input {
                // Without a receiver that connection has ended.
                let _ = input.send(bytes).await;
            }
        }
    };
    let writer = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    tokio::select! {
        () = reader => {}
        ((), _) = async { tokio::join!(writer, futures::future::join_all(connections)) } => {}
    }
}

async fn run(place: &Place, port: u16, data: Channel, mut input: mpsc::Receiver<Bytes>) {
    let error = Channel { number: data.number + 1, is_base64: data.is_base64, messages: data.messages.clone() };
    let first = Bytes::copy_from_slice(&port.to_le_bytes());
    if !data.data(first.clone()).await || !error.data(first).await {
        return;
    }
    if let Err(text) = forward(place, port, &mut input, &data).await {
        error.data(text.into()).await;
    }
}
