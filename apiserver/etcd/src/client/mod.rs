//! A store that is a cluster of etcd: our API server on what a site has and trusts.
//!
//! Revisions are etcd's. Everything lies under a prefix, so that others may use the same cluster; nothing outside it is
//! read, written or deleted. Requests go to one member at a time, and to the next when it does not answer: reads are
//! asked again there, writes only if they certainly have not been sent. Watches go on at another member where they
//! were ([`watch`]).

mod convert;
mod endpoints;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reeve_proto::etcd::etcdserverpb::kv_client::KvClient;
use reeve_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use reeve_proto::etcd::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, ResponseHeader,
};
use reeve_store::{
    Kv, KvError, LeaseGrant, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision, Txn, TxnResponse,
    WatchRequest, WatchStream,
};
use tonic::Status;
use tonic::transport::Channel;

pub use endpoints::{EtcdError, EtcdTls};

use crate::convert::signed;
use crate::error::to_store;
use convert::Prefixed;
use endpoints::Endpoints;

/// The largest answer that is taken in: a range of everything is one.
pub(crate) const ANSWER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Where the cluster of etcd is.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// Its members' URLs for clients, `https://host:2379`.
    pub endpoints: Vec<String>,
    /// Certificates; `None` for `http://`.
    pub tls: Option<EtcdTls>,
    /// What all keys begin with there.
    pub prefix: String,
    /// How long a request may take, over all members that are tried.
    pub request_timeout: Duration,
}

impl EtcdConfig {
    /// The usual times.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, tls: None, prefix: String::new(), request_timeout: Duration::from_secs(7) }
    }
}

/// See the module. Cheap to share.
#[derive(Debug)]
pub struct EtcdKv {
    endpoints: Arc<Endpoints>,
    prefix: Arc<Prefixed>,
    /// The newest revision that concerns us: of our own writes, and of what watches have seen.
    revision: Arc<AtomicU64>,
    request_timeout: Duration,
}

impl EtcdKv {
    /// Connects, and learns how far the store is.
    pub async fn connect(config: EtcdConfig) -> Result<Arc<Self>, EtcdError> {
        let endpoints = Arc::new(Endpoints::new(&config)?);
        let prefix = Arc::new(Prefixed::new(config.prefix));
        let revision = Arc::new(AtomicU64::new(0));
        let own = Self { endpoints, prefix, revision, request_timeout: config.request_timeout };
        let newest = own.range(RangeRequest { count_only: true, ..RangeRequest::key("\0") }).await;
        let newest = newest.map_err(|err| EtcdError::Unreachable { reason: err.to_string() })?;
        own.note(newest.revision);
        Ok(Arc::new(own))
    }

    fn note(&self, revision: Revision) {
        self.revision.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Asks one member after the other until one answers, as long as that cannot do anything twice.
    async fn ask<T, F: Future<Output = Result<T, Status>>>(
        &self,
        repeatable: bool,
        about: LeaseId,
        request: impl Fn(Channel) -> F,
    ) -> Result<T, KvError> {
        let waits_for = AtomicU64::new(0);
        let asked = async {
            let mut last = None;
            for _ in 0..=self.endpoints.len() {
                let (number, channel) = self.endpoints.current().await?;
                waits_for.store(number, Ordering::Relaxed);
                match request(channel).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => {
                        let lost = endpoints::is_lost(&status);
                        if lost {
                            self.endpoints.leave(number);
                        }
                        let again = lost && (repeatable || endpoints::was_not_sent(&status));
                        last = Some(to_store(&status, about));
                        if !again {
                            break;
                        }
                    }
                }
            }
            Err(last.unwrap_or(KvError::Closed))
        };
        let late = |_| {
            // It may be that only this member says nothing: the next request goes to another one.
            self.endpoints.leave(waits_for.load(Ordering::Relaxed));
            KvError::Unavailable { reason: format!("no etcd has answered in {:?}", self.request_timeout) }
        };
        tokio::time::timeout(self.request_timeout, asked).await.map_err(late)?
    }

    fn keys(channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| u64::try_from(header.revision).unwrap_or(0)))
}

