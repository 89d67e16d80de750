//! Clusters in the machine's own network namespace: what is reached from where, ports that are taken, and what is left.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::machine::{ADDRESS, Machine, NEIGHBOUR};
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::space::Space;

use crate::workloads::web;

fn curl(address: &str) -> [String; 5] {
    ["curl", "-sS", "-m", "5", &format!("http://{address}/")].map(str::to_owned)
}

/// What the machine, or its neighbour, gets from an address.
fn get(machine: &Machine, from_outside: bool, address: &str) -> Result<String, String> {
    let words = curl(address);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = if from_outside { machine.run_outside(&words) } else { machine.run(&words) };
    if said.code == 0 { Ok(said.stdout) } else { Err(said.stderr) }
}

fn node_port(space: &Space<'_>, port: &str) {
    let port = format!("--node-port={port}");
    space.kubectl(&["create", "service", "nodeport", "web", "--tcp=80:8080", &port]).done();
}

#[test]
fn a_cluster_on_the_machines_network_is_reached_from_it_and_leaves_it_as_it_was() {
    let machine = Machine::new();
    let before = machine.network();
    let cluster = Cluster::up_on(&machine, "machine");
    assert_eq!(cluster.node_ip(), ADDRESS.to_string());
    let space = cluster.space("shop");
    space.apply(&web(2, "one", ""));
    node_port(&space, "30123");
    let on_host =
        serde_json::json!({"spec": {"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}}).to_string();
    let client = ["run", "host-client", &format!("--image={IMAGE}"), "--overrides", &on_host, "--command"];
    space.kubectl(&[&client[..], &["--", "sleep", "600"]].concat()).done();
    space.kubectl(&["run", "client", &format!("--image={IMAGE}"), "--command", "--", "sleep", "600"]).done();
    space.rolled_out("web");
    space.ready("host-client");
    space.ready("client");
    let service = space.get("service/web", "{.spec.clusterIP}");
    eventually("the Service answers", || get(&machine, false, &service));
    for address in [format!("{ADDRESS}:30123"), "127.0.0.1:30123".to_owned()] {
        assert!(get(&machine, false, &address).expect("from the machine").starts_with("one web-"), "{address}");
    }
    assert!(get(&machine, true, &format!("{ADDRESS}:30123")).expect("from outside").starts_with("one web-"));
    for pod in ["client", "host-client"] {
        for address in [service.as_str(), "web.shop.svc.cluster.local", &format!("{ADDRESS}:30123")] {
            let said = space.beside(pod, &["curl", "-sS", "-m", "5", &format!("http://{address}/")]).text();
            assert!(said.starts_with("one web-"), "{pod}, {address}: {said}");
        }
    }
    // The neighbour knows no way to pods: it sees the machine's address.
    let listener = machine.outside(|| TcpListener::bind((NEIGHBOUR, 8081))).expect("a port of the neighbour's");
    let seen = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("somebody comes");
        let _ = stream.read(&mut [0; 1024]).expect("a request");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").expect("sent");
        peer.ip().to_string()
    });
    let url = format!("http://{NEIGHBOUR}:8081/");
    assert_eq!(space.beside("client", &["curl", "-sS", "-m", "5", &url]).text(), "hello");
    let seen = seen.join().expect("the neighbour");
    assert_eq!(seen, ADDRESS.to_string());
    assert!(cluster.down().text().contains("its data is kept"));
    assert!(get(&machine, true, &format!("{ADDRESS}:30123")).is_err());
    cluster.up_again().done();
    eventually("the Service answers again", || get(&machine, true, &format!("{ADDRESS}:30123")));
    let (purged, left) = cluster.purge();
    assert!(purged.text().contains("is down and removed"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(machine.network(), before, "links, addresses, routes, rules, settings");
}

#[test]
fn a_node_port_is_held_against_everybody_and_whoever_comes_too_late_is_told_who_has_it() {
    let machine = Machine::new();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| Cluster::up_on(&machine, "holder"));
        let second = scope.spawn(|| Cluster::up_on(&machine, "late"));
        (first.join().expect("the first"), second.join().expect("the second"))
    });
    let spaces = [&first, &second].map(|cluster| cluster.space("ports"));
    for (space, version) in spaces.iter().zip(["first", "second"]) {
        space.apply(&web(1, version, ""));
        space.rolled_out("web");
    }
    node_port(&spaces[0], "30124");
    let served = |version: &str| {
        let starts = format!("{version} web-");
        let look = || get(&machine, false, "127.0.0.1:30124").unwrap_or_else(|err| err);
        eventually_is("the node port answers", look, |said| said.starts_with(&starts));
    };
    served("first");
    let taken = first.in_node(|| TcpListener::bind(("0.0.0.0", 30124)));
    assert_eq!(taken.map(drop).map_err(|err| err.kind()), Err(std::io::ErrorKind::AddrInUse));

    node_port(&spaces[1], "30124");
    let events = || spaces[1].kubectl(&["get", "events"]).stdout;
    let holder = format!("the Reeve cluster \"{}\"", first.name);
    let told = eventually_is("an event names the holder", events, |events| events.contains(&holder));
    assert!(told.contains("nodePort 30124/TCP cannot be used"), "{told}");
    served("first");
    for _ in 0..10 {
        let said = get(&machine, true, &format!("{ADDRESS}:30124")).expect("from outside");
        assert!(said.starts_with("first web-"), "what comes in is the holder's: {said}");
    }

    spaces[0].kubectl(&["delete", "service", "web"]).done();
    served("second");
    spaces[1].kubectl(&["delete", "service", "web"]).done();
    eventually("the port is free", || {
        first.in_node(|| TcpListener::bind(("0.0.0.0", 30124))).map(drop).map_err(|err| err.to_string())
    });
    // Taken while nobody wanted it: told when somebody does, and what comes in is the program's all the while.
    let taken = first.in_node(|| TcpListener::bind(("0.0.0.0", 30124))).expect("free");
    node_port(&spaces[0], "30124");
    std::thread::spawn(move || {
        for mut stream in taken.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nmine"));
        }
    });
    let events = || spaces[0].kubectl(&["get", "events"]).stdout;
    eventually_is("an event names the process", events, |events| {
        events.contains(&format!("process {}", std::process::id()))
    });
    assert_eq!(get(&machine, true, &format!("{ADDRESS}:30124")), Ok("mine".to_owned()));
}
