//! Services over nftables, and cluster DNS.
