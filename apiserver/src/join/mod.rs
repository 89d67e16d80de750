//! Several servers as one control plane: what a server tells one that joins, and who the members of the store's group
//! are and what can be done with them, over HTTP.
//!
//! | path | for whom |
//! |---|---|
//! | `GET /reeve/v1/ca` | everybody: the cluster CA's certificate, which is no secret |
//! | `POST /reeve/v1/join` | holders of a join token (`token.rs`), nobody else: the answer holds the cluster's keys |
//! | `GET /reeve/v1/members` | users who may `get` that path; a follower asks the leader, unless `?local=true` |
//! | `DELETE /reeve/v1/members/NAME` | users who may `delete` that path |
//! | `POST /reeve/v1/members/NAME/promote`, `…/lead` | users who may `post` to that path |
//!
//! The paths are there only if the server is one of a control plane ([`crate::ApiServer::serve_control_plane`]). What
//! is not here: the group itself (`reeve-store`, behind [`Group`]), how its members talk to each other.

mod alarms;
mod client;
mod compare;
mod figures;
mod in_etcd;
mod neighbours;
mod records;
mod tend;
#[cfg(test)]
mod tests;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request as HttpRequest, StatusCode};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use reeve_store::{MemberError, MemberInfo, MemberStatus, SharedKv, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

pub use self::client::{Joined, Unjoined, join};
pub use self::figures::Network;
pub(crate) use self::figures::{Neighbourhood, Told};
pub use self::in_etcd::{EtcdPlace, InEtcd, claim, owner};
pub(crate) use self::neighbours::Neighbours;
pub use self::records::{Record, is_about_servers};
pub use self::token::{JoinToken, TokenParseError, bootstrap_secret};
use crate::http::{Answer, Body};
use crate::pki::{Pki, SharedKeys};
use crate::registry::Registry;
use crate::status::ApiError;

/// What the paths begin with.
const ROOT: &str = "/reeve/v1/";
/// Requests to join that are looked at at once; others wait.
const ARRIVALS_MAX: usize = 4;
/// Says that no other server is to be asked.
const LOCAL: &str = "local=true";
/// Names become parts of Leases' identities and of host names.
const NAME_LEN_MAX: usize = 63;

/// The members of the store's group, as the API server needs them; may be asked on any member. The embedded store is
/// one, as [`Store`] documents it.
#[async_trait::async_trait]
pub trait Group: Send + Sync + 'static {
    /// Who there is and how they are, as this member knows it.
    async fn status(&self) -> Result<MemberStatus, MemberError>;

    /// Takes in a member that gets everything and decides nothing.
    async fn add_learner(&self, id: u64, address: &str) -> Result<(), MemberError>;

    /// Lets a member vote that has caught up.
    async fn promote(&self, id: u64) -> Result<(), MemberError>;

    /// Takes a member out for good.
    async fn remove(&self, id: u64) -> Result<(), MemberError>;

    /// Makes a voter the leader.
    async fn lead(&self, id: u64) -> Result<(), MemberError>;
}

#[async_trait::async_trait]
impl Group for Store {
    async fn status(&self) -> Result<MemberStatus, MemberError> {
        Self::status(self).await
    }

    async fn add_learner(&self, id: u64, address: &str) -> Result<(), MemberError> {
        Self::add_learner(self, id, address).await
    }

    async fn promote(&self, id: u64) -> Result<(), MemberError> {
        Self::promote(self, id).await
    }

    async fn remove(&self, id: u64) -> Result<(), MemberError> {
        Self::remove(self, id).await
    }

    async fn lead(&self, id: u64) -> Result<(), MemberError> {
        self.transfer_leadership(Some(id)).await
    }
}

/// What all servers of a control plane agree upon; settled by the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The group's number, in hexadecimal: members of another one are refused.
    pub cluster_id: String,
    /// Addresses of pods.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
}

