//! The kernel's connection tracking over raw netlink: which UDP flows it follows, and making it forget some.
//!
//! Layouts: `linux/netfilter/nfnetlink_conntrack.h`. What is not here: which flows are to be forgotten
//! (`services::flows`).

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::nft::message::{Buffer, Header, Message, NLM_F_ACK, NLM_F_REQUEST, attribute, messages};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
const FAMILY_IPV4: u8 = 2;
const UDP: u8 = 17;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// The kernel answers at once; this is for a kernel that does not.
const ANSWER_WAIT_SECONDS: i64 = 5;
/// What the kernel puts into one datagram of a list at most.
const DATAGRAM_MAX: usize = 64 * 1024;

/// One UDP flow, as its first packet was and as answers to it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    /// Who began it.
    pub from: SocketAddrV4,
    /// Whom they addressed.
    pub to: SocketAddrV4,
    /// Who answers: another one than was addressed if the destination was translated.
    pub answered_by: SocketAddrV4,
}

/// A socket to connection tracking in the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Conntrack {
    fd: OwnedFd,
}

impl Conntrack {
    /// Opens a socket in this thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_WAIT_SECONDS))?;
        Ok(Self { fd })
    }

    /// Makes the kernel forget the UDP flows over IPv4 that `chosen` says; returns how many.
    pub(crate) fn forget(&self, chosen: impl Fn(&Flow) -> bool) -> io::Result<usize> {
        let mut forgotten = 0;
        for flow in self.flows()?.into_iter().filter(chosen) {
            match self.delete(&flow) {
                Ok(()) => forgotten += 1,
                // It has ended by itself meanwhile.
                Err(err) if err.kind() == ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        Ok(forgotten)
    }

    fn flows(&self) -> io::Result<Vec<Flow>> {
        let mut request = Buffer::default();
        request.message(header(GET, NLM_F_DUMP), |_| {});
        let mut found = Vec::new();
        self.ask(request, |message| found.extend(parse(message)))?;
        Ok(found)
    }

    fn delete(&self, flow: &Flow) -> io::Result<()> {
        let mut request = Buffer::default();
        request.message(header(DELETE, NLM_F_ACK), |body| {
            body.nested(TUPLE_ORIGINAL, |tuple| {
                tuple.nested(TUPLE_IP, |ip| {
                    ip.bytes(IP_SOURCE, &flow.from.ip().octets());
                    ip.bytes(IP_DESTINATION, &flow.to.ip().octets());
                });
                tuple.nested(TUPLE_PROTOCOL, |protocol| {
                    protocol.bytes(PROTOCOL_NUMBER, &[UDP]);
                    protocol.bytes(PROTOCOL_SOURCE_PORT, &flow.from.port().to_be_bytes());
                    protocol.bytes(PROTOCOL_DESTINATION_PORT, &flow.to.port().to_be_bytes());
                });
            });
        });
        self.ask(request, |_| {})
    }

    /// Sends a request and hands over what comes, to the end of the list or the acknowledgement.
    fn ask(&self, request: Buffer, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        send(self.fd.as_raw_fd(), &request.into_bytes(), MsgFlags::empty())?;
        let mut buffer = vec![0_u8; DATAGRAM_MAX];
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for message in messages(&buffer[..length]) {
                match message {
                    Message::Body(body) => take(body),
                    Message::Verdict { code: 0, .. } | Message::Done => return Ok(()),
                    Message::Verdict { code, .. } => return Err(io::Error::from_raw_os_error(-code)),
                }
            }
        }
    }
}

fn header(kind: u16, flags: u16) -> Header {
    Header { kind: SUBSYSTEM | kind, flags: NLM_F_REQUEST | flags, sequence: 1, family: FAMILY_IPV4, resource: 0 }
}

/// The flow in a message's body, if it is UDP over IPv4.
fn parse(body: &[u8]) -> Option<Flow> {
    let (from, to) = tuple(attribute(body, TUPLE_ORIGINAL)?)?;
    let (answered_by, _) = tuple(attribute(body, TUPLE_REPLY)?)?;
    Some(Flow { from, to, answered_by })
}

/// Source and destination of a UDP tuple.
fn tuple(bytes: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (ip, protocol) = (attribute(bytes, TUPLE_IP)?, attribute(bytes, TUPLE_PROTOCOL)?);
    if attribute(protocol, PROTOCOL_NUMBER)? != [UDP] {
        return None;
    }
    let address =
        |kind| attribute(ip, kind).and_then(|octets| octets.first_chunk::<4>()).map(|own| Ipv4Addr::from(*own));
    let port =
        |kind| attribute(protocol, kind).and_then(|own| own.first_chunk::<2>()).map(|own| u16::from_be_bytes(*own));
    Some((
        SocketAddrV4::new(address(IP_SOURCE)?, port(PROTOCOL_SOURCE_PORT)?),
        SocketAddrV4::new(address(IP_DESTINATION)?, port(PROTOCOL_DESTINATION_PORT)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_flow_is_passed_over() {
        for bytes in [&[][..], &[0; 3], &[0xff; 40], &[8, 0, 1, 0x80, 9, 9, 9, 9]] {
            assert_eq!(parse(bytes), None);
        }
    }
}
