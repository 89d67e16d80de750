//! Cuts between the machines of tortured servers: rules of nftables in the namespace of one server, that drop what goes
//! to or comes from some of the others. Clients reach everybody all the time.

use crate::servers::Servers;

/// The table that holds the rules.
const TABLE: &str = "inet torture";

/// What a server loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing goes in either direction.
    Both,
    /// It hears nothing.
    Hears,
    /// It is not heard.
    Says,
}

/// Cuts a server off from the others.
///
/// # Panics
/// When nft refuses.
#[track_caller]
pub fn cut(servers: &Servers, name: &str, from: &[&str], cut: Cut) {
    let addresses: Vec<&str> = from.iter().map(|other| servers.server(other).address.as_str()).collect();
    let addresses = addresses.join(", ");
    let mut rules = format!("add table {TABLE}; ");
    for (wanted, chain, hook, field) in [(Cut::Hears, "in", "input", "saddr"), (Cut::Says, "out", "output", "daddr")] {
        if cut == Cut::Both || cut == wanted {
            rules += &format!(
                "add chain {TABLE} {chain} {{ type filter hook {hook} priority 0; }}; \
                 add rule {TABLE} {chain} ip {field} {{ {addresses} }} drop; "
            );
        }
    }
    servers.run_on(name, &["nft", &rules]).done();
}

/// All is whole again.
///
/// # Panics
/// When nft refuses.
#[track_caller]
pub fn mend(servers: &Servers, name: &str) {
    servers.run_on(name, &["nft", &format!("delete table {TABLE}")]).done();
}
