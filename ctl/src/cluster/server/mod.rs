//! `reeve server`: one server of a control plane, in the foreground, as systemd likes it.
//!
//! A first start settles who the server is (`place.rs`): the first server of a control plane chooses what all agree
//! upon, every other one joins (`joining.rs`). Every start then runs the same components (`running.rs`): transport and
//! store (`state.rs`), or an etcd that holds the state (`in_etcd.rs`), API server, and scheduler and controllers on one
//! of the servers at a time. No step of a join is lost by a crash: the next start goes on where it was.

pub(crate) mod args;
mod in_etcd;
mod joining;
pub(crate) mod notify;
mod place;
mod restored;
mod running;
mod state;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use reeve_api::clock::RealClock;
use reeve_api::rng::{Rng, SeededRng};
use reeve_apiserver::join::{JoinToken, Record, Settings, check_name};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::args::ServerArgs;
use self::place::{Folder, Place, Stage};
use super::control::Own;
use super::error::ClusterError;
use super::{etcd, machine, memory};

pub(crate) use self::restored::NewServer;

/// What a backup has of a control plane: what all its servers agree upon.
pub(crate) const SETTINGS_FILE: &str = "control-plane.json";
/// The number of the first member of a group, as that of a store that is alone.
const FIRST_ID: u64 = 1;
/// Ranges unless the first server is told otherwise; those of the first `reeve up` of a machine.
const CLUSTER_CIDR: &str = "10.64.0.0/16";
const SERVICE_CIDR: &str = "10.128.0.0/20";

/// Runs `reeve server` to its end. `token` is the join token.
pub(crate) fn run(args: &ServerArgs, token: Option<&str>) -> Result<(), ClusterError> {
    memory::avoid_huge_pages();
    crate::logging::init();
    let folder = Folder::open(&args.data_dir)?;
    let (peer, api) = addresses(args)?;
    let rng = SeededRng::shared();
    let (place, is_first) = match folder.load()? {
        Some(place) if place.stage == Stage::Restored => (restored(&place, args, (peer, api), &*rng)?, true),
        Some(place) => {
            let is_first = place.stage == Stage::Claiming;
            (known(place, &folder, args, (peer, api))?, is_first)
        }
        None => {
            folder.check_unused()?;
            (new(args, (peer, api), &*rng)?, args.join.is_none())
        }
    };
    let place = with_choices(place, args)?;
    let listeners = Listeners {
        api: listen(args.api_listener())?,
        peers: if place.etcd.is_some() { None } else { Some(listen(args.peer_listener())?) },
        etcd: place.etcd_port.map(|port| listen(args.etcd_listener(port))).transpose()?,
    };
    folder.save(&place)?;
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("reeve")
        .enable_all()
        .build()
        .map_err(|err| ClusterError::io("start the runtime", err))?;
    let own = Own { clock: RealClock::shared(), rng, shutdown: CancellationToken::new() };
    let server = Server { folder, place, listeners, own, api };
    runtime.block_on(live(server, args, token, is_first))
}

/// Bound at the start: whoever cannot have its ports is told so before anything has happened.
struct Listeners {
    api: TcpListener,
    /// `None`: the state lies in an etcd, and servers have nothing to say to each other.
    peers: Option<TcpListener>,
    etcd: Option<TcpListener>,
}

/// A server with everything that it starts from.
struct Server {
    folder: Folder,
    place: Place,
    listeners: Listeners,
    own: Own,
    /// Where its API is reached.
    api: SocketAddr,
}

fn listen(address: SocketAddr) -> Result<TcpListener, ClusterError> {
    TcpListener::bind(address).map_err(|err| ClusterError::io(format!("listen on {address}"), err))
}

/// Where others reach the peer port and the API.
fn addresses(args: &ServerArgs) -> Result<(SocketAddr, SocketAddr), ClusterError> {
    let bound = Some(args.bind_address).filter(|address| !address.is_unspecified());
    let address = args.advertise_address.map(IpAddr::V4).or(bound).or_else(|| machine::node_address().map(IpAddr::V4));
    let address = address.ok_or_else(|| ClusterError::Invalid {
        what: "--advertise-address",
        value: String::new(),
        rule: "this machine has no address that others could reach it by: say which it is to be".to_owned(),
    })?;
    Ok((SocketAddr::new(address, args.peer_port), SocketAddr::new(address, args.secure_port)))
}

