//! The node's own network namespace (`reeve up --netns`): pinned in the run folder, re-entered after a restart.
//!
//! It has no link to anything: traffic goes to loopback and to addresses inside. The API server is still
//! reached from outside because its listener on 127.0.0.1 is made before the process moves in: a socket stays
//! in the namespace it was made in.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::error::{ClusterError, at};

/// Name of the pin in the run folder.
const PIN: &str = "netns";
/// Magic number of nsfs (`linux/magic.h`): tells a pinned namespace from an empty file.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Moves this process, which must still be of one thread, into the cluster's network namespace; makes it first if need be.
pub(crate) fn enter(run_dir: &Path) -> Result<(), ClusterError> {
    let pin = run_dir.join(PIN);
    if is_pinned(&pin) {
        let file = File::open(&pin).map_err(|err| ClusterError::io(at("open", &pin), err))?;
        return setns(file, CloneFlags::CLONE_NEWNET).map_err(|err| ClusterError::io(at("enter", &pin), err));
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|err| ClusterError::io("make a network namespace", err))?;
    OpenOptions::new().create(true).append(true).open(&pin).map_err(|err| ClusterError::io(at("create", &pin), err))?;
    mount(Some("/proc/self/ns/net"), &pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|err| ClusterError::io(at("pin the network namespace at", &pin), err))
}

/// Whether the cluster's namespace is there.
pub(crate) fn exists(run_dir: &Path) -> bool {
    is_pinned(&run_dir.join(PIN))
}

/// Brings `lo` up and gives the node its address, inside the namespace. Idempotent.
pub(crate) async fn prepare(address: std::net::Ipv4Addr) -> Result<(), ClusterError> {
    let refused = |err: rtnetlink::Error| ClusterError::component("network namespace", err);
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|err| ClusterError::io("open a route socket", err))?;
    let connection = tokio::spawn(connection);
    // `lo` is the first link of every network namespace.
    const LOOPBACK: u32 = 1;
    let up = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkUnspec>::default().index(LOOPBACK).up().build();
    handle.link().set(up).execute().await.map_err(refused)?;
    handle.address().add(LOOPBACK, address.into(), 32).replace().execute().await.map_err(refused)?;
    connection.abort();
    Ok(())
}

fn is_pinned(pin: &Path) -> bool {
    nix::sys::statfs::statfs(pin).is_ok_and(|stat| stat.filesystem_type().0 == NSFS_MAGIC)
}

/// Lets the namespace go; with the last process in it, the kernel removes it and its links.
pub(crate) fn unpin(run_dir: &Path) -> Result<(), ClusterError> {
    let pin = run_dir.join(PIN);
    if is_pinned(&pin) {
        umount2(&pin, MntFlags::MNT_DETACH).map_err(|err| ClusterError::io(at("unmount", &pin), err))?;
    }
    match std::fs::remove_file(&pin) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(ClusterError::io(at("remove", &pin), err)),
        _ => Ok(()),
    }
}
