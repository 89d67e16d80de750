//! Cuts the cluster's pod range into ranges for nodes.

use std::collections::HashSet;

use ipnet::IpNet;

/// A cluster range and the size of a node's part of it.
#[derive(Debug, Clone)]
pub(super) struct Ranges {
    cluster: IpNet,
    node_mask: u8,
    /// Where the search for a free range starts: after the last one given out, so that a range is not given out
    /// again right after its node is gone.
    next: u64,
}

/// Why a cluster range cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// The parts would be larger than the whole, or smaller than one address.
    #[error("node mask /{node_mask} does not fit into the cluster range {cluster}")]
    Mask {
        /// The cluster range.
        cluster: IpNet,
        /// The size of a node's part.
        node_mask: u8,
    },
}

impl Ranges {
    pub(super) fn try_new(cluster: IpNet, node_mask: u8) -> Result<Self, RangeError> {
        if node_mask < cluster.prefix_len() || node_mask > cluster.max_prefix_len() {
            return Err(RangeError::Mask { cluster, node_mask });
        }
        Ok(Self { cluster: cluster.trunc(), node_mask, next: 0 })
    }

    /// A range that is not among the taken ones; `None` if there is none left.
    pub(super) fn allocate(&mut self, taken: &HashSet<IpNet>) -> Option<IpNet> {
        let count = 1_u64.checked_shl(u32::from(self.node_mask - self.cluster.prefix_len())).unwrap_or(u64::MAX);
        // Of as many candidates as there are taken ranges, and one more, at least one is free, if any is.
        let tries = count.min(u64::try_from(taken.len()).unwrap_or(u64::MAX).saturating_add(1));
        for step in 0..tries {
            let index = (self.next.wrapping_add(step)) % count;
            let candidate = self.range(index)?;
            if !taken.iter().any(|taken| taken.contains(&candidate) || candidate.contains(taken)) {
                self.next = (index + 1) % count;
                return Some(candidate);
            }
        }
        None
    }

    fn range(&self, index: u64) -> Option<IpNet> {
        let host_bits = u32::from(self.cluster.max_prefix_len() - self.node_mask);
        let offset = u128::from(index).checked_shl(host_bits)?;
        let address = match self.cluster.network() {
            std::net::IpAddr::V4(base) => {
                std::net::Ipv4Addr::from_bits(base.to_bits().checked_add(u32::try_from(offset).ok()?)?).into()
            }
            std::net::IpAddr::V6(base) => std::net::Ipv6Addr::from_bits(base.to_bits().checked_add(offset)?).into(),
        };
        IpNet::new(address, self.node_mask).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn every_node_gets_a_range_of_its_own_until_there_are_none() {
        let mut ranges = Ranges::try_new(net("10.42.0.0/22"), 24).unwrap();
        let mut taken = HashSet::from([net("10.42.1.0/24")]);
        let mut given = Vec::new();
        while let Some(range) = ranges.allocate(&taken) {
            taken.insert(range);
            given.push(range.to_string());
        }
        assert_eq!(given, ["10.42.0.0/24", "10.42.2.0/24", "10.42.3.0/24"]);
        taken.remove(&net("10.42.2.0/24"));
        assert_eq!(ranges.allocate(&taken), Some(net("10.42.2.0/24")));
    }

    #[test]
    fn a_returned_range_is_not_given_out_again_at_once() {
        let mut ranges = Ranges::try_new(net("fd00::/56"), 64).unwrap();
        assert_eq!(ranges.allocate(&HashSet::new()), Some(net("fd00::/64")));
        assert_eq!(ranges.allocate(&HashSet::new()), Some(net("fd00:0:0:1::/64")));
    }

    #[test]
    fn a_mask_that_does_not_fit_is_refused() {
        assert!(Ranges::try_new(net("10.42.0.0/24"), 16).is_err());
        assert!(Ranges::try_new(net("10.42.0.0/24"), 33).is_err());
        assert!(Ranges::try_new(net("10.42.0.0/24"), 24).is_ok());
    }
}
