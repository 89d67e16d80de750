//! Servers come, go and move while writes go on.

use reeve_tests::patience::eventually;
use reeve_tests::servers::Servers;
use serde_json::Value;

use super::load::Load;
use super::{follower, join, leader, members, three};

/// Most servers that the control plane grows to, unless `REEVE_SERVERS_MAX` says otherwise.
const SERVERS_MAX: usize = 3;

#[test]
fn servers_that_move_to_other_addresses_are_found_again() {
    let mut servers = three();
    let load = Load::start(&servers);
    let leads = leader(&servers);
    let follows = follower(&servers, &leads);
    for (name, number) in [(&follows, 50), (&leads, 51)] {
        servers.kill(name);
        servers.readdress_machine(name, number);
        servers.start(name, &[]);
        load.goes_on();
        let peers = format!("192.0.2.{number}:2380");
        eventually("the others know where it is", || {
            let other = servers.all().iter().find(|server| server.name != *name).map(|server| server.name.clone());
            let all = members(&servers, &other.unwrap_or_default())?;
            let found = all.iter().find(|member| member["name"] == name.as_str());
            let is_there = |member: &Value| member["peerAddress"] == *peers && member["alive"] == true;
            if found.is_some_and(is_there) { Ok(()) } else { Err(format!("{all:?}")) }
        });
    }
    eventually("the kubernetes Service leads to where they are now", || {
        let seen = servers.kubectl(&follows, &["get", "endpoints", "kubernetes", "-o", "jsonpath={..ip}"]).stdout;
        let mut seen: Vec<&str> = seen.split(' ').collect();
        seen.sort_unstable();
        let mut wanted: Vec<&str> = servers.all().iter().map(|server| server.address.as_str()).collect();
        wanted.sort_unstable();
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    load.finish(&servers);
}

#[test]
fn a_control_plane_grows_and_shrinks_under_load() {
    let most = std::env::var("REEVE_SERVERS_MAX").ok().and_then(|text| text.parse().ok()).unwrap_or(SERVERS_MAX);
    let names = ["a", "b", "c", "d", "e"];
    let names = &names[..most.clamp(2, names.len())];
    let mut servers = Servers::prepare();
    names.iter().for_each(|name| servers.add_machine(name));
    servers.start("a", &["--corrupt-check-time", "1s"]);
    let load = Load::start(&servers);
    for name in &names[1..] {
        join(&mut servers, name, "a");
        load.goes_on();
    }
    assert_eq!(votes(&servers), names.len());
    // Asked of any server, as only the leader knows.
    let asked = follower(&servers, &leader(&servers));
    let table = servers.reeve(&asked, &["member", "list"]).text();
    assert!(!table.contains('?') && table.matches(" yes ").count() == names.len(), "{table}");
    // The first one goes before the last ones: who began it all is nothing special.
    let (last, gone) = names.split_last().expect("names");
    for name in gone {
        servers.reeve(last, &["member", "remove", name]).done();
        assert_eq!(servers.wait(name), Some(1));
        load.goes_on();
    }
    assert_eq!(votes(&servers), 1);
    load.finish(&servers);
}

fn votes(servers: &Servers) -> usize {
    let asked = leader(servers);
    let all = members(servers, &asked).expect("members");
    all.iter().filter(|member| member["role"] != "learner").count()
}

#[test]
fn servers_of_one_machine_share_a_service_by_their_ports() {
    let mut servers = Servers::prepare();
    servers.add_machine("a");
    let place = |name: &str| servers.file(name).display().to_string();
    let (one, two) = (place("one"), place("two"));
    servers.start("a", &["--data-dir", &one, "--name", "one"]);
    let printed = servers.join_arguments("a");
    let ports = ["--secure-port", "6444", "--peer-port", "2381", "--data-dir", &two, "--name", "two"];
    let joined: Vec<&str> = printed.iter().map(String::as_str).chain(ports).collect();
    // On the same machine, under a name of its own for the tests.
    servers.share_machine("b", "a");
    servers.start("b", &joined);
    let kubeconfig = format!("{one}/admin.kubeconfig");
    let get = |what: &[&str]| {
        let kubectl = reeve_tests::binary::kubectl().to_string_lossy().into_owned();
        servers.run(&[&[&*kubectl, "--kubeconfig", &kubeconfig, "get"], what].concat()).text()
    };
    let slices = ["endpointslices", "-l", "kubernetes.io/service-name=kubernetes", "-o", PORTS];
    eventually("a slice for each port", || {
        let seen = get(&slices);
        if seen == "192.0.2.10:6443 192.0.2.10:6444 " { Ok(()) } else { Err(seen) }
    });
    eventually("the servers do not write against each other", || {
        let version = || get(&["endpoints,endpointslices", "-o", "jsonpath={.items[*].metadata.resourceVersion}"]);
        let before = version();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let after = version();
        if before == after { Ok(()) } else { Err(format!("{before} became {after}")) }
    });
    let reeve = reeve_tests::binary::reeve().to_string_lossy().into_owned();
    servers.run(&[&reeve, "--kubeconfig", &kubeconfig, "member", "remove", "two"]).done();
    eventually("the one that is gone is taken out", || {
        let seen = get(&slices);
        if seen == "192.0.2.10:6443 " { Ok(()) } else { Err(seen) }
    });
}

const PORTS: &str = "jsonpath={range .items[*]}{.endpoints[0].addresses[0]}:{.ports[0].port} {end}";
