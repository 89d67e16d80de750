//! Links, addresses and routes over rtnetlink, in the host's namespace and in pods'.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// The gateway every pod sees. Link-local (RFC 3927), answered by no one else on a pod's link.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Hardware address of the host's end of every pod's link; the links do not know of each other.
const HOST_MAC: [u8; 6] = [0xee, 0xee, 0xee, 0xee, 0xee, 0xee];
/// Name of a pod's link inside the pod.
const POD_LINK: &str = "eth0";
/// The route that catches what no pod has is the last choice.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;

/// Why a link or route cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}: {source}")]
pub struct LinkError {
    step: String,
    #[source]
    source: std::io::Error,
}

fn failed(step: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let step = step.into();
    move |error| LinkError { step, source: to_io(&error) }
}

fn to_io(error: &rtnetlink::Error) -> std::io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => std::io::Error::other(other.to_string()),
    }
}

fn is_kind(result: &Result<(), rtnetlink::Error>, errno: i32) -> bool {
    matches!(result, Err(error) if to_io(error).raw_os_error() == Some(errno))
}

/// One pod's link.
#[derive(Debug, Clone)]
pub(crate) struct PodLink {
    pub(crate) host_name: String,
    pub(crate) address: Ipv4Addr,
    /// The node's own address in the pod range: source of what the host sends to the pod.
    pub(crate) gateway: Ipv4Addr,
}

/// The host's side.
#[derive(Debug)]
pub(crate) struct HostLinks {
    handle: Handle,
}

impl HostLinks {
    /// Speaks with the kernel about the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| LinkError { step: "open a netlink socket".to_owned(), source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The link that carries the node's address in the pod range: a bridge without ports, which every kernel
    /// with containers has (not every one has `dummy`).
    pub(crate) async fn ensure_node_link(&self, name: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        let made = self.handle.link().add(LinkBridge::new(name).up().build()).execute().await;
        if !is_kind(&made, libc::EEXIST) {
            made.map_err(failed(format!("make link {name}")))?;
        }
        let index = self.index(name).await?.ok_or_else(|| missing(name))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(failed(format!("set link {name} up")))?;
        let added = self.handle.address().add(index, IpAddr::V4(address), 32).replace().execute().await;
        added.map_err(failed(format!("give link {name} the address {address}")))
    }

    /// What no pod has is answered at once with "unreachable" and never leaves the node.
    pub(crate) async fn reject_rest_of(&self, range: Ipv4Net) -> Result<(), LinkError> {
        let added = self.handle.route().add(unreachable(range)).replace().execute().await;
        added.map_err(failed(format!("make {range} unreachable")))
    }

    /// Takes back [`HostLinks::reject_rest_of`].
    pub(crate) async fn accept_rest_of(&self, range: Ipv4Net) -> Result<(), LinkError> {
        let removed = self.handle.route().del(unreachable(range)).execute().await;
        if is_kind(&removed, libc::ESRCH) {
            Ok(())
        } else {
            removed.map_err(failed(format!("remove the route to {range}")))
        }
    }

    /// Makes both ends of a pod's link and everything on them.
    pub(crate) async fn wire(&self, link: &PodLink, netns: &Path) -> Result<(), LinkError> {
        let pod = PodSide::open(netns).await?;
        let mac = pod_mac(link.address);
        self.add_veth(link, &pod, mac).await?;
        let host = async {
            let name = &link.host_name;
            let index = self.index(name).await?.ok_or_else(|| missing(name))?;
            let added = self.handle.neighbours().add(index, IpAddr::V4(link.address));
            let added = added.state(NeighbourState::Permanent).link_layer_address(&mac).replace().execute().await;
            added.map_err(failed(format!("add the neighbour of {name}")))?;
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(link.address, 32)
                .output_interface(index)
                .scope(RouteScope::Link)
                .pref_source(link.gateway)
                .build();
            let added = self.handle.route().add(route).replace().execute().await;
            added.map_err(failed(format!("add the route to {}", link.address)))
        };
        let (host, inside) = tokio::join!(host, pod.configure(link.address));
        let result = host.and(inside);
        if result.is_err() {
            // A link that is half wired is of no use.
            self.remove(&link.host_name).await?;
        }
        result
    }

