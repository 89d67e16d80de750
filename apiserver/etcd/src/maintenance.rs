//! The service of operators: status, alarms, hashes, backups, who leads.
//!
//! A "snapshot" is a backup of ours, as `reeve restore` takes it; etcd's own tools cannot read it. Nothing is ever
//! defragmented, because nothing needs it; alarms come and go by themselves.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use reeve_proto::backup::BackupHead;
use reeve_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use reeve_proto::etcd::etcdserverpb::downgrade_request::DowngradeAction;
use reeve_proto::etcd::etcdserverpb::maintenance_server::Maintenance;
use reeve_proto::etcd::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use reeve_store::{MemberError, SharedKv, backup};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::ETCD_VERSION;
use crate::cluster::of_member;
use crate::convert::{revision, signed};
use crate::error::{self, BAD_DOWNGRADE, BAD_TRANSFEREE, NO_DOWNGRADE, NO_LEADER, of_store};
use crate::server::Served;

/// Pieces of a backup that wait for its reader; whoever makes it waits then.
const PIECES_MAX: usize = 4;

/// See the module.
pub(crate) struct Operators(pub(crate) Arc<Served>);

type Pieces = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Sends a backup in the shape that etcd's tools want of a snapshot: a multiple of a disk's block, and then a checksum.
async fn send_backup(kv: SharedKv, about: BackupHead, sink: mpsc::Sender<Result<Bytes, Status>>) {
    let (packer, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
    let packing = async move { backup::pack(&*kv, about, &packer).await };
    let sending = async {
        let (mut hasher, mut len) = (Sha256::new(), 0);
        while let Some(piece) = pieces.recv().await {
            hasher.update(&piece);
            len += piece.len();
            if sink.send(Ok(piece)).await.is_err() {
                return None; // the client has gone
            }
        }
        let padding = vec![0; len.next_multiple_of(backup::BLOCK_BYTES) - len];
        hasher.update(&padding);
        Some([&padding[..], &hasher.finalize()[..]].concat())
    };
    let (packed, end) = tokio::join!(packing, sending);
    let end = match (packed, end) {
        (Ok(()), Some(end)) => Ok(end.into()),
        (Ok(()), None) => return,
        (Err(err), _) => Err(of_store(&err)),
    };
    let _ = sink.send(end).await; // a client that has gone away does not need it
}

#[tonic::async_trait]
impl Maintenance for Operators {
    type SnapshotStream = Pieces;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let action = AlarmAction::try_from(request.into_inner().action).unwrap_or_default();
        let raised = match action {
            AlarmAction::Get => self.0.facts.status().await.map_err(|err| of_store(&err))?.out_of_space,
            // They go when the reason is gone.
            AlarmAction::Deactivate => false,
            AlarmAction::Activate => {
                return Err(Status::failed_precondition("etcdserver: alarms are raised by the store itself"));
            }
        };
        let member_id = self.0.facts.identity().member;
        let alarm = AlarmMember { member_id, alarm: AlarmType::Nospace.into() };
        let header = self.0.header(self.0.kv.revision());
        Ok(Response::new(AlarmResponse { header, alarms: raised.then_some(alarm).into_iter().collect() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.0.facts.status().await.map_err(|err| of_store(&err))?;
        let own = self.0.facts.identity();
        let is_learner = status.members.iter().any(|member| member.id == own.member && member.learner);
        let mut errors = Vec::new();
        if status.out_of_space {
            errors.push(format!("memberID:{} alarm:NOSPACE ", own.member));
        }
        if status.leader.is_none() {
            errors.push(NO_LEADER.1.to_owned());
        }
        let bytes = number(status.disk_bytes);
        Ok(Response::new(StatusResponse {
            header: self.0.header(self.0.kv.revision()),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed,
            raft_term: own.term,
            raft_applied_index: status.applied,
            errors,
            db_size_in_use: bytes,
            is_learner,
            storage_version: ETCD_VERSION.to_owned(),
            db_size_quota: 0,
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse { header: self.0.header(self.0.kv.revision()) }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let hash = self.0.kv.hash_kv(None).await.map_err(|err| of_store(&err))?;
        Ok(Response::new(HashResponse { header: self.0.header(self.0.kv.revision()), hash: hash.hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let at = revision(request.into_inner().revision);
        let hash = self.0.kv.hash_kv(at).await.map_err(|err| of_store(&err))?;
        Ok(Response::new(HashKvResponse {
            header: self.0.header(self.0.kv.revision()),
            hash: hash.hash,
            compact_revision: signed(hash.compacted),
            hash_revision: signed(hash.revision),
        }))
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Pieces>, Status> {
        let (sink, pieces) = mpsc::channel(PIECES_MAX);
        let (kv, own, now) = (self.0.kv.clone(), self.0.facts.identity(), self.0.clock.now());
        let header = self.0.header(kv.revision());
        let about = BackupHead {
            name: format!("{:x}", own.cluster),
            created: now.as_second(),
            program: "reeve, asked by a client of etcd".to_owned(),
            ..BackupHead::default()
        };
        tokio::spawn(send_backup(kv, about, sink));
        // How much there is left is not known before it is read; clients read until the end.
        let piece = move |blob: Result<Bytes, Status>| {
            let version = ETCD_VERSION.to_owned();
            Ok(SnapshotResponse { header, remaining_bytes: 0, blob: blob?, version })
        };
        Ok(Response::new(ReceiverStream::new(pieces).map(piece).boxed()))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        let status = self.0.facts.status().await.map_err(|err| of_store(&err))?;
        if !status.members.iter().any(|member| member.id == target) {
            return Err(error::status(BAD_TRANSFEREE));
        }
        if status.leader != Some(target) {
            self.0.facts.move_leader(target).await.map_err(|err| match err {
                MemberError::Unknown { .. } => error::status(BAD_TRANSFEREE),
                err => of_member(&err),
            })?;
        }
        Ok(Response::new(MoveLeaderResponse { header: self.0.header(self.0.kv.revision()) }))
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        Err(error::status(match DowngradeAction::try_from(request.into_inner().action).unwrap_or_default() {
            DowngradeAction::Cancel => NO_DOWNGRADE,
            DowngradeAction::Validate | DowngradeAction::Enable => BAD_DOWNGRADE,
        }))
    }
}