/// What a server sends that wants to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JoinRequest {
    /// Who it is.
    #[serde(flatten)]
    pub record: Record,
    /// The member in whose place it comes, if there is one: it gets that one's vote, and may have its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Where its state lies in an etcd: the number of the control plane that it has found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_etcd: Option<String>,
    /// Its version, for the log.
    pub version: String,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    /// What all agree upon.
    pub settings: Settings,
    /// The cluster's keys.
    pub keys: SharedKeys,
    /// Who is there already, the new one included.
    pub members: Vec<Record>,
    /// What is known of it now.
    pub record: Record,
}

/// What a server of a control plane adds to its API.
pub struct ControlPlane {
    group: Arc<dyn Group>,
    /// Where the members' names are kept.
    kv: SharedKv,
    /// The keys that are handed on.
    pki: Pki,
    settings: Settings,
    /// How the connections to other members are.
    network: Arc<dyn Network>,
    /// Where the state lies, if not with the group.
    etcd: Option<EtcdPlace>,
    /// Asks other servers; they are asked nothing before this server is served.
    neighbours: Option<Neighbours>,
    /// How often all members' data is compared, while this server's member leads.
    compared_every: Option<Duration>,
    compared: compare::Counts,
    /// Strangers ask the whole group whether their token is there: a few at a time.
    arrivals: Semaphore,
}

/// What the request is about, below [`ROOT`]; `None`: something else.
fn below_root(path: &str) -> Option<&str> {
    path.strip_prefix(ROOT)
}

/// Whether that path is answered by [`ControlPlane::answer_stranger`], before anybody is asked who they are.
pub(crate) fn is_for_strangers(path: &str) -> bool {
    matches!(below_root(path), Some("ca" | "join"))
}

impl ControlPlane {
    /// `kv` is the store of `group`.
    #[must_use]
    pub fn new(
        (group, network): (Arc<dyn Group>, Arc<dyn Network>),
        kv: SharedKv,
        pki: Pki,
        settings: Settings,
    ) -> Self {
        let arrivals = Semaphore::new(ARRIVALS_MAX);
        let (etcd, neighbours, compared_every, compared) = (None, None, None, compare::Counts::default());
        Self { group, kv, pki, settings, network, etcd, neighbours, compared_every, compared, arrivals }
    }

    /// The state lies in that etcd; the group is [`InEtcd`].
    #[must_use]
    pub fn in_etcd(self, place: EtcdPlace) -> Self {
        Self { etcd: Some(place), ..self }
    }

    /// Compares the members' data so often.
    #[must_use]
    pub fn compared_every(self, every: Option<Duration>) -> Self {
        Self { compared_every: every, ..self }
    }

    /// By whom other servers are asked.
    pub(crate) fn asking(self, neighbours: Neighbours) -> Self {
        Self { neighbours: Some(neighbours), ..self }
    }

