//! nftables over raw netlink: just what proxy and node agent need, one atomic transaction at a time.
//!
//! [`message`] encodes, [`expr`] are the expressions of rules, [`ops`] the changes, [`socket`] sends them and reads
//! the kernel's verdict. Constants and layouts: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`.
//! What is not here: what rules mean (that is for the owners of the tables), reading rulesets back.

pub mod expr;
pub mod message;
pub mod ops;
pub mod socket;

pub use expr::{Expr, Verdict};
pub use ops::{Chain, Data, Element, Hook, Op, SetSpec};
pub use socket::{NftError, NftSocket};
