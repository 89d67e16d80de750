//! The service of members: who belongs to the cluster, and changes of that. Members join in another way.

use std::sync::Arc;

use reeve_proto::etcd::etcdserverpb::cluster_server::Cluster;
use reeve_proto::etcd::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use reeve_store::MemberError;
use tonic::{Request, Response, Status};

use crate::error::{
    self, BAD_TRANSFEREE, BAD_URLS, LEARNER_NOT_READY, MEMBER_EXISTS, MEMBER_NOT_FOUND, MEMBER_NOT_LEARNER,
    NOT_ENOUGH_STARTED, of_store,
};
use crate::facts::GroupMember;
use crate::server::Served;

/// See the module.
pub(crate) struct Members(pub(crate) Arc<Served>);

fn shown(member: GroupMember) -> Member {
    let GroupMember { id, peer_address, client_urls, learner } = member;
    let peers = Some(peer_address).filter(|address| !address.is_empty());
    Member {
        id,
        name: format!("{id:x}"),
        peer_ur_ls: peers.into_iter().map(|address| format!("https://{address}")).collect(),
        client_ur_ls: client_urls,
        is_learner: learner,
    }
}

/// What a client of etcd is told of a change that was refused.
pub(crate) fn of_member(err: &MemberError) -> Status {
    match err {
        MemberError::Unknown { .. } => error::status(MEMBER_NOT_FOUND),
        MemberError::Exists { .. } | MemberError::Removed { .. } => error::status(MEMBER_EXISTS),
        MemberError::Voter { .. } => error::status(MEMBER_NOT_LEARNER),
        MemberError::Learner { .. } => error::status(BAD_TRANSFEREE),
        MemberError::Behind { .. } => error::status(LEARNER_NOT_READY),
        MemberError::LosesQuorum { .. } => error::status(NOT_ENOUGH_STARTED),
        MemberError::Stopped(err) => of_store(err),
        err => Status::unavailable(format!("etcdserver: {err}")),
    }
}

impl Members {
    async fn all(&self) -> Result<Vec<Member>, Status> {
        let status = self.0.facts.status().await.map_err(|err| of_store(&err))?;
        Ok(status.members.into_iter().map(shown).collect())
    }

    fn header(&self) -> Option<reeve_proto::etcd::etcdserverpb::ResponseHeader> {
        self.0.header(self.0.kv.revision())
    }
}

#[tonic::async_trait]
impl Cluster for Members {
    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        let how = "etcdserver: a member is added by starting it: `reeve server --join ADDRESS --token TOKEN`";
        Err(Status::failed_precondition(how))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.0.facts.remove(request.into_inner().id).await.map_err(|err| of_member(&err))?;
        Ok(Response::new(MemberRemoveResponse { members: self.all().await?, header: self.header() }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let address = match &peer_ur_ls[..] {
            [url] => url.strip_prefix("https://"),
            _ => None,
        };
        let address = address.ok_or_else(|| error::status(BAD_URLS))?.to_owned();
        self.0.facts.move_member(id, address).await.map_err(|err| of_member(&err))?;
        Ok(Response::new(MemberUpdateResponse { members: self.all().await?, header: self.header() }))
    }

    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        // etcd says no revision here.
        let header = self.0.header(reeve_store::Revision(0));
        Ok(Response::new(MemberListResponse { members: self.all().await?, header }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.0.facts.promote(request.into_inner().id).await.map_err(|err| of_member(&err))?;
        Ok(Response::new(MemberPromoteResponse { members: self.all().await?, header: self.header() }))
    }
}
