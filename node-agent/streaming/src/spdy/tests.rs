//! A client's side of a connection, written out by hand.

use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// What a client writes and reads.
pub(crate) struct Client {
    pub(crate) socket: DuplexStream,
    packer: Compress,
}

/// A frame as a client reads it: kind (0 for data), stream, flags, what stands behind the stream's number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) kind: u16,
    pub(crate) id: u32,
    pub(crate) last: bool,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(socket: DuplexStream) -> Self {
        Self { socket, packer: Compress::new(Compression::default(), true) }
    }

    pub(crate) async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(4096);
        self.packer.compress_vec(&block, &mut packed, FlushCompress::Sync).unwrap();
        let mut body = [&id.to_be_bytes()[..], &[0; 6]].concat();
        body.extend(packed);
        self.control(1, &body).await;
    }

    pub(crate) async fn control(&mut self, kind: u16, body: &[u8]) {
        let mut frame = [0x8003_u16.to_be_bytes(), kind.to_be_bytes()].concat();
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(body);
        self.socket.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn data(&mut self, id: u32, bytes: &[u8], last: bool) {
        let mut frame = Vec::new();
        frame::data(id, bytes, last, &mut frame);
        self.socket.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn read(&mut self) -> Read {
        let mut head = [0; 8];
        self.socket.read_exact(&mut head).await.unwrap();
        let word = u32::from_be_bytes(head[..4].try_into().unwrap());
        let len = usize::try_from(u32::from_be_bytes([0, head[5], head[6], head[7]])).unwrap();
        let mut body = vec![0; len];
        self.socket.read_exact(&mut body).await.unwrap();
        let last = head[4] & 1 != 0;
        if word >> 31 == 0 {
            return Read { kind: 0, id: word, last, body };
        }
        let id = u32::from_be_bytes(body[..4].try_into().unwrap());
        Read { kind: u16::try_from(word & 0xffff).unwrap(), id, last, body: body.split_off(4) }
    }
}

fn start() -> (Client, mpsc::Receiver<Stream>, tokio::task::JoinHandle<io::Result<()>>) {
    let (client, server) = duplex(256 * 1024);
    let (sender, streams) = mpsc::channel(4);
    (Client::new(client), streams, tokio::spawn(serve(server, sender)))
}

#[tokio::test]
async fn streams_carry_data_both_ways_until_each_side_has_said_all() {
    let (mut client, mut streams, _) = start();
    client.open(1, &[("port", "80"), ("streamtype", "data")]).await;
    let mut stream = streams.recv().await.unwrap();
    assert_eq!((stream.id(), stream.header("port"), stream.header("none")), (1, "80", ""));
    stream.accept().await;
    assert_eq!(client.read().await.kind, 2);
    client.data(1, b"hello", false).await;
    client.data(1, b" there", true).await;
    assert_eq!(stream.input.recv().await.unwrap(), "hello");
    assert_eq!(stream.input.recv().await.unwrap(), " there");
    assert_eq!(stream.input.recv().await, None);
    let output = stream.output();
    assert!(output.send("answer".into()).await);
    output.close().await;
    assert_eq!(client.read().await, Read { kind: 0, id: 1, last: false, body: b"answer".to_vec() });
    assert_eq!(client.read().await, Read { kind: 0, id: 1, last: true, body: Vec::new() });
}

#[tokio::test]
async fn pings_are_answered_and_resets_are_noticed() {
    let (mut client, mut streams, _) = start();
    client.control(6, &7_u32.to_be_bytes()).await;
    assert_eq!(client.read().await, Read { kind: 6, id: 7, last: false, body: Vec::new() });
    client.open(1, &[]).await;
    let stream = streams.recv().await.unwrap();
    client.control(3, &[1_u32.to_be_bytes(), 5_u32.to_be_bytes()].concat()).await;
    stream.reset.cancelled().await;
}

#[tokio::test]
async fn streams_that_break_the_order_or_are_too_many_are_refused() {
    let (mut client, mut streams, _) = start();
    let mut kept = Vec::new();
    for number in 0..u32::try_from(STREAMS_MAX).unwrap() {
        client.open(2 * number + 1, &[]).await;
        kept.push(streams.recv().await.unwrap());
    }
    let refused = |id: u32, why: u32| Read { kind: 3, id, last: false, body: why.to_be_bytes().to_vec() };
    client.open(3, &[]).await;
    assert_eq!(client.read().await, refused(3, 1));
    client.open(4, &[]).await;
    assert_eq!(client.read().await, refused(4, 1));
    client.open(9001, &[]).await;
    assert_eq!(client.read().await, refused(9001, 3));
}

#[tokio::test]
async fn nonsense_ends_the_connection() {
    let (mut client, _streams, served) = start();
    client.socket.write_all(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).await.unwrap();
    assert_eq!(served.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    let (client, _streams, served) = start();
    drop(client);
    assert!(served.await.unwrap().is_ok(), "the end of the connection is no error");
}

#[tokio::test]
async fn a_client_whose_data_nobody_takes_is_asked_whether_it_is_there() {
    let (mut client, mut streams, _) = start();
    client.open(1, &[]).await;
    let _stream = streams.recv().await.unwrap();
    for _ in 0..=PIECES {
        client.data(1, b"piece", false).await;
    }
    assert_eq!(client.read().await, Read { kind: 6, id: OWN_PING, last: false, body: Vec::new() });
}