    /// The cluster CA.
    pub(crate) fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// Answers requests that need no user: the CA, and joining, which has a token of its own.
    pub(crate) async fn answer_stranger(
        &self,
        registry: &Registry,
        now: Timestamp,
        request: HttpRequest<Body>,
    ) -> Result<Answer, ApiError> {
        match (below_root(request.uri().path()), request.method()) {
            (Some("ca"), &Method::GET) => Ok(crate::http::text(StatusCode::OK, self.pki.ca_pem().to_owned())),
            (Some("join"), &Method::POST) => {
                let _place = self.arrivals.acquire().await.map_err(ApiError::internal)?;
                let token = bearer(request.headers()).unwrap_or_default().to_owned();
                self.admit(registry, now, &token).await?;
                let body = crate::http::read_body(request.into_body()).await?;
                let asked = serde_json::from_slice(&body);
                let asked: JoinRequest =
                    asked.map_err(|err| ApiError::bad_request(format!("a join request: {err}")))?;
                let answer = self.take_in(asked).await?;
                Ok(crate::http::json(StatusCode::OK, &json!(answer)))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// Whether the holder of that token may join.
    async fn admit(&self, registry: &Registry, now: Timestamp, shown: &str) -> Result<(), ApiError> {
        let refused = |why: &str| ApiError::new(401, "Unauthorized", format!("the join token is refused: {why}"));
        let (id, secret) = token::split(shown).ok_or_else(|| refused("it is not of the form ID.SECRET"))?;
        // It may have been made a moment ago, on another server.
        registry.fresh().await?;
        let secrets = registry.resource("", "v1", "secrets").ok_or_else(ApiError::no_such_path)?;
        let stored = registry.peek(&secrets, token::NAMESPACE, &token::secret_name(id)).map(|found| found.value());
        token::judge(stored.as_ref(), secret, now).map_err(|why| refused(&why))
    }

    /// Makes a member of the server that asks: its name first, then the group. Can be repeated.
    async fn take_in(&self, asked: JoinRequest) -> Result<JoinAnswer, ApiError> {
        let JoinRequest { mut record, replaces, in_etcd, version } = asked;
        self.check_state(in_etcd.as_deref(), replaces.as_deref())?;
        check(&record, self.etcd.is_some())?;
        let present = self.records().await?;
        record.replaces = match (&replaces, present.iter().find(|other| other.id == record.id)) {
            (None, _) => None,
            // Asked again: its own record may stand under the name of the one that it replaces already.
            (Some(_), Some(own)) => own.replaces.clone(),
            (Some(name), None) => Some(format!("{:x}", find(&present, name)?.id)),
        };
        tracing::info!(name = record.name, peer = record.peer_address, version, "A server joins.");
        let is_replaced = |id: u64| record.replaces.as_ref().is_some_and(|one| *one == format!("{id:x}"));
        let is_taken = |id| !is_replaced(id) && present.iter().any(|one| one.id == id);
        records::register(&*self.kv, &record, &is_taken).await?;
        match self.group.add_learner(record.id, &record.peer_address).await {
            Ok(()) | Err(MemberError::Exists { .. } | MemberError::Voter { .. }) => {}
            Err(error) => return Err(refusal(&error)),
        }
        let members = self.records().await?;
        Ok(JoinAnswer { settings: self.settings.clone(), keys: self.pki.shared_keys(), members, record })
    }

    /// Whether the state of one that joins lies where that of all others does.
    fn check_state(&self, found: Option<&str>, replaces: Option<&str>) -> Result<(), ApiError> {
        let refused = |why: String| Err(ApiError::new(409, "Conflict", why));
        match (&self.etcd, found) {
            (Some(_), Some(_)) if replaces.is_some() => refused(lost_in_etcd(replaces.unwrap_or_default())),
            (Some(_), Some(found)) if found == self.settings.cluster_id => Ok(()),
            (Some(place), Some(_)) => {
                let flags = &place.flags;
                refused(format!("the etcd that was given holds another control plane; that of this one: {flags}"))
            }
            (Some(place), None) => {
                let flags = &place.flags;
                refused(format!("the state of this control plane lies in an etcd: start the new server with {flags}"))
            }
            (None, Some(_)) => {
                refused("this control plane keeps its state itself: start the new server without --etcd-servers".into())
            }
            (None, None) => Ok(()),
        }
    }

    /// Refuses what means nothing where the state lies in an etcd.
    fn check_votes(&self, command: &str) -> Result<(), ApiError> {
        if self.etcd.is_none() {
            return Ok(());
        }
        let why = format!(
            "no server of this control plane votes or leads: its state lies in an etcd, whose members are etcd's own \
             business ({command})"
        );
        Err(ApiError::new(409, "Conflict", why))
    }

    async fn remove(&self, name: &str) -> Result<Answer, ApiError> {
        let record = self.member(name).await?;
        if self.etcd.is_some() && self.records().await?.len() < 2 {
            let why =
                format!("server {name:?} is the only one: without it nobody could serve this control plane any more");
            return Err(ApiError::new(409, "Conflict", why));
        }
        self.group.remove(record.id).await.map_err(|error| refusal_of(&record, &error))?;
        records::forget(&*self.kv, &record).await?;
        Ok(crate::http::json(StatusCode::OK, &json!({"removed": record})))
    }

    async fn status(&self) -> Result<MemberStatus, ApiError> {
        self.group.status().await.map_err(|error| refusal(&error))
    }

    /// The records of all that are members.
    async fn records(&self) -> Result<Vec<Record>, ApiError> {
        let members = self.status().await?.members;
        let known = records::all(&*self.kv).await?;
        let of = |member: &MemberInfo| {
            let known = known.iter().find(|record| record.id == member.id).cloned();
            // One that has not introduced itself yet, or whose name another one has taken.
            let nameless = || Record {
                name: format!("{:x}", member.id),
                id: member.id,
                peer_address: String::new(),
                api_address: String::new(),
                replaces: None,
            };
            Record { peer_address: member.address.clone(), ..known.unwrap_or_else(nameless) }
        };
        Ok(members.iter().map(of).collect())
    }

    /// Answers requests of users who may: `rest` is the path behind `/reeve/v1`.
    pub(crate) async fn answer(&self, rest: &[&str], parts: &Parts) -> Result<Answer, ApiError> {
        match (rest, &parts.method) {
            (["members"], &Method::GET) => {
                let own_view = parts.uri.query().is_some_and(|query| query.split('&').any(|part| part == LOCAL));
                self.list(own_view).await
            }
            (["members", name], &Method::DELETE) => self.remove(name).await,
            (["members", name, "promote"], &Method::POST) => {
                self.check_votes("etcdctl member promote")?;
                let record = self.member(name).await?;
                self.group.promote(record.id).await.map_err(|error| refusal_of(&record, &error))?;
                self.list(false).await
            }
            (["members", name, "lead"], &Method::POST) => {
                self.check_votes("etcdctl move-leader")?;
                let record = self.member(name).await?;
                self.group.lead(record.id).await.map_err(|error| refusal_of(&record, &error))?;
                self.list(false).await
            }
            (["members", ..], _) => Err(ApiError::method_not_allowed()),
            _ => Ok(crate::http::not_found_page()),
        }
    }

    async fn member(&self, name: &str) -> Result<Record, ApiError> {
        find(&self.records().await?, name).cloned()
    }

    /// The members as this server knows them, or, because only the leader knows how the others are, as it does.
    async fn list(&self, own_view: bool) -> Result<Answer, ApiError> {
        let status = self.status().await?;
        if let Some(leader) = status.leadership.leader.filter(|leader| *leader != status.id && !own_view)
            && let Some(list) = self.ask_leader(leader, &format!("{ROOT}members?{LOCAL}")).await
        {
            return Ok(crate::http::json(StatusCode::OK, &list));
        }
        let (records, alarms) = (self.records().await?, alarms::all(&*self.kv).await?);
        let described = |member| {
            let mut described = described(member, &status, &records);
            if self.etcd.is_some() {
                forget_votes(&mut described);
            }
            let alarm = alarms.iter().find(|alarm| described["id"] == alarm.id);
            if let Some(alarm) = alarm {
                described["alarm"] = json!({"type": "CORRUPT", "revision": alarm.revision, "certain": alarm.certain});
            }
            described
        };
        let members: Vec<Value> = status.members.iter().map(described).collect();
        if let Some(etcd) = &self.etcd {
            let list = json!({"clusterID": self.settings.cluster_id, "etcd": etcd, "members": members});
            return Ok(crate::http::json(StatusCode::OK, &list));
        }
        let list = json!({
            "clusterID": self.settings.cluster_id, "term": status.leadership.term, "commitIndex": status.commit,
            "members": members,
        });
        Ok(crate::http::json(StatusCode::OK, &list))
    }
}

/// The member of that name, or of that number in hexadecimal.
fn find<'r>(all: &'r [Record], name: &str) -> Result<&'r Record, ApiError> {
    let found = all.iter().find(|record| record.name == name);
    let found = found.or_else(|| all.iter().find(|record| format!("{:x}", record.id) == name));
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|record| record.name.as_str()).collect();
        ApiError::new(404, "NotFound", format!("there is no member {name:?}; there is: {}", names.join(", ")))
    })
}

