//! What goes through a pod's interfaces: read inside its network namespace.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::engine::InterfaceUsage;

const LOOPBACK: &str = "lo";

/// The traffic of all interfaces but the loopback, in the kernel's order. Blocks.
///
/// # Errors
/// When the namespace is gone.
pub fn read(netns: &Path) -> io::Result<Vec<InterfaceUsage>> {
    let inside = File::open(netns)?;
    // On a thread of its own, which ends there: one of a pool would take the namespace along.
    let reader = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        setns(&inside, CloneFlags::CLONE_NEWNET)?;
        std::fs::read_to_string("/proc/thread-self/net/dev")
    })?;
    let text = reader.join().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
    Ok(parse(&text))
}

/// Reads the table of proc(5): received bytes, packets, errors, drops and four more, then the same of sent ones.
fn parse(text: &str) -> Vec<InterfaceUsage> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.map(|(name, numbers)| (name.trim(), numbers)).filter(|(name, _)| *name != LOOPBACK);
    let read = lines.map(|(name, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
        InterfaceUsage {
            name: name.to_owned(),
            rx_bytes: at(0),
            rx_packets: Some(at(1)),
            rx_errors: at(2),
            rx_dropped: Some(at(3)),
            tx_bytes: at(8),
            tx_packets: Some(at(9)),
            tx_errors: at(10),
            tx_dropped: Some(at(11)),
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_told_by_interface_without_the_loopback() {
        let text = "Inter-| Receive | Transmit\n face |bytes packets errs drop|bytes packets\n \
            lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  eth0: 1234 10 2 4 0 0 0 0 5678 20 3 5 0 0 0 0\n";
        let own = InterfaceUsage {
            name: "eth0".to_owned(),
            rx_bytes: 1234,
            rx_packets: Some(10),
            rx_errors: 2,
            rx_dropped: Some(4),
            tx_bytes: 5678,
            tx_packets: Some(20),
            tx_errors: 3,
            tx_dropped: Some(5),
        };
        assert_eq!(parse(text), [own]);
    }
}