/// Who this server becomes at its first start.
fn new(args: &ServerArgs, (peer, api): (SocketAddr, SocketAddr), rng: &dyn Rng) -> Result<Place, ClusterError> {
    let name = args.name.clone().or_else(|| args.replace.clone()).unwrap_or_else(machine::node_name);
    check_name(&name).map_err(ClusterError::Told)?;
    let range = |given: Option<ipnet::Ipv4Net>, default: &str| given.map_or_else(|| default.parse(), Ok);
    let parsed = |err: ipnet::AddrParseError| ClusterError::component("server", err);
    let (id, stage, settings) = match &args.join {
        Some(_) => (fresh_number(rng), Stage::Asking, None),
        None => {
            let settings = Settings {
                cluster_id: format!("{:x}", fresh_number(rng)),
                cluster_cidr: range(args.cluster_cidr, CLUSTER_CIDR).map_err(parsed)?,
                service_cidr: range(args.service_cidr, SERVICE_CIDR).map_err(parsed)?,
            };
            let stage = if args.etcd.etcd_servers.is_empty() { Stage::Member } else { Stage::Claiming };
            (FIRST_ID, stage, Some(settings))
        }
    };
    let own = Record { name, id, peer_address: String::new(), api_address: String::new(), replaces: None };
    let mut place = Place::new(own, stage, settings);
    place.move_to(peer, api);
    Ok(place)
}

/// Who a server becomes whose folder was made of a backup: the first one of a control plane with these settings.
fn restored(
    found: &Place,
    args: &ServerArgs,
    at: (SocketAddr, SocketAddr),
    rng: &dyn Rng,
) -> Result<Place, ClusterError> {
    if args.join.is_some() {
        let rule = "the data folder holds what was restored, and begins a control plane of its own: start it without \
                    --join, and let the others join it";
        return Err(ClusterError::Told(rule.to_owned()));
    }
    check_ranges(found, args)?;
    let named = Some(found.own.name.clone()).filter(|name| !name.is_empty());
    let args = ServerArgs { name: args.name.clone().or(named), ..args.clone() };
    Ok(Place { settings: found.settings.clone(), ..new(&args, at, rng)? })
}

/// With what the flags say of its store.
fn with_choices(mut place: Place, args: &ServerArgs) -> Result<Place, ClusterError> {
    place.store = args.store.merged(place.store)?;
    let is_new = place.is_to_be();
    let before = if is_new { None } else { place.etcd };
    let elsewhere = "what lies there cannot be moved: begin another control plane with another --data-dir";
    (place.etcd, place.etcd_port) = etcd::chosen((before, place.etcd_port), &args.etcd, is_new, elsewhere)?;
    etcd::check_store(place.etcd.as_ref(), &args.store)?;
    if place.etcd.is_some() {
        place.own.peer_address.clear();
        place.members.clear();
    } else if place.stage == Stage::Claiming {
        let rule = "the server has not begun: say again which etcd its state is to lie in";
        return Err(ClusterError::Invalid { what: "--etcd-servers", value: String::new(), rule: rule.to_owned() });
    }
    Ok(place)
}

/// What the servers of that folder's control plane agree upon; `None`: it is no server's.
pub(crate) fn settings_in(data_dir: &Path) -> Result<Option<Settings>, ClusterError> {
    let Some(place) = place::load(data_dir)? else { return Ok(None) };
    place.settings().cloned().map(Some)
}

/// A number that no other member or group has: 64 random bits, not those that mean something.
fn fresh_number(rng: &dyn Rng) -> u64 {
    loop {
        let number = rng.next_u64();
        if number > FIRST_ID {
            return number;
        }
    }
}

/// A server that has been here before, with the addresses it has now.
fn known(
    mut place: Place,
    folder: &Folder,
    args: &ServerArgs,
    (peer, api): (SocketAddr, SocketAddr),
) -> Result<Place, ClusterError> {
    if place.stage == Stage::Removed {
        return Err(removed(&place, folder));
    }
    if let Some(name) = args.name.as_ref().filter(|name| **name != place.own.name) {
        return Err(ClusterError::Invalid {
            what: "--name",
            value: name.clone(),
            rule: format!("{} holds the data of server {:?}", folder.shown(), place.own.name),
        });
    }
    let (name, dir) = (&place.own.name, folder.shown());
    if args.join.is_none() && place.stage == Stage::Asking {
        return Err(ClusterError::Told(format!(
            "server {name:?} has not joined yet: say again which control plane (--join), or remove {dir} for a new one"
        )));
    }
    if args.join.is_some() && place.stage == Stage::Claiming {
        return Err(ClusterError::Told(format!(
            "server {name:?} was about to begin a control plane of its own: remove {dir} if it is to join another one"
        )));
    }
    check_ranges(&place, args)?;
    place.move_to(peer, api);
    Ok(place)
}

