//! Which sandbox has which address. Kept on disk, so that addresses outlive the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// Every address of the node's range is taken.
    #[error("no free address in {0}")]
    Exhausted(Ipv4Net),
    /// The record of addresses cannot be read or written.
    #[error("failed to {step} {path}: {source}")]
    Io {
        /// `read`, `write`
        step: &'static str,
        /// The record.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The addresses of one node's range. The first is the node's own, the last is broadcast.
#[derive(Debug)]
pub(crate) struct Addresses {
    path: PathBuf,
    range: Ipv4Net,
    by_sandbox: BTreeMap<String, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// Where the search for the next address begins: an address that was just freed rests for a while, so that
    /// stale connections do not reach a new pod.
    next: u32,
}

impl Addresses {
    /// Reads the record, if there is one.
    pub(crate) fn open(path: PathBuf, range: Ipv4Net) -> Result<Self, IpamError> {
        let by_sandbox: BTreeMap<String, Ipv4Addr> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed("read", &path)(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let taken: BTreeSet<_> = by_sandbox.values().copied().collect();
        let next = taken.iter().map(|address| u32::from(*address)).max().map_or(0, |last| last.wrapping_add(1));
        Ok(Self { path, range, by_sandbox, taken, next })
    }

    /// The sandbox's address; a new one if it has none.
    pub(crate) fn allocate(&mut self, sandbox: &str) -> Result<Ipv4Addr, IpamError> {
        if let Some(address) = self.of(sandbox) {
            return Ok(address);
        }
        let address = self.free().ok_or(IpamError::Exhausted(self.range))?;
        self.by_sandbox.insert(sandbox.to_owned(), address);
        self.taken.insert(address);
        self.next = u32::from(address).wrapping_add(1);
        self.save()?;
        Ok(address)
    }

    /// The next free address from where the last one was given, round the range once.
    fn free(&self) -> Option<Ipv4Addr> {
        let first = u32::from(self.range.network()).wrapping_add(2);
        let last = u32::from(self.range.broadcast()).wrapping_sub(1);
        let start = self.next.clamp(first, last.wrapping_add(1));
        (start..=last).chain(first..start).map(Ipv4Addr::from).find(|address| !self.taken.contains(address))
    }

    /// Gives the sandbox's address back.
    pub(crate) fn release(&mut self, sandbox: &str) -> Result<(), IpamError> {
        let Some(address) = self.by_sandbox.remove(sandbox) else { return Ok(()) };
        self.taken.remove(&address);
        self.save()
    }

    /// The sandbox's address, if it has one.
    pub(crate) fn of(&self, sandbox: &str) -> Option<Ipv4Addr> {
        self.by_sandbox.get(sandbox).copied()
    }

    /// Sandboxes that have an address and are not in `alive`.
    pub(crate) fn others(&self, alive: &[String]) -> Vec<String> {
        self.by_sandbox.keys().filter(|sandbox| !alive.contains(sandbox)).cloned().collect()
    }

    /// Written whole and renamed. No fsync: after a power cut no sandbox is left that could hold an address.
    fn save(&self) -> Result<(), IpamError> {
        let path = &self.path;
        let bytes = serde_json::to_vec(&self.by_sandbox).map_err(|error| failed("write", path)(error.into()))?;
        let fresh = path.with_extension("new");
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed("write", path))?;
        }
        fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)).map_err(failed("write", path))
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IpamError {
    let path = path.to_owned();
    move |source| IpamError::Io { step, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_survive_a_restart_and_rest_before_they_return() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Addresses::open(dir.path().join("a.json"), "10.0.0.0/29".parse().unwrap()).unwrap();
        let mut addresses = open();
        let given: Vec<_> = ["a", "b", "c"].iter().map(|s| addresses.allocate(s).unwrap().octets()[3]).collect();
        assert_eq!(given, [2, 3, 4]);
        addresses.release("b").unwrap();
        let mut addresses = open();
        assert_eq!(addresses.allocate("a").unwrap().octets()[3], 2);
        assert_eq!(addresses.allocate("d").unwrap().octets()[3], 5);
        assert_eq!(addresses.allocate("e").unwrap().octets()[3], 6);
        assert_eq!(addresses.allocate("f").unwrap().octets()[3], 3);
        assert!(matches!(addresses.allocate("g"), Err(IpamError::Exhausted(_))));
        assert_eq!(addresses.others(&["a".to_owned(), "f".to_owned()]), ["c", "d", "e"]);
    }
}
