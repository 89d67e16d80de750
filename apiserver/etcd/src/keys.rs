//! The service of keys: ranges, puts, deletions, transactions, compaction.

use std::sync::Arc;

use prost::Message as _;
use reeve_proto::etcd::etcdserverpb::kv_server::Kv as KvService;
use reeve_proto::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use reeve_store::{KvError, LeaseId, OpResponse, Revision, Txn};
use tonic::{Request, Response, Status};

use crate::error::{self, Known, REQUEST_TOO_LARGE, of_store};
use crate::server::Served;
use crate::{REQUEST_BYTES_MAX, check, convert};

/// See the module.
pub(crate) struct Keys(pub(crate) Arc<Served>);

fn checked(outcome: Result<(), Known>) -> Result<(), Status> {
    outcome.map_err(error::status)
}

/// What writes goes into the log, which takes no more than this.
fn check_size(bytes: usize) -> Result<(), Status> {
    if bytes > REQUEST_BYTES_MAX { Err(error::status(REQUEST_TOO_LARGE)) } else { Ok(()) }
}

impl Keys {
    async fn one(&self, op: reeve_store::Op) -> Result<(Revision, OpResponse), KvError> {
        let response = self.0.kv.txn(Txn { then: vec![op], ..Txn::default() }).await?;
        let only = response.responses.into_iter().next();
        let only = only.ok_or(KvError::Unavailable { reason: "a step was not answered".to_owned() })?;
        Ok((response.revision, only))
    }

    /// etcd looks for the lease of a single put before it looks for the key.
    async fn put_error(&self, err: KvError, lease: LeaseId) -> Status {
        let lease_is_missing = matches!(err, KvError::KeyNotFound { .. })
            && lease.is_some()
            && matches!(self.0.kv.lease_status(lease, false).await, Ok(None));
        of_store(&if lease_is_missing { KvError::LeaseNotFound(lease) } else { err })
    }
}

#[tonic::async_trait]
impl KvService for Keys {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        checked(check::range(&request))?;
        let response = self.0.kv.range(convert::range_request(&request)).await.map_err(|err| of_store(&err))?;
        let header = self.0.header(response.revision);
        Ok(Response::new(convert::range_response(response, header)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        checked(check::put(&request))?;
        check_size(request.encoded_len())?;
        let (wants_previous, lease) = (request.prev_kv, LeaseId(request.lease));
        match self.one(convert::put_op(request)).await {
            Ok((revision, OpResponse::Put { previous })) => {
                Ok(Response::new(convert::put_response(previous, self.0.header(revision), wants_previous)))
            }
            Ok(_) => Err(unexpected()),
            Err(err) => Err(self.put_error(err, lease).await),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        checked(check::delete(&request))?;
        check_size(request.encoded_len())?;
        let (revision, answer) = self.one(convert::delete_op(&request)).await.map_err(|err| of_store(&err))?;
        let OpResponse::Delete { previous } = answer else { return Err(unexpected()) };
        Ok(Response::new(convert::delete_response(previous, self.0.header(revision), request.prev_kv)))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        checked(check::txn(&request))?;
        check_size(request.encoded_len())?;
        let wanted = convert::wanted(&request);
        let response = self.0.kv.txn(convert::txn(request)).await.map_err(|err| of_store(&err))?;
        let (header, succeeded) = (self.0.header(response.revision), response.succeeded);
        Ok(Response::new(TxnResponse { header, succeeded, responses: convert::steps(response, &wanted) }))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        let at = Revision(u64::try_from(revision).unwrap_or(0));
        self.0.kv.compact(at).await.map_err(|err| of_store(&err))?;
        if physical {
            self.0.kv.scrubbed(at).await.map_err(|err| of_store(&err))?;
        }
        Ok(Response::new(CompactionResponse { header: self.0.header(self.0.kv.revision()) }))
    }
}

fn unexpected() -> Status {
    Status::internal("a step was answered as another one")
}
