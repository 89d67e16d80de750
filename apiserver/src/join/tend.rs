//! What the leader's server does for all: it takes servers that are gone out of the `kubernetes` Service.
//!
//! Every server puts itself in, and again when it is missing. That one is gone only the leader of the group can tell.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use reeve_store::Leadership;
use tokio::sync::watch;
use tracing::debug;

use super::ControlPlane;
use crate::registry::Registry;
use crate::status::ApiError;

/// How often it is looked who is there: nobody tells when a member falls silent.
const INTERVAL: Duration = Duration::from_secs(2);
/// Looks in a row at which a member was silent, before it is taken for gone.
const SILENT_LOOKS: u32 = 2;

impl ControlPlane {
    /// Runs while the server does.
    pub(crate) async fn tend(&self, registry: &Registry, mut leadership: watch::Receiver<Leadership>) {
        loop {
            // It ends with the store.
            if leadership.wait_for(Leadership::is_leader).await.is_err() {
                return;
            }
            let mut silent = 0;
            while leadership.borrow().is_leader() {
                tokio::time::sleep(INTERVAL).await;
                let looked = self.alive().await;
                let Ok((alive, all_there)) = looked else { continue };
                silent = if all_there { 0 } else { silent + 1 };
                if silent > 0 && silent < SILENT_LOOKS {
                    continue;
                }
                if let Err(error) = registry.keep_servers(&alive).await {
                    debug!(%error, "The servers of the kubernetes Service cannot be corrected; trying again.");
                }
            }
        }
    }

    /// Where the API servers are whose members are there, and whether that is all of them.
    async fn alive(&self) -> Result<(BTreeSet<SocketAddr>, bool), ApiError> {
        let status = self.status().await?;
        let records = self.records().await?;
        let is_there = |id| {
            let member = status.members.iter().find(|member| member.id == id);
            let is_active = member.is_some_and(|member| member.progress.is_none_or(|progress| progress.active));
            id == status.id || is_active
        };
        let (there, gone): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| is_there(record.id));
        let addresses = there.iter().filter_map(|record| record.api_address.parse::<SocketAddr>().ok());
        Ok((addresses.collect(), gone.is_empty()))
    }
}
