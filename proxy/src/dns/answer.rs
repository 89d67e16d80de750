//! From a query's bytes to an answer's bytes: RFC 1035, negative answers by RFC 2308, EDNS by RFC 6891.
//!
//! Pure. Decides only between answering here and forwarding; nothing is sent from here.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Asked, Data, Found, Records, look_up};

/// Seconds a record may be kept: short, because endpoints come and go.
const TTL: u32 = 5;
/// Largest answer over UDP, whatever the client offers (the DNS flag day's figure).
pub(super) const UDP_PAYLOAD_MAX: u16 = 1232;
/// Longest chain of aliases followed inside the cluster.
const ALIASES_MAX: usize = 8;

/// How the query came: it decides how long the answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Answers that do not fit are truncated; the client asks again over TCP.
    Udp,
    /// Up to 65,535 bytes.
    Tcp,
}

impl Transport {
    /// How many bytes the answer to a query may have.
    pub(super) fn limit(self, query: &Message) -> usize {
        match self {
            Self::Udp => usize::from(query.max_payload().min(UDP_PAYLOAD_MAX)),
            Self::Tcp => usize::from(u16::MAX),
        }
    }
}

/// What to do with a query.
#[derive(Debug)]
pub enum Verdict {
    /// Send these bytes back.
    Answer(Vec<u8>),
    /// Ask an upstream server, and send its answer back.
    Forward(Box<Message>),
    /// Ask an upstream server for the name that an alias leads to, and send both back: clients do not follow aliases.
    Follow(Box<Alias>),
    /// Not a query: say nothing (an answer to an answer would loop).
    Ignore,
}

/// An answer whose end is known elsewhere.
#[derive(Debug)]
pub struct Alias {
    /// What the client asked.
    query: Message,
    /// What is known: the aliases so far.
    reply: Message,
    /// Where they lead.
    target: Name,
}

