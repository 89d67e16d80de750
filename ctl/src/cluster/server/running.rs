//! A server at work: the state (`state.rs`), API server, scheduler and controllers; in this order, and backwards at the
//! end, when leadership and leases are handed on first.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use reeve_apiserver::join::{JoinToken, Record, Settings, bootstrap_secret};
use reeve_apiserver::pki::{Pki, PkiConfig, public_key_hash};
use reeve_apiserver::{AboutCluster, ApiServer};
use reeve_client::lease::LeaseConfig;
use reeve_client::while_leading;
use reeve_store::SharedKv;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::control::{self, ApiPlace, DOMAIN, Own, Way};
use super::super::error::{ClusterError, at};
use super::super::kubeconfig::{self, Entry};
use super::super::{daemon, files, identity};
use super::Server;
use super::args::ServerArgs;
use super::state::{State, TRY_AGAIN_AFTER, may_be_over_soon};
use crate::backup::Subject;
use crate::backup::schedule::Scheduled;

/// The folder of the certificates.
pub(super) const PKI: &str = "pki";
/// A kubeconfig with the admin's identity.
pub(super) const KUBECONFIG: &str = "admin.kubeconfig";
/// How long open requests may take at the end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How long a token of the first start is valid: kubeadm's.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// kube-scheduler's and kube-controller-manager's Leases and that of scheduled backups, and how long they hold.
const LEASES: [&str; 3] = ["kube-scheduler", "kube-controller-manager", "reeve-backup"];
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// See the module.
pub(super) struct Running {
    pki: Pki,
    state: State,
    server: ApiServer,
    own: Own,
    tasks: JoinSet<Result<(), ClusterError>>,
}

/// Starts everything. Returns when the API is served. `etcd` is the one that holds the state, if one does.
pub(super) async fn start(
    server: &mut Server,
    args: &ServerArgs,
    etcd: Option<SharedKv>,
) -> Result<Running, ClusterError> {
    let pki = open_pki(server)?;
    let mut tasks = JoinSet::new();
    let mut state = match etcd {
        Some(kv) => State::in_etcd(server, kv, &mut tasks).await?,
        None => State::member(server, &pki, &mut tasks).await?,
    };
    let (kv, settings) = (state.kv(), server.place.settings()?.clone());
    let history = server.place.store.age();
    let place = ApiPlace { service_cidr: settings.service_cidr, advertise: server.api, several: true, history };
    let api = control::start_api_server(&server.own, &pki, kv, place).await?;
    state.serve_control_plane(&api, &pki, (&server.place, settings.clone()), args.compared_every());
    api.offer_backups(about(server, &settings));
    state.serve_clients(server, &pki, &mut tasks).await?;
    let listener = server.listeners.api.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
    api.serve(listener).map_err(|err| ClusterError::component("API server", err))?;
    write_kubeconfig(server, &pki)?;
    let running = Running { pki, state, server: api, own: server.own.clone(), tasks };
    Ok(running.with_components(server, &settings))
}

/// What stands in backups besides the store; it is read when one is made.
fn about(server: &Server, settings: &Settings) -> AboutCluster {
    let (data_dir, clock) = (server.folder.dir().to_owned(), server.own.clock.clone());
    let subject = Subject::ControlPlane(settings.clone());
    Arc::new(move || crate::backup::about(&data_dir, &subject, clock.now().as_second()))
}

/// Whether the API server itself says that it could not do it now.
fn is_for_now(err: &kube::Error) -> bool {
    matches!(err, kube::Error::Api(status) if may_be_over_soon(status.code))
}

fn open_pki(server: &Server) -> Result<Pki, ClusterError> {
    let config = PkiConfig {
        dir: server.folder.join(PKI),
        addresses: vec![server.api.ip()],
        names: vec![server.place.own.name.clone()],
        service_address: control::first_address(server.place.settings()?.service_cidr).into(),
        cluster_domain: DOMAIN.to_owned(),
    };
    Pki::open(&config, server.own.clock.now()).map_err(|err| ClusterError::component("certificates", err))
}

/// How a server holds a Lease: after a crash it is the same one, and holds what it held.
fn lease(own: &Record, name: &str) -> LeaseConfig {
    LeaseConfig {
        namespace: "kube-system".to_owned(),
        name: name.to_owned(),
        identity: format!("{}_{:x}", own.name, own.id),
        duration: LEASE_DURATION,
    }
}

