//! The device that the service range is routed to.
//!
//! It carries no packet: it makes the host's own route look-ups for Service addresses succeed, also without a
//! default route, so that the nat output hook can translate them. It holds the cluster DNS address. A bridge
//! without ports, because some kernels have no dummy device.

use std::net::Ipv4Addr;

use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder, new_connection};

/// Why the device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("failed to open a route socket: {0}")]
    Open(#[source] std::io::Error),
    /// The kernel refused a step.
    #[error("failed to {step} on link {link}: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The device.
        link: String,
        /// The kernel's words.
        #[source]
        source: rtnetlink::Error,
    },
    /// The device was there and then was not.
    #[error("link {0} has vanished")]
    Vanished(String),
}

/// The device of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct ServiceLink {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The service range, routed to it.
    pub service_cidr: Ipv4Net,
    /// The cluster DNS address, put on it.
    pub dns_address: Ipv4Addr,
    /// Source address of the host's own packets to Services.
    pub node_address: Ipv4Addr,
}

impl ServiceLink {
    /// Makes the device with its address and route; what is there already stays.
    pub(crate) async fn ensure(&self) -> Result<(), LinkError> {
        let (connection, handle, _) = new_connection().map_err(LinkError::Open)?;
        let connection = tokio::spawn(connection);
        let outcome = self.ensure_with(&handle).await;
        connection.abort();
        outcome
    }

    async fn ensure_with(&self, handle: &Handle) -> Result<(), LinkError> {
        let index = match find(handle, &self.name).await {
            Some(index) => index,
            None => {
                let link = LinkBridge::new(&self.name).up().build();
                handle.link().add(link).execute().await.map_err(|source| self.refused("make", source))?;
                find(handle, &self.name).await.ok_or_else(|| LinkError::Vanished(self.name.clone()))?
            }
        };
        let up = LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build();
        handle.link().set(up).execute().await.map_err(|source| self.refused("bring up", source))?;
        let address = handle.address().add(index, self.dns_address.into(), 32).replace();
        address.execute().await.map_err(|source| self.refused("put the DNS address", source))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.service_cidr.network(), self.service_cidr.prefix_len())
            .output_interface(index)
            .pref_source(self.node_address)
            .scope(RouteScope::Link)
            .build();
        let route = handle.route().add(route).replace();
        route.execute().await.map_err(|source| self.refused("route the service range", source))
    }

    fn refused(&self, step: &'static str, source: rtnetlink::Error) -> LinkError {
        LinkError::Refused { step, link: self.name.clone(), source }
    }

    /// Removes the device; its address and route go with it. Idempotent.
    pub(crate) async fn remove(name: &str) -> Result<(), LinkError> {
        let (connection, handle, _) = new_connection().map_err(LinkError::Open)?;
        let connection = tokio::spawn(connection);
        let removed = match find(&handle, name).await {
            Some(index) => handle.link().del(index).execute().await,
            None => Ok(()),
        };
        connection.abort();
        removed.map_err(|source| LinkError::Refused { step: "remove", link: name.to_owned(), source })
    }
}

async fn find(handle: &Handle, name: &str) -> Option<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.ok().flatten().map(|link| link.header.index)
}
