//! What the benchmark needs: the way of one Service from objects to the kernel, without a cluster.

use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reeve_client::ObjectKey;

use crate::nft::NftError;
use crate::services::layout::Surroundings;
use crate::services::plan::{Refused, plan};
use crate::services::rules::Rules;

/// A table in this thread's network namespace.
pub struct Table(Rules);

impl Table {
    /// Nothing is in the kernel yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(name: &str, cluster: Ipv4Net, service: Ipv4Net) -> Result<Self, NftError> {
        let surroundings = Surroundings { cluster, service, pod_links: "none".to_owned() };
        Rules::new(name.to_owned(), surroundings).map(Self)
    }

    /// Decides on these Services and tells the kernel; returns how many bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sync(&mut self, changes: &[(ObjectKey, Service, Arc<EndpointSlice>)]) -> Result<usize, NftError> {
        let none = Refused::new();
        let entries = |service, slice: &Arc<EndpointSlice>| plan(service, std::slice::from_ref(slice), "n1", &none);
        self.0.sync(changes.iter().map(|(key, service, slice)| (key.clone(), Some(entries(service, slice)))).collect())
    }
}
