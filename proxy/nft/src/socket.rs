//! The netlink socket: sends one transaction and reads the kernel's verdict on it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

use super::message::{Buffer, Header, Message, NLM_F_ACK, NLM_F_REQUEST, messages};
use super::ops::Op;

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM_NFTABLES: u16 = 10;
/// Room for a transaction of 10,000 Services; the kernel takes a transaction only as a whole.
const SEND_BUFFER: usize = 64 << 20;
const RECEIVE_BUFFER: usize = 1 << 20;

/// Why the kernel did not take a transaction. Nothing of it was applied; rebuilding the table is the way out.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket failed, or the kernel has no nftables.
    #[error("failed to {step} nftables: {source}")]
    Socket {
        /// What was tried.
        step: &'static str,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// The kernel refused one change and with it the transaction.
    #[error("nftables refused {change}: {source}")]
    Refused {
        /// The change.
        change: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl FnOnce(nix::errno::Errno) -> NftError {
    move |errno| NftError::Socket { step, source: errno.into() }
}

/// A socket to nftables in the network namespace it was opened in.
#[derive(Debug)]
pub struct NftSocket {
    fd: OwnedFd,
    sequence: u32,
}

impl NftSocket {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no nftables or refuses.
    pub fn open() -> Result<Self, NftError> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
            .map_err(failed("open a socket to"))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed("bind a socket to"))?;
        // Without the capability the default stays, which is enough for small clusters.
        let _ = setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER);
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        Ok(Self { fd, sequence: 1 })
    }

    /// How many bytes a transaction may have (the kernel doubles it, and has a least of its own).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_room(&self, bytes: usize) -> Result<(), NftError> {
        setsockopt(&self.fd, sockopt::SndBuf, &bytes).map_err(failed("set the room of a socket to"))
    }

    /// Applies all changes to the table, or none. Returns how many bytes the transaction had.
    ///
    /// # Errors
    /// When the kernel refuses one of them.
    pub fn apply(&mut self, table: &str, ops: &[Op]) -> Result<usize, NftError> {
        if ops.is_empty() {
            return Ok(0);
        }
        let mut buffer = Buffer::default();
        let begin = self.sequence;
        bracket(&mut buffer, BATCH_BEGIN, begin, 0);
        let mut next = begin + 1;
        let mut firsts = Vec::with_capacity(ops.len());
        for op in ops {
            firsts.push(next);
            next += op.encode(table, next, &mut buffer);
        }
        // Only the end asks for an answer: one acknowledgement for the whole, errors come in any case.
        bracket(&mut buffer, BATCH_END, next, NLM_F_ACK);
        self.sequence = next + 1;
        let bytes = buffer.into_bytes();
        let sent = send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(failed("send a transaction to"))?;
        if sent != bytes.len() {
            return Err(NftError::Socket { step: "send a whole transaction to", source: ErrorKind::WriteZero.into() });
        }
        self.answer(begin, next).map(|()| sent).map_err(|(sequence, source)| match sequence {
            Some(sequence) => {
                let index = firsts.partition_point(|first| *first <= sequence).saturating_sub(1);
                NftError::Refused { change: describe(table, ops.get(index)), source }
            }
            None => NftError::Socket { step: "hear from", source },
        })
    }

    /// Reads what the kernel left for the transaction: it is all there when the sending has returned.
    fn answer(&self, begin: u32, end: u32) -> Result<(), (Option<u32>, io::Error)> {
        let mut buffer = vec![0_u8; 64 * 1024];
        let mut refused: Option<(Option<u32>, io::Error)> = None;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(nix::errno::Errno::EAGAIN) => return refused.map_or(Ok(()), Err),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(refused.unwrap_or((None, errno.into()))),
            };
            for message in messages(&buffer[..length]) {
                let Message::Verdict { sequence, code } = message else { continue };
                let own = (begin..=end).contains(&sequence);
                if own && code != 0 && refused.is_none() {
                    refused = Some((Some(sequence), io::Error::from_raw_os_error(-code)));
                }
            }
        }
    }
}

fn bracket(buffer: &mut Buffer, kind: u16, sequence: u32, flags: u16) {
    let header = Header { kind, flags: NLM_F_REQUEST | flags, sequence, family: 0, resource: SUBSYSTEM_NFTABLES };
    buffer.message(header, |_| {});
}

fn describe(table: &str, op: Option<&Op>) -> String {
    match op {
        Some(Op::AddTable) => format!("making table {table}"),
        Some(Op::DeleteTable) => format!("removing table {table}"),
        Some(Op::AddChain(chain)) => format!("making chain {} in table {table}", chain.name),
        Some(Op::DeleteChain(chain)) => format!("removing chain {chain} in table {table}"),
        Some(Op::AddRule(chain, _)) => format!("a rule of chain {chain} in table {table}"),
        Some(Op::AddSet(spec)) => format!("making set {} in table {table}", spec.name),
        Some(Op::AddElements(set, elements)) => format!("adding {} elements to {set} in {table}", elements.len()),
        Some(Op::DeleteElements(set, elements)) => {
            format!("removing {} elements from {set} in {table}", elements.len())
        }
        None => format!("a change of table {table}"),
    }
}