impl Alias {
    /// The question for the upstream server.
    #[must_use]
    pub fn question(&self) -> Message {
        let mut question = Message::new(self.query.metadata.id, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        let kind = self.query.queries.first().map_or(RecordType::A, Query::query_type);
        question.add_query(Query::query(self.target.clone(), kind));
        question
    }

    /// The whole answer. Without one from upstream it has failed: an alias alone would say that there is no address.
    #[must_use]
    pub fn answer(mut self, upstream: Option<&[u8]>, transport: Transport) -> Option<Vec<u8>> {
        match upstream.and_then(|packet| Message::from_vec(packet).ok()) {
            Some(upstream) => {
                self.reply.metadata.response_code = upstream.metadata.response_code;
                self.reply.metadata.truncation = upstream.metadata.truncation;
                self.reply.answers.extend(upstream.answers);
                self.reply.authorities = upstream.authorities;
            }
            None => self.reply.metadata.response_code = ResponseCode::ServFail,
        }
        match finish(&self.query, self.reply, transport) {
            Verdict::Answer(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The zone a server answers for.
pub struct Zone<'a> {
    /// The objects behind the names.
    pub records: &'a dyn Records,
    /// `cluster.local`
    pub domain: &'a str,
    /// The server's own address, behind `ns.dns.ZONE`.
    pub address: Ipv4Addr,
}

impl Zone<'_> {
    /// Decides on one packet.
    #[must_use]
    pub fn decide(&self, packet: &[u8], transport: Transport) -> Verdict {
        let Ok(query) = Message::from_vec(packet) else { return malformed(packet) };
        if query.metadata.message_type != MessageType::Query {
            return Verdict::Ignore;
        }
        if query.metadata.op_code != OpCode::Query {
            return finish(&query, reply_to(&query, ResponseCode::NotImp), transport);
        }
        if query.version() > 0 {
            return finish(&query, reply_to(&query, ResponseCode::BADVERS), transport);
        }
        let [question] = query.queries.as_slice() else {
            return finish(&query, reply_to(&query, ResponseCode::FormErr), transport);
        };
        match self.answer(&query, question) {
            Some((reply, None)) => finish(&query, reply, transport),
            Some((reply, Some(target))) => Verdict::Follow(Box::new(Alias { query, reply, target })),
            None => Verdict::Forward(Box::new(query)),
        }
    }

    /// The reply, and where an alias in it leads to outside the cluster. `None`: the name is not ours.
    fn answer(&self, query: &Message, question: &Query) -> Option<(Message, Option<Name>)> {
        if question.query_class() != DNSClass::IN {
            return Some((reply_to(query, ResponseCode::Refused), None));
        }
        let name = plain_name(question.name());
        let apex = name == self.domain;
        let mut reply = reply_to(query, ResponseCode::NoError);
        reply.metadata.authoritative = true;
        let mut outside = None;
        match (apex, question.query_type()) {
            (true, RecordType::SOA) => reply.answers.push(self.soa()?),
            (true, RecordType::NS) => reply.answers.push(self.ns()?),
            _ if name == self.server_name() => {
                if matches!(question.query_type(), RecordType::A | RecordType::ANY) {
                    reply.answers.push(record(question.name().clone(), RData::A(A(self.address))));
                }
            }
            _ => outside = self.fill(&mut reply, question, name)?,
        }
        let alias_asked = matches!(question.query_type(), RecordType::CNAME | RecordType::ANY);
        let answered = reply.answers.iter().any(|own| alias_asked || own.record_type() != RecordType::CNAME);
        if !answered && outside.is_none() {
            reply.authorities.push(self.soa()?);
        }
        Some((reply, outside))
    }

    /// Looks the name up and follows aliases inside the cluster; returns where one leads out of it. `None`: not ours.
    fn fill(&self, reply: &mut Message, question: &Query, name: String) -> Option<Option<Name>> {
        let asked = asked(question.query_type());
        let (mut name, mut owner) = (name, question.name().clone());
        for step in 0..ALIASES_MAX {
            let data = match look_up(self.records, self.domain, &name, asked) {
                Found::NotOurs if step == 0 => return None,
                Found::NotOurs => return Some(Some(owner)),
                Found::NoName => {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    return Some(None);
                }
                Found::Data(data) => data,
            };
            let [Data::Cname(target)] = data.as_slice() else {
                self.add(reply, &owner, data);
                return Some(None);
            };
            let target_name = absolute(target)?;
            reply.answers.push(record(owner, RData::CNAME(CNAME(target_name.clone()))));
            if matches!(question.query_type(), RecordType::CNAME | RecordType::ANY) {
                return Some(None);
            }
            (name, owner) = (target.clone(), target_name);
        }
        reply.metadata.response_code = ResponseCode::ServFail;
        Some(None)
    }

    /// In an order that differs from query to query, by their ids: clients tend to take the first address.
    fn add(&self, reply: &mut Message, owner: &Name, mut data: Vec<Data>) {
        let turn = usize::from(reply.metadata.id).checked_rem(data.len()).unwrap_or(0);
        data.rotate_left(turn);
        for item in data {
            let rdata = match item {
                Data::A(ip) => Some(RData::A(A(ip))),
                Data::Txt(text) => Some(RData::TXT(TXT::new(vec![text]))),
                Data::Ptr(name) => absolute(&name).map(|name| RData::PTR(PTR(name))),
                Data::Cname(name) => absolute(&name).map(|name| RData::CNAME(CNAME(name))),
                Data::Srv { port, target, addresses } => absolute(&target).map(|target| {
                    let along = addresses.iter().map(|ip| record(target.clone(), RData::A(A(*ip))));
                    reply.additionals.extend(along);
                    RData::SRV(SRV::new(0, 100, port, target))
                }),
            };
            reply.answers.extend(rdata.map(|rdata| record(owner.clone(), rdata)));
        }
    }

    fn server_name(&self) -> String {
        format!("ns.dns.{}", self.domain)
    }

    fn soa(&self) -> Option<Record> {
        let (zone, server) = (absolute(self.domain)?, absolute(&self.server_name())?);
        let contact = absolute(&format!("hostmaster.{}", self.domain))?;
        Some(record(zone, RData::SOA(SOA::new(server, contact, 1, 7200, 1800, 86400, TTL))))
    }

    fn ns(&self) -> Option<Record> {
        Some(record(absolute(self.domain)?, RData::NS(NS(absolute(&self.server_name())?))))
    }
}

/// The reply that says the question could not be answered, for a query that was to be forwarded.
#[must_use]
pub fn failure(query: &Message, transport: Transport) -> Option<Vec<u8>> {
    match finish(query, reply_to(query, ResponseCode::ServFail), transport) {
        Verdict::Answer(bytes) => Some(bytes),
        _ => None,
    }
}

fn record(owner: Name, data: RData) -> Record {
    Record::from_rdata(owner, TTL, data)
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn plain_name(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn asked(kind: RecordType) -> Asked {
    match kind {
        RecordType::A => Asked::A,
        RecordType::SRV => Asked::Srv,
        RecordType::PTR => Asked::Ptr,
        RecordType::TXT => Asked::Txt,
        RecordType::ANY => Asked::Any,
        _ => Asked::Other,
    }
}

fn reply_to(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&query.queries);
    reply
}

fn finish(query: &Message, mut reply: Message, transport: Transport) -> Verdict {
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX);
        reply.set_edns(edns);
    }
    fit(reply, transport.limit(query)).map_or(Verdict::Ignore, Verdict::Answer)
}

/// The reply in at most so many bytes: without what is only sent along, then with as many records as fit, marked as
/// truncated. Some resolvers never ask over TCP: a part is of more use to them than nothing.
fn fit(mut reply: Message, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = reply.to_vec().ok()?;
    if bytes.len() > limit {
        reply.additionals.clear();
        bytes = reply.to_vec().ok()?;
    }
    while bytes.len() > limit && !reply.answers.is_empty() {
        reply.metadata.truncation = true;
        reply.authorities.clear();
        let kept = (reply.answers.len() * limit / bytes.len()).min(reply.answers.len() - 1);
        reply.answers.truncate(kept);
        bytes = reply.to_vec().ok()?;
    }
    (bytes.len() <= limit).then_some(bytes)
}

/// A packet that does not parse gets FORMERR if at least its header is there and it is a query.
fn malformed(packet: &[u8]) -> Verdict {
    match packet {
        [high, low, flags, _, ..] if packet.len() >= 12 && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*high, *low]);
            let reply = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            reply.to_vec().map_or(Verdict::Ignore, Verdict::Answer)
        }
        _ => Verdict::Ignore,
    }
}