/// Refuses other ranges than those that are settled.
fn check_ranges(place: &Place, args: &ServerArgs) -> Result<(), ClusterError> {
    let Some(settings) = &place.settings else { return Ok(()) };
    let (pods, services) = (settings.cluster_cidr, settings.service_cidr);
    let differs = |given: Option<ipnet::Ipv4Net>, settled| given.is_some_and(|given| given != settled);
    if differs(args.cluster_cidr, pods) || differs(args.service_cidr, services) {
        return Err(ClusterError::Told(format!(
            "the ranges of this control plane are settled: --cluster-cidr {pods} --service-cidr {services}"
        )));
    }
    Ok(())
}

/// What a server is told that was taken out of the group.
fn removed(place: &Place, folder: &Folder) -> ClusterError {
    ClusterError::Told(format!(
        "server {:?} was removed from the control plane and cannot come back with its old data: remove {} and join \
         again",
        place.own.name,
        folder.shown()
    ))
}

/// From joining to the end.
async fn live(mut server: Server, args: &ServerArgs, token: Option<&str>, is_first: bool) -> Result<(), ClusterError> {
    let failed = |err| ClusterError::io("wait for signals", err);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut told = std::pin::pin!(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    });
    let started = async {
        let kv = in_etcd::connect(&server.place).await?;
        match (server.place.stage, &kv) {
            (Stage::Asking, kv) => joining::ask(&mut server, args, token, kv.as_ref()).await?,
            (Stage::Claiming, Some(kv)) => in_etcd::claim(&mut server, kv).await?,
            _ => {}
        }
        running::start(&mut server, args, kv).await
    };
    let mut running = tokio::select! {
        running = started => running?,
        () = told.as_mut() => return Ok(()),
    };
    let settled = tokio::select! {
        settled = settle(&mut running, &server, is_first) => settled,
        () = told.as_mut() => Ok(()),
    };
    let outcome = match settled {
        Err(err) => Err(err),
        Ok(()) => tokio::select! {
            err = running.failed() => Err(err),
            () = told.as_mut() => Ok(()),
        },
    };
    notify::stopping();
    let was_removed = running.was_removed();
    running.stop().await;
    if was_removed {
        server.place.stage = Stage::Removed;
        server.folder.save(&server.place)?;
        return Err(removed(&server.place, &server.folder));
    }
    outcome
}

/// Waits until the server does its work, and says so.
async fn settle(running: &mut running::Running, server: &Server, is_first: bool) -> Result<(), ClusterError> {
    running.ready(server).await?;
    let token = if is_first { Some(running.first_token(&server.own).await?) } else { None };
    print_summary(server, token.as_ref());
    notify::ready();
    Ok(())
}

fn print_summary(server: &Server, token: Option<&JoinToken>) {
    // A reader that has gone away is no reason to fail.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "Server {:?} is up: https://{}", server.place.own.name, server.api);
    let _ = writeln!(out, "  kubeconfig  {}", server.folder.join(running::KUBECONFIG).display());
    let _ = writeln!(out, "  data        {}", server.folder.shown());
    if let Some(token) = token {
        let _ = writeln!(out, "\nThe next server joins, within a day, by:");
        let etcd = server.place.etcd.as_ref().map(etcd::EtcdChoice::flags);
        let _ = writeln!(out, "  {}", join_command(&server.api.to_string(), token, None, etcd.as_deref()));
        let _ = writeln!(out, "(`reeve token create` makes other tokens.)");
    }
    let _ = out.flush();
}

/// What is typed on the machine of the next server; `etcd` are the flags that say which one holds the state.
pub(crate) fn join_command(address: &str, token: &JoinToken, replaced: Option<&str>, etcd: Option<&str>) -> String {
    let replace = replaced.map_or_else(String::new, |name| format!(" --replace {name}"));
    let etcd = etcd.map_or_else(String::new, |flags| format!(" {flags}"));
    format!("reeve server --join {address} --token {token}{replace}{etcd}")
}
