//! What clients of etcd ask about the cluster and not about keys: who belongs to it, who leads, how much lies on disk.

use std::sync::Arc;

use futures::future::BoxFuture;
use reeve_store::{KvError, Leadership, MemberError, Role, Store};
use tokio::sync::watch;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's number.
    pub cluster: u64,
    /// The number of the member that answers.
    pub member: u64,
    /// Raft's term, as far as it knows.
    pub term: u64,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its number.
    pub id: u64,
    /// Where the others reach it, "host:port"; empty when it is not known.
    pub peer_address: String,
    /// Where clients of etcd reach it, URLs; known of the member that answers.
    pub client_urls: Vec<String>,
    /// Whether it does not vote yet.
    pub learner: bool,
}

/// How the member that answers stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The leader, if it knows one.
    pub leader: Option<u64>,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry that readers see.
    pub applied: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Whether writes are refused because the disk is full or the quota used up.
    pub out_of_space: bool,
    /// Everybody, itself among them.
    pub members: Vec<GroupMember>,
}

/// The seam between the protocol and the group that serves it. Called by every request; must not block.
/// Implementations: [`StoreFacts`], and the tests' one of a store in memory.
pub trait Facts: Send + Sync + 'static {
    /// What stands in the header of every answer.
    fn identity(&self) -> Identity;

    /// Who leads, now and whenever that changes; `None` where that is never in question.
    fn leadership(&self) -> Option<watch::Receiver<Leadership>>;

    /// How things stand.
    fn status(&self) -> BoxFuture<'_, Result<GroupStatus, KvError>>;

    /// Makes another member leader.
    fn move_leader(&self, id: u64) -> BoxFuture<'_, Result<(), MemberError>>;

    /// Makes a voter of a learner.
    fn promote(&self, id: u64) -> BoxFuture<'_, Result<(), MemberError>>;

    /// Removes a member.
    fn remove(&self, id: u64) -> BoxFuture<'_, Result<(), MemberError>>;

    /// Says where a member is reached by the others from now on, "host:port".
    fn move_member(&self, id: u64, address: String) -> BoxFuture<'_, Result<(), MemberError>>;
}

/// What the embedded store knows.
#[derive(Debug)]
pub struct StoreFacts {
    store: Arc<Store>,
    member: u64,
    cluster: u64,
    client_urls: Vec<String>,
}

impl StoreFacts {
    /// Asks the store who it is. `client_urls` are where clients of etcd reach this member.
    pub async fn of(store: Arc<Store>, client_urls: Vec<String>) -> Result<Self, MemberError> {
        let status = store.status().await?;
        // A store that runs alone has no number for its cluster; clients take 0 for "none".
        let cluster = if status.cluster == 0 { 1 } else { status.cluster };
        Ok(Self { store, member: status.id, cluster, client_urls })
    }
}

impl Facts for StoreFacts {
    fn identity(&self) -> Identity {
        let term = self.store.leadership().borrow().term;
        Identity { cluster: self.cluster, member: self.member, term }
    }

    fn leadership(&self) -> Option<watch::Receiver<Leadership>> {
        Some(self.store.leadership())
    }

    fn status(&self) -> BoxFuture<'_, Result<GroupStatus, KvError>> {
        Box::pin(async move {
            let status = self.store.status().await.map_err(|err| match err {
                MemberError::Stopped(err) => err,
                err => KvError::Unavailable { reason: err.to_string() },
            })?;
            let urls = |id| if id == self.member { self.client_urls.clone() } else { Vec::new() };
            let members = status.members.into_iter().map(|member| GroupMember {
                id: member.id,
                client_urls: urls(member.id),
                peer_address: member.address,
                learner: !member.voter,
            });
            let leads = status.leadership.role == Role::Leader;
            Ok(GroupStatus {
                leader: if leads { Some(self.member) } else { status.leadership.leader },
                committed: status.commit,
                applied: status.applied,
                disk_bytes: status.log_bytes + status.snapshot_bytes,
                out_of_space: status.disk_full || self.store.is_over_quota(),
                members: members.collect(),
            })
        })
    }

    fn move_leader(&self, id: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(self.store.transfer_leadership(Some(id)))
    }

    fn promote(&self, id: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(self.store.promote(id))
    }

    fn remove(&self, id: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(self.store.remove(id))
    }

    fn move_member(&self, id: u64, address: String) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move { self.store.move_member(id, &address).await })
    }
}