fn write_kubeconfig(server: &Server, pki: &Pki) -> Result<(), ClusterError> {
    let entry = Entry {
        name: "reeve".to_owned(),
        server: format!("https://{}", server.api),
        ca_pem: pki.ca_pem().to_owned(),
        cert_pem: pki.admin().cert_pem.clone(),
        key_pem: pki.admin().key_pem.clone(),
    };
    let (path, text) = (server.folder.join(KUBECONFIG), kubeconfig::standalone(&entry)?);
    files::replace(&path, text.as_bytes(), 0o600).map_err(|err| ClusterError::io(at("write", &path), err))
}

impl Running {
    /// Starts what runs on one of the servers at a time.
    fn with_components(mut self, server: &Server, settings: &Settings) -> Self {
        let [scheduler, controllers, backups] = LEASES.map(|name| lease(&server.place.own, name));
        let (own, way) = (self.own.clone(), Way::of_scheduler(&self.server));
        self.tasks.spawn(async move {
            let candidate = own.component(way.client.clone());
            while_leading(&candidate, &scheduler, |term| control::run_scheduler(way.clone(), own.until(term))).await
        });
        let (own, way, ca_pem) = (self.own.clone(), Way::of_controllers(&self.server), self.pki.ca_pem().to_owned());
        let cluster_cidr = settings.cluster_cidr;
        self.tasks.spawn(async move {
            let candidate = own.component(way.client.clone());
            let run = |term| control::run_controllers(way.clone(), cluster_cidr, ca_pem.clone(), own.until(term));
            while_leading(&candidate, &controllers, run).await
        });
        if let Some(scheduled) = self.scheduled(server, settings) {
            self.tasks.spawn(async move {
                let candidate = scheduled.component.clone();
                let run = |term: CancellationToken| {
                    let scheduled = scheduled.clone();
                    async move {
                        term.run_until_cancelled(scheduled.run()).await;
                        term.cancelled().await;
                        Ok(())
                    }
                };
                while_leading(&candidate, &backups, run).await
            });
        }
        self
    }

    /// The backups that this server makes by itself when it is its turn, if it was told to.
    fn scheduled(&self, server: &Server, settings: &Settings) -> Option<Scheduled> {
        let choices = server.place.store.backup.clone()?;
        Some(Scheduled {
            cluster: Subject::ControlPlane(settings.clone()).name(),
            choices,
            kv: self.state.kv(),
            about: about(server, settings),
            backups: self.server.backups(),
            component: self.own.component(self.server.client(identity::admin())),
            data_dir: server.folder.dir().to_owned(),
        })
    }

    /// Returns when the cluster has everything that one starts with.
    pub(super) async fn ready(&self, server: &Server) -> Result<(), ClusterError> {
        let dns = control::dns_address(server.place.settings()?.service_cidr);
        while let Err(err) = daemon::make_dns_service(self.server.client(identity::admin()), dns).await {
            if !is_for_now(&err) {
                return Err(ClusterError::component("cluster DNS", err));
            }
            // The servers have lost each other again: the store has waited for them as long as a request may take.
            tracing::info!(%err, "Waiting for enough servers to decide.");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        self.server.roles_made().await;
        Ok(())
    }

    /// A join token for the next server.
    pub(super) async fn first_token(&self, own: &Own) -> Result<JoinToken, ClusterError> {
        let failed = |err: &dyn std::fmt::Display| ClusterError::component("join token", err);
        let hash = public_key_hash(self.pki.ca_pem()).ok_or_else(|| failed(&"the CA cannot be read"))?;
        let token = JoinToken::generate(&*own.rng, hash);
        let expires = own.clock.now() + TOKEN_TTL;
        let secret = bootstrap_secret(&token, "made by the first server for the next ones", Some(expires));
        let secret: Secret = serde_json::from_value(secret).map_err(|err| failed(&err))?;
        let secrets: Api<Secret> = Api::namespaced(self.server.client(identity::admin()), "kube-system");
        secrets.create(&PostParams::default(), &secret).await.map_err(|err| failed(&err))?;
        Ok(token)
    }

    /// Whether the others have taken this server out.
    pub(super) fn was_removed(&self) -> bool {
        self.state.was_removed()
    }

    /// Returns when the server cannot go on, with the reason.
    pub(super) async fn failed(&mut self) -> ClusterError {
        tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(err))) => err,
                Some(Ok(Ok(()))) => ClusterError::component("component", "ended by itself"),
                Some(Err(err)) => ClusterError::component("component", err),
                None => std::future::pending().await,
            },
            lost = self.state.lost() => lost,
        }
    }

    /// Ends everything in order; other servers take over at once.
    pub(super) async fn stop(mut self) {
        self.own.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN_WAIT, ended).await;
        let leads = self.state.leads();
        self.server.shutdown(DRAIN_WAIT).await;
        self.state.close(leads).await;
    }
}
