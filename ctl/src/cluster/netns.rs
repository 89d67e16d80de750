//! The node's own network namespace (`reeve up --netns`): pinned in the run folder, re-entered after a restart.
//!
//! It has no link to anything: traffic goes to loopback and to addresses inside. The API server is still
//! reached from outside because its listener on 127.0.0.1 is made before the process moves in: a socket stays
//! in the namespace it was made in.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::Path;

use futures::TryStreamExt as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::error::{ClusterError, at};

/// Name of the pin in the run folder.
const PIN: &str = "netns";
/// Magic number of nsfs (`linux/magic.h`): tells a pinned namespace from an empty file.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Moves this process, which must still be of one thread, into the cluster's network namespace; makes it first if
/// need be.
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

/// `lo` is the first link of every network namespace.
const LOOPBACK: u32 = 1;

/// Brings `lo` up and gives the node its address there. Idempotent. For a network namespace of its own, and for a
/// machine that has no address at all (a laptop without a network): pods cannot reach 127.0.0.1.
pub(crate) async fn prepare(address: Ipv4Addr) -> Result<(), ClusterError> {
    let handle = RouteHandle::open()?;
    let up = LinkMessageBuilder::<LinkUnspec>::default().index(LOOPBACK).up().build();
    handle.0.link().set(up).execute().await.map_err(refused)?;
    handle.0.address().add(LOOPBACK, address.into(), 32).replace().execute().await.map_err(refused)
}

/// Takes the node's address from `lo` again. Idempotent.
pub(crate) async fn withdraw(address: Ipv4Addr) -> Result<(), ClusterError> {
    let handle = RouteHandle::open()?;
    let found = handle.0.address().get().set_link_index_filter(LOOPBACK).set_address_filter(address.into()).execute();
    let found: Vec<_> = found.try_collect().await.map_err(refused)?;
    for message in found {
        handle.0.address().del(message).execute().await.map_err(refused)?;
    }
    Ok(())
}

fn refused(err: rtnetlink::Error) -> ClusterError {
    ClusterError::component("node's address", err)
}

/// A route socket for as long as it is held.
struct RouteHandle(rtnetlink::Handle, tokio::task::JoinHandle<()>);

impl RouteHandle {
    fn open() -> Result<Self, ClusterError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|err| ClusterError::io("open a route socket", err))?;
        Ok(Self(handle, tokio::spawn(connection)))
    }
}

impl Drop for RouteHandle {
    fn drop(&mut self) {
        self.1.abort();
    }
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
