//! A server whose state lies in an etcd: whose that state is, and being one of those that have it.

use std::sync::Arc;

use reeve_apiserver::join::{self, InEtcd};
use reeve_apiserver::status::ApiError;
use reeve_store::{KvError, SharedKv};

use super::super::error::ClusterError;
use super::super::etcd;
use super::Server;
use super::place::{Place, Stage};

/// The etcd that the server was told of, if it was.
pub(super) async fn connect(place: &Place) -> Result<Option<SharedKv>, ClusterError> {
    match &place.etcd {
        Some(choice) => etcd::connect(choice).await.map(Some),
        None => Ok(None),
    }
}

/// Which etcd, and what is the matter with it.
fn about(place: &Place, reason: &dyn std::fmt::Display) -> ClusterError {
    let Some(choice) = &place.etcd else { return ClusterError::component("etcd", reason) };
    ClusterError::Told(format!("the etcd at {}, under {:?}: {reason}", choice.servers.join(","), choice.prefix))
}

/// Makes the etcd's state that of the control plane which this server begins. Where it is somebody else's, nothing has
/// happened.
pub(super) async fn claim(server: &mut Server, kv: &SharedKv) -> Result<(), ClusterError> {
    let claimed = join::claim(kv, server.place.settings()?, &server.place.own).await;
    if let Err(err) = claimed {
        if err.is_conflict() {
            server.folder.forget()?;
        }
        return Err(about(&server.place, &err.message));
    }
    server.place.stage = Stage::Member;
    server.folder.save(&server.place)
}

/// The number of the control plane that a server finds in the etcd with which it wants to join one.
pub(super) async fn owner(place: &Place, kv: Option<&SharedKv>) -> Result<Option<String>, ClusterError> {
    let Some(kv) = kv else { return Ok(None) };
    let owner = join::owner(kv).await.map_err(|err: KvError| about(place, &err))?;
    let nobody = "it holds no control plane that could be joined; give the flags that the other servers have (`reeve \
                  member add` prints them)";
    owner.map(Some).ok_or_else(|| about(place, &nobody))
}

/// Begins to be there; `None`: it was removed.
pub(super) async fn enter(place: &Place, kv: &SharedKv) -> Result<Option<Arc<InEtcd>>, ClusterError> {
    let entered = InEtcd::enter(Arc::clone(kv), place.settings()?, place.own.clone()).await;
    let entered = entered.map_err(|err: ApiError| about(place, &err.message))?;
    let was_removed = *entered.removed().borrow();
    Ok(Some(Arc::new(entered)).filter(|_| !was_removed))
}