fn described(member: &MemberInfo, status: &MemberStatus, records: &[Record]) -> Value {
    let role = match (status.leadership.leader == Some(member.id), member.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    let record = records.iter().find(|record| record.id == member.id);
    let mut described = json!({
        "id": format!("{:x}", member.id),
        "name": record.map(|record| record.name.as_str()).unwrap_or_default(),
        "role": role,
        "peerAddress": member.address,
        "apiAddress": record.map(|record| record.api_address.as_str()).unwrap_or_default(),
    });
    if let Some(progress) = member.progress {
        described["alive"] = (progress.active || member.id == status.id).into();
        described["matchIndex"] = progress.matched.into();
    }
    described
}

/// What is left of a member where nobody votes.
fn forget_votes(described: &mut Value) {
    described["role"] = "server".into();
    for field in ["peerAddress", "matchIndex"] {
        described.as_object_mut().map(|fields| fields.remove(field));
    }
}

/// Why nobody takes the place of a server that is lost, where its state was not with it.
fn lost_in_etcd(name: &str) -> String {
    format!(
        "there is nothing to replace of a server whose state lies in an etcd: `reeve member remove {name}`, and let a \
         new one join"
    )
}

/// Why a change of that member was not made, by its name and with the way out: the group knows numbers only.
fn refusal_of(record: &Record, error: &MemberError) -> ApiError {
    let name = &record.name;
    let why = match error {
        MemberError::LosesQuorum { voters: 0, .. } => {
            format!("member {name:?} is the only one that votes: without it there would be no control plane")
        }
        MemberError::LosesQuorum { voters, reachable, needed } => format!(
            "member {name:?} stays what it is: of the {voters} that would vote then only {reachable} could be reached, \
             and {needed} are needed; first start those that are silent, or remove them (`reeve member list`)"
        ),
        MemberError::Behind { entries, .. } => {
            format!("member {name:?} is behind by {entries} entries: it votes by itself as soon as it has caught up")
        }
        MemberError::Voter { .. } => format!("member {name:?} votes already"),
        MemberError::Learner { .. } => format!("member {name:?} does not vote yet, and who does not cannot lead"),
        _ => {
            let refused = refusal(error);
            let why = refused.message.replace(&record.id.to_string(), &format!("{name:?}"));
            return ApiError { message: why, ..refused };
        }
    };
    ApiError::new(409, "Conflict", why)
}

fn refusal(error: &MemberError) -> ApiError {
    match error {
        MemberError::Unknown { .. } => ApiError::new(404, "NotFound", error.to_string()),
        MemberError::Busy | MemberError::Unavailable { .. } | MemberError::Stopped(_) => {
            ApiError::new(503, "ServiceUnavailable", error.to_string())
        }
        _ => ApiError::new(409, "Conflict", error.to_string()),
    }
}

fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a server of that name can be a member, in words for its user.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.']);
    let rule = "1 to 63 lower-case letters, digits, '-' or '.', starting and ending with a letter or digit";
    if fits { Ok(()) } else { Err(format!("invalid server name {name:?}: {rule}")) }
}

fn check(record: &Record, in_etcd: bool) -> Result<(), ApiError> {
    check_name(&record.name).map_err(ApiError::bad_request)?;
    if record.id == 0 {
        return Err(ApiError::bad_request("invalid member number 0"));
    }
    for (what, address) in [("peer", &record.peer_address), ("API", &record.api_address)] {
        // Nobody but members of a group talks to its members.
        if what == "peer" && in_etcd && address.is_empty() {
            continue;
        }
        if address.parse::<SocketAddr>().is_err() {
            return Err(ApiError::bad_request(format!("invalid {what} address {address:?}: want IP:PORT")));
        }
    }
    Ok(())
}