    async fn add_veth(&self, link: &PodLink, pod: &PodSide, mac: [u8; 6]) -> Result<(), LinkError> {
        let peer = LinkUnspec::new_with_name(POD_LINK).address(mac.to_vec()).setns_by_fd(pod.netns.as_raw_fd()).build();
        let build = || {
            let veth: LinkMessageBuilder<LinkVeth> = LinkMessageBuilder::<LinkVeth>::new(&link.host_name, POD_LINK);
            let veth = veth.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.clone()))).address(HOST_MAC.to_vec());
            // Deaf to ARP: what a pod claims about addresses must not fill the host's table of neighbours.
            veth.arp(false).up().build()
        };
        let made = self.handle.link().add(build()).execute().await;
        if !is_kind(&made, libc::EEXIST) {
            return made.map_err(failed(format!("make link {}", link.host_name)));
        }
        // A leftover of an attempt that was cut off.
        self.remove(&link.host_name).await?;
        self.handle.link().add(build()).execute().await.map_err(failed(format!("make link {}", link.host_name)))
    }

    /// Removes a link by name. Idempotent.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), LinkError> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        let removed = self.handle.link().del(index).execute().await;
        if is_kind(&removed, libc::ENODEV) { Ok(()) } else { removed.map_err(failed(format!("remove link {name}"))) }
    }

    /// Removes the node's link and all pods' links with that prefix.
    pub(crate) async fn remove_all(&self, prefix: &str) -> Result<(), LinkError> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list links"))?;
        for name in links.iter().filter_map(name_of).filter(|name| is_ours(name, prefix)) {
            self.remove(name).await?;
        }
        Ok(())
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, LinkError> {
        index(&self.handle, name).await
    }
}

/// Whether a link has one of the names this node network gives.
fn is_ours(name: &str, prefix: &str) -> bool {
    match name.strip_prefix(prefix) {
        Some("0") => true,
        Some(rest) => {
            rest.len() == 9 && rest.starts_with('v') && rest[1..].bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        None => false,
    }
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, LinkError> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match found {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if to_io(&error).raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(failed(format!("look for link {name}"))(error)),
    }
}

fn missing(name: &str) -> LinkError {
    LinkError { step: format!("find link {name}"), source: std::io::ErrorKind::NotFound.into() }
}

fn unreachable(range: Ipv4Net) -> rtnetlink::packet_route::route::RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .kind(RouteType::Unreachable)
        .priority(UNREACHABLE_METRIC)
        .build()
}

/// A hardware address that follows from the pod's address: locally administered, unicast.
fn pod_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The inside of a pod's network namespace.
struct PodSide {
    netns: File,
    handle: Handle,
}

impl PodSide {
    /// Opens a netlink socket in the namespace: a socket stays in the namespace it was made in, so a short-lived
    /// thread makes it there and hands it back.
    async fn open(netns: &Path) -> Result<Self, LinkError> {
        let step = || format!("enter the network namespace {}", netns.display());
        let file = File::open(netns).map_err(|source| LinkError { step: step(), source })?;
        let inside = file.try_clone().map_err(|source| LinkError { step: step(), source })?;
        let (runtime, (sender, receiver)) = (tokio::runtime::Handle::current(), tokio::sync::oneshot::channel());
        let thread = move || {
            let _entered = runtime.enter();
            let opened = nix::sched::setns(&inside, nix::sched::CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)
                .and_then(|()| rtnetlink::new_connection());
            // Without a receiver the pod is being stopped.
            let _ = sender.send(opened.map(|(connection, handle, _)| (connection, handle)));
        };
        let spawned = std::thread::Builder::new().name("netns".to_owned()).spawn(thread);
        spawned.map_err(|source| LinkError { step: step(), source })?;
        let opened =
            receiver.await.map_err(|_| LinkError { step: step(), source: std::io::ErrorKind::BrokenPipe.into() })?;
        let (connection, handle) = opened.map_err(|source| LinkError { step: step(), source })?;
        tokio::spawn(connection);
        Ok(Self { netns: file, handle })
    }

    /// Address, gateway and default route of the pod. `lo` is the engine's.
    async fn configure(&self, address: Ipv4Addr) -> Result<(), LinkError> {
        let index = index(&self.handle, POD_LINK).await?.ok_or_else(|| missing(POD_LINK))?;
        // The kernel refuses to make a veth's peer up at once: it is not connected yet.
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(failed("set the pod's link up"))?;
        let added = self.handle.address().add(index, IpAddr::V4(address), 32).execute().await;
        added.map_err(failed(format!("give the pod the address {address}")))?;
        let neighbour = self.handle.neighbours().add(index, IpAddr::V4(POD_GATEWAY));
        let added = neighbour.state(NeighbourState::Permanent).link_layer_address(&HOST_MAC).execute().await;
        added.map_err(failed("add the pod's gateway as a neighbour"))?;
        let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(POD_GATEWAY, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        self.handle.route().add(gateway).execute().await.map_err(failed("add the route to the pod's gateway"))?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(POD_GATEWAY).output_interface(index).build();
        self.handle.route().add(default).execute().await.map_err(failed("add the pod's default route"))
    }
}
