//! The steps of a server that joins: it asks for the keys, starts as a learner, and votes when it has caught up.

use std::time::Duration;

use reeve_apiserver::join::{JoinRequest, JoinToken, TokenParseError, join};
use reeve_store::{MemberError, SharedKv, Store};

use super::args::ServerArgs;
use super::place::Stage;
use super::{ClusterError, Server, in_etcd};

/// Environment variable with the token, where a command line would show it to everybody on the machine.
const TOKEN_VARIABLE: &str = "REEVE_TOKEN";
/// How long a control plane that cannot take anybody in now (it has no leader) is asked again, and how often.
const ASKED_FOR: Duration = Duration::from_secs(60);
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// How soon a learner that is behind asks again to vote.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);

/// Asks to be taken in. What comes of it is kept before anything else happens. `kv` is the etcd that holds the state.
pub(super) async fn ask(
    server: &mut Server,
    args: &ServerArgs,
    token: Option<&str>,
    kv: Option<&SharedKv>,
) -> Result<(), ClusterError> {
    let Some(address) = &args.join else { return Err(ClusterError::component("server", "nobody to join")) };
    let from_environment = std::env::var(TOKEN_VARIABLE).ok();
    let token = token.or(from_environment.as_deref());
    let token = token.ok_or_else(|| {
        ClusterError::Told(format!(
            "--join needs a token: --token, or {TOKEN_VARIABLE} in the environment; `reeve token create` makes one"
        ))
    })?;
    let token: JoinToken = token.parse().map_err(|err: TokenParseError| ClusterError::Told(err.to_string()))?;
    let request = JoinRequest {
        record: server.place.own.clone(),
        replaces: args.replace.clone(),
        in_etcd: in_etcd::owner(&server.place, kv).await?,
        version: reeve_apiserver::VERSION.to_owned(),
    };
    let until = tokio::time::Instant::now() + ASKED_FOR;
    let joined = loop {
        match join(address, &token, &request).await {
            Ok(joined) => break joined,
            // Somebody who does not answer at all has probably another address.
            Err(err) if err.is_busy() && tokio::time::Instant::now() < until => {
                tracing::info!(%err, "Asking again.");
                tokio::time::sleep(ASK_PAUSE).await;
            }
            Err(err) => return Err(ClusterError::Told(err.to_string())),
        }
    };
    let written = joined.keys.write(&server.folder.join(super::running::PKI));
    written.map_err(|err| ClusterError::component("certificates", err))?;
    server.place.own = joined.record;
    server.place.settings = Some(joined.settings);
    let is_group = server.place.etcd.is_none();
    server.place.members = if is_group { joined.members } else { Vec::new() };
    server.place.stage = if is_group { Stage::Learning } else { Stage::Member };
    server.folder.save(&server.place)
}

/// Gets its vote, or that of the member it replaces, as soon as it has everything.
pub(super) async fn become_voter(server: &mut Server, store: &Store) -> Result<(), ClusterError> {
    let id = server.place.own.id;
    let mut said = false;
    loop {
        let votes = store.status().await.is_ok_and(|status| {
            let own = status.members.iter().find(|member| member.id == id);
            own.is_some_and(|own| own.voter)
        });
        if votes {
            break;
        }
        let asked = match server.place.replaces() {
            Some(replaced) => store.replace(replaced, id).await,
            None => store.promote(id).await,
        };
        match asked {
            Ok(()) | Err(MemberError::Voter { .. }) => break,
            Err(err @ (MemberError::Behind { .. } | MemberError::Busy | MemberError::Unavailable { .. })) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(%err, "Catching up with the others.");
                }
                tokio::time::sleep(CATCH_UP_PAUSE).await;
            }
            // Its log has not told it of itself yet.
            Err(MemberError::Unknown { id: unknown }) if unknown == id => tokio::time::sleep(CATCH_UP_PAUSE).await,
            // Somebody else has taken the lost one out meanwhile.
            Err(MemberError::Unknown { .. }) => server.place.own.replaces = None,
            Err(err) => return Err(ClusterError::component("store", err)),
        }
    }
    tracing::info!("This server votes.");
    server.place.stage = Stage::Member;
    server.folder.save(&server.place)
}
