//! UDP flows that still go where their Service does not lead any more.
//!
//! Connection tracking keeps leading a flow as its first packet was led, for as long as packets come. TCP connections
//! end with their endpoint; a UDP client that keeps its port would talk to nobody for ever. So when a Service's
//! datagrams are led elsewhere, the kernel is made to forget the flows that lead to none of its endpoints: the next
//! packet begins a new one. Pure; the kernel is in [`crate::conntrack`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::layout::Front;
use super::plan::{Protocol, Target};
use super::rules::Datagrams;
use crate::conntrack::Flow;

/// Whether the flow comes in at one of these places and is answered by none of those who should.
pub(crate) fn is_stale(flow: &Flow, redirected: &Datagrams, own_addresses: &BTreeSet<Ipv4Addr>) -> bool {
    let front = |ip| Front { ip, protocol: Protocol::Udp, port: flow.to.port() };
    let node_port = || redirected.get(&front(Ipv4Addr::UNSPECIFIED)).filter(|_| own_addresses.contains(flow.to.ip()));
    let Some(answering) = redirected.get(&front(*flow.to.ip())).or_else(node_port) else { return false };
    if flow.answered_by == flow.to {
        // Not led anywhere yet: wrong once there are endpoints, and none of our business before.
        return !answering.is_empty();
    }
    !answering.contains(&Target { ip: *flow.answered_by.ip(), port: flow.answered_by.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(to: &str, answered_by: &str, expected: bool) {
        let parse = |text: &str| text.parse().expect("an address and port");
        let flow = Flow { from: parse("10.1.0.9:4000"), to: parse(to), answered_by: parse(answered_by) };
        let front = |ip: &str, port| Front { ip: ip.parse().expect("an address"), protocol: Protocol::Udp, port };
        let target = Target { ip: Ipv4Addr::new(10, 1, 0, 2), port: 5353 };
        let redirected = Datagrams::from([
            (front("10.96.0.1", 53), BTreeSet::from([target])),
            (front("10.96.0.2", 53), BTreeSet::new()),
            (front("0.0.0.0", 30053), BTreeSet::from([target])),
        ]);
        let own = BTreeSet::from([Ipv4Addr::new(172, 28, 0, 1)]);
        assert_eq!(is_stale(&flow, &redirected, &own), expected, "{to} answered by {answered_by}");
    }

    #[test]
    fn flows_to_endpoints_that_are_gone_are_stale_and_all_others_are_not() {
        check("10.96.0.1:53", "10.1.0.2:5353", false);
        check("10.96.0.1:53", "10.1.0.2:5354", true);
        check("10.96.0.1:53", "10.1.0.3:5353", true);
        check("10.96.0.1:53", "10.96.0.1:53", true);
        check("10.96.0.2:53", "10.1.0.2:5353", true);
        check("10.96.0.2:53", "10.96.0.2:53", false);
        check("10.96.0.3:53", "10.1.0.3:5353", false);
        check("172.28.0.1:30053", "10.1.0.3:5353", true);
        check("172.28.0.1:30053", "10.1.0.2:5353", false);
        check("8.8.8.8:30053", "8.8.8.8:30053", false);
    }
}
