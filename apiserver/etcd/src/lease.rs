//! The service of leases.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use reeve_proto::etcd::etcdserverpb::lease_server::Lease;
use reeve_proto::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use reeve_store::LeaseId;
use tonic::{Request, Response, Status, Streaming};

use crate::error::of_store;
use crate::server::Served;

/// Requests of one stream to keep leases alive that are under way at once: they share a sync of the log.
const RENEWALS_AT_ONCE: usize = 64;

/// See the module.
pub(crate) struct Leases(pub(crate) Arc<Served>);

type Renewals = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

async fn renew(served: Arc<Served>, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
    let ttl = served.kv.lease_keep_alive(LeaseId(request.id)).await.map_err(|err| of_store(&err))?;
    // 0 says that there is no such lease.
    Ok(LeaseKeepAliveResponse { header: served.header(served.kv.revision()), id: request.id, ttl: ttl.unwrap_or(0) })
}

#[tonic::async_trait]
impl Lease for Leases {
    type LeaseKeepAliveStream = Renewals;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let granted = self.0.kv.lease_grant(LeaseId(request.id), request.ttl).await.map_err(|err| of_store(&err))?;
        let header = self.0.header(granted.revision);
        Ok(Response::new(LeaseGrantResponse { header, id: granted.id.0, ttl: granted.ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = LeaseId(request.into_inner().id);
        let revision = self.0.kv.lease_revoke(id).await.map_err(|err| of_store(&err))?;
        Ok(Response::new(LeaseRevokeResponse { header: self.0.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Renewals>, Status> {
        let served = self.0.clone();
        let renewals = request.into_inner().map(move |request| {
            let served = served.clone();
            async move { renew(served, request?).await }
        });
        Ok(Response::new(renewals.buffered(RENEWALS_AT_ONCE).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let status = self.0.kv.lease_status(LeaseId(request.id), request.keys).await.map_err(|err| of_store(&err))?;
        let header = self.0.header(self.0.kv.revision());
        let (ttl, granted_ttl, keys) =
            status.map_or((-1, 0, Vec::new()), |status| (status.ttl, status.granted_ttl, status.keys));
        Ok(Response::new(LeaseTimeToLiveResponse { header, id: request.id, ttl, granted_ttl, keys }))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.0.kv.leases().await.map_err(|err| of_store(&err))?;
        let leases = leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.0.header(self.0.kv.revision()), leases }))
    }
}