/// etcd does not say which revisions it is about; whoever asked knows one of them.
fn with_revision(err: KvError, asked: Option<Revision>, newest: Revision) -> KvError {
    let requested = asked.unwrap_or(newest);
    match err {
        KvError::Compacted { .. } => KvError::Compacted { requested, compacted: Revision(requested.0 + 1) },
        KvError::Future { .. } => KvError::Future { requested, newest },
        err => err,
    }
}

#[async_trait::async_trait]
impl Kv for EtcdKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let asked = request.revision;
        let sent = self.prefix.range_request(&request);
        let answer = self
            .ask(true, LeaseId::NONE, |channel| {
                let sent = sent.clone();
                async move { Self::keys(channel).range(sent).await }
            })
            .await;
        let answer = answer.map_err(|err| with_revision(err, asked, self.revision()))?.into_inner();
        Ok(self.prefix.range_response(answer))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        let reads = convert::only_reads(&txn);
        let sent = self.prefix.txn_request(&txn)?;
        let answer = self
            .ask(reads, convert::lease_of(&txn), |channel| {
                let sent = sent.clone();
                async move { Self::keys(channel).txn(sent).await }
            })
            .await;
        let asked = convert::oldest_read(&txn);
        let answer = answer.map_err(|err| with_revision(err, asked, self.revision()))?.into_inner();
        let revision = revision_of(answer.header.as_ref());
        let response = self.prefix.txn_response(answer, revision)?;
        if convert::changed(&response) {
            self.note(revision);
        }
        Ok(response)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError> {
        let watch = watch::Watch {
            endpoints: self.endpoints.clone(),
            prefix: self.prefix.clone(),
            newest: self.revision.clone(),
            range: self.prefix.key_range(&request.range),
            previous: request.previous,
            next: request.start,
        };
        watch.start().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        let sent = CompactionRequest { revision: signed(revision), physical: false };
        let compacted =
            self.ask(false, LeaseId::NONE, |channel| async move { Self::keys(channel).compact(sent).await }).await;
        compacted.map(drop).map_err(|err| with_revision(err, Some(revision), self.revision()))
    }

    async fn scrubbed(&self, _revision: Revision) -> Result<(), KvError> {
        Ok(()) // when etcd makes room is its own affair
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<LeaseGrant, KvError> {
        let sent = LeaseGrantRequest { id: id.0, ttl };
        let granted = self.ask(false, id, |channel| async move { LeaseClient::new(channel).lease_grant(sent).await });
        let granted = granted.await?.into_inner();
        let revision = revision_of(granted.header.as_ref());
        Ok(LeaseGrant { id: LeaseId(granted.id), ttl: granted.ttl, revision })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError> {
        let sent = LeaseRevokeRequest { id: id.0 };
        let revoked = self.ask(false, id, |channel| async move { LeaseClient::new(channel).lease_revoke(sent).await });
        Ok(revision_of(revoked.await?.into_inner().header.as_ref()))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>, KvError> {
        let answer = self.ask(true, id, |channel| async move {
            let once = futures::stream::once(async move { LeaseKeepAliveRequest { id: id.0 } });
            LeaseClient::new(channel).lease_keep_alive(once).await?.into_inner().message().await
        });
        let answer = answer.await?;
        Ok(answer.map(|answer| answer.ttl).filter(|ttl| *ttl > 0))
    }

    async fn lease_status(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseStatus>, KvError> {
        let sent = LeaseTimeToLiveRequest { id: id.0, keys };
        let answer =
            self.ask(true, id, |channel| async move { LeaseClient::new(channel).lease_time_to_live(sent).await });
        let answer = answer.await?.into_inner();
        if answer.ttl < 0 {
            return Ok(None);
        }
        let mut keys: Vec<Bytes> = answer.keys.iter().filter_map(|key| self.prefix.without(key)).collect();
        keys.sort_unstable();
        Ok(Some(LeaseStatus { id, granted_ttl: answer.granted_ttl, ttl: answer.ttl, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        let answer = self.ask(true, LeaseId::NONE, |channel| async move {
            LeaseClient::new(channel).lease_leases(LeaseLeasesRequest {}).await
        });
        Ok(answer.await?.into_inner().leases.into_iter().map(|lease| LeaseId(lease.id)).collect())
    }

    fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }
}
