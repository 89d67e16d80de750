//! nftables over raw netlink: just what the proxy needs, one atomic transaction at a time.
//!
//! [`message`] encodes, [`expr`] are the expressions of rules, [`ops`] the changes, [`socket`] sends them and reads
//! the kernel's verdict. Constants and layouts: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`.
//! What is not here: what the rules mean (that is `services`), reading rulesets back.

pub(crate) mod expr;
pub(crate) mod message;
pub(crate) mod ops;
pub(crate) mod socket;

pub(crate) use expr::{Expr, Verdict};
pub(crate) use ops::{Chain, Data, Element, Hook, Op, SetSpec};
pub use socket::NftError;
pub(crate) use socket::NftSocket;
