//! What goes through a pod's interfaces: read inside its network namespace.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use reeve_proto::cri::{NetworkInterfaceUsage, NetworkUsage};

use crate::convert::stats::number;

/// The interface that counts as the pod's own.
const DEFAULT: &str = "eth0";
const LOOPBACK: &str = "lo";

/// A pod's traffic. `None` where the kernel does not tell (the pod has just ended).
pub(super) async fn usage(netns: PathBuf, now: i64) -> Option<NetworkUsage> {
    let text = tokio::task::spawn_blocking(move || read(&netns)).await.ok()?.ok()?;
    Some(parse(&text, now))
}

/// On a thread of its own, which ends there: a thread of the pool would take the namespace along.
fn read(netns: &PathBuf) -> io::Result<String> {
    let inside = File::open(netns)?;
    let reader = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        setns(&inside, CloneFlags::CLONE_NEWNET)?;
        std::fs::read_to_string("/proc/thread-self/net/dev")
    })?;
    reader.join().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
}

/// Reads the table of proc(5): received bytes, packets, errors, drops and four more, then the same of sent ones.
fn parse(text: &str, now: i64) -> NetworkUsage {
    let mut interfaces = Vec::new();
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let at = |index: usize| number(numbers.get(index).copied());
        interfaces.push(NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: at(0),
            rx_errors: at(2),
            tx_bytes: at(8),
            tx_errors: at(10),
        });
    }
    interfaces.retain(|interface| interface.name != LOOPBACK);
    let default = interfaces.iter().position(|interface| interface.name == DEFAULT);
    let default_interface = default.map(|at| interfaces.remove(at));
    NetworkUsage { timestamp: now, default_interface, interfaces }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_told_by_interface_without_the_loopback() {
        let text = "Inter-| Receive | Transmit\n face |bytes packets errs drop|bytes packets\n \
            lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  eth0: 1234 10 2 0 0 0 0 0 5678 20 3 0 0 0 0 0\n";
        let usage = parse(text, 9);
        let own = usage.default_interface.expect("the pod's own");
        assert_eq!((own.rx_bytes, own.rx_errors), (number(Some(1234)), number(Some(2))));
        assert_eq!((own.tx_bytes, own.tx_errors), (number(Some(5678)), number(Some(3))));
        assert!(usage.interfaces.is_empty());
    }
}
