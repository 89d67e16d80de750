//! Three servers of one control plane, as users run them: real processes in network namespaces, killed and replaced
//! under load. Needs root. What is done to them for long and without mercy: `make torture`.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test that calls them")]

mod backups;
mod changes;
mod corrupt;
mod in_etcd;
mod load;
mod outbound;
mod s3;

use std::time::Duration;

use load::Load;
use reeve_api::clock::{Clock as _, RealClock};
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::servers::{Servers, joining};
use serde_json::Value;

/// Kills of a leader and of a follower, each followed by a restart.
const CYCLES: u32 = 2;

/// Three servers, `a`, `b` and `c`.
fn three() -> Servers {
    let mut servers = Servers::prepare();
    ["a", "b", "c"].iter().for_each(|name| servers.add_machine(name));
    servers.start("a", &[]);
    let join = servers.join_arguments("a");
    let join: Vec<&str> = join.iter().map(String::as_str).collect();
    servers.start("b", &join);
    servers.start("c", &join);
    servers
}

/// Starts a server that joins the one at which another token is made.
#[track_caller]
fn join(servers: &mut Servers, name: &str, asked: &str) {
    let printed = servers.reeve(asked, &["member", "add"]).text();
    let join = joining(&printed);
    servers.start(name, &join.iter().map(String::as_str).collect::<Vec<_>>());
}

fn members(servers: &Servers, asked: &str) -> Result<Vec<Value>, String> {
    let run = servers.reeve(asked, &["member", "list", "-o", "json", "--request-timeout", "5s"]);
    if run.code != 0 {
        return Err(run.to_string());
    }
    let list: Value = serde_json::from_str(&run.stdout).map_err(|err| err.to_string())?;
    Ok(list["members"].as_array().cloned().unwrap_or_default())
}

/// The leader, as some running server sees it.
fn leader(servers: &Servers) -> String {
    eventually("a leader", || {
        let running = servers.all().iter().filter(|server| servers.is_running(&server.name));
        let mut seen = String::new();
        for server in running {
            match members(servers, &server.name) {
                Ok(all) => {
                    let leader = all.iter().find(|member| member["role"] == "leader");
                    let name = leader.and_then(|leader| leader["name"].as_str());
                    if let Some(name) = name.filter(|name| servers.is_running(name)) {
                        return Ok(name.to_owned());
                    }
                    seen = format!("{all:?}");
                }
                Err(text) => seen = text,
            }
        }
        Err(seen)
    })
}

fn follower(servers: &Servers, leader: &str) -> String {
    servers.all().iter().map(|server| server.name.clone()).find(|name| name != leader).expect("a follower")
}

#[test]
fn three_servers_are_one_control_plane_that_only_members_and_token_holders_enter() {
    let mut servers = three();
    for name in ["a", "b", "c"] {
        servers.kubectl(name, &["create", "configmap", &format!("of-{name}")]).done();
        let seen =
            servers.kubectl(["b", "c", "a"][usize::from(name.as_bytes()[0] - b'a')], &["get", "cm", "-o", "name"]);
        assert!(seen.text().contains(&format!("configmap/of-{name}")));
    }
    let all = members(&servers, "b").expect("members");
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|member| member["role"] != "learner"), "{all:?}");
    // Scheduler and controllers run somewhere: a Deployment becomes pods.
    servers.kubectl("c", &["create", "deployment", "web", "--image=web", "--replicas=2"]).done();
    eventually_is(
        "pods of the Deployment",
        || servers.kubectl("b", &["get", "pods", "-o", "name"]).stdout,
        |seen| seen.lines().count() == 2,
    );
    eventually_is(
        "all servers behind the kubernetes Service",
        || servers.kubectl("a", &["get", "endpoints", "kubernetes", "-o", "jsonpath={..ip}"]).stdout,
        |seen| ["192.0.2.10", "192.0.2.11", "192.0.2.12"].iter().all(|address| seen.contains(address)),
    );
    let health = servers.kubectl("b", &["get", "--raw", "/readyz?verbose"]).text();
    assert_eq!(health.matches("[+]member/").count(), 3, "{health}");
    tokens_of_service_accounts_are_good_everywhere(&servers);
    // An administrator's certificate opens no peer port.
    let pem = servers.data_dir("a").join("pki/admin.pem");
    let pem = pem.to_string_lossy();
    let refused = servers.run(&["curl", "-sk", "--max-time", "5", "--cert", &pem, "https://192.0.2.10:2380/"]);
    assert!(refused.code != 0 && refused.code != 28, "{refused}");
    who_may_not_join_is_told_why(&mut servers);
}

fn tokens_of_service_accounts_are_good_everywhere(servers: &Servers) {
    let token = servers.kubectl("a", &["create", "token", "default"]).text();
    for address in ["192.0.2.11", "192.0.2.12"] {
        let header = format!("Authorization: Bearer {}", token.trim());
        let url = format!("https://{address}:6443/apis/authentication.k8s.io/v1/selfsubjectreviews");
        let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
        let asked = ["curl", "-sk", "-H", &header, "-H", "Content-Type: application/json", "-d", body, &url];
        let answer = servers.run(&asked).text();
        assert!(answer.contains("system:serviceaccount:default:default"), "{answer}");
    }
}

fn who_may_not_join_is_told_why(servers: &mut Servers) {
    servers.add_machine("d");
    let joining = servers.join_arguments("a");
    let (address, token) = (joining[1].clone(), joining[3].clone());
    let mut refused = |address: &str, token: &str, name: &str| {
        servers.spawn("d", &["--join", address, "--token", token, "--name", name]);
        assert_eq!(servers.wait("d"), Some(1));
        let told = servers.log_tail("d");
        let _ = std::fs::remove_dir_all(servers.data_dir("d"));
        told
    };
    let (secret, hash) = token.split_once(":sha256:").expect("a token");
    let told = refused(&address, &format!("{secret}:sha256:{}", "0".repeat(64)), "x");
    assert!(told.contains("is not of the cluster that the token is for") && told.contains(hash), "{told}");
    let told =
        refused(&address, &token.replace('.', ".0").replace(":sha", "").chars().take(90).collect::<String>(), "x");
    assert!(told.contains("not a join token"), "{told}");
    let told = refused(&address, &format!("aaaaaa.aaaaaaaaaaaaaaaa:sha256:{hash}"), "x");
    assert!(told.contains("there is no such token"), "{told}");
    let told = refused("192.0.2.99:6443", &token, "x");
    assert!(told.contains("cannot reach a server at 192.0.2.99:6443"), "{told}");
    let told = refused(&address, &token, "b");
    assert!(told.contains("there is a member \"b\" already, at 192.0.2.11:2380"), "{told}");
}

#[test]
fn servers_killed_under_load_lose_nothing_that_was_acknowledged_and_answer_nothing_stale() {
    let mut servers = three();
    let load = Load::start(&servers);
    let clock = RealClock::new();
    for cycle in 0..CYCLES {
        let leads = leader(&servers);
        let began = clock.monotonic();
        servers.kill(&leads);
        load.goes_on();
        println!("cycle {cycle}: killed leader {leads}, writing again after {:?}", clock.monotonic() - began);
        servers.start(&leads, &[]);
        let leads = leader(&servers);
        let follows = follower(&servers, &leads);
        servers.kill(&follows);
        load.goes_on();
        servers.start(&follows, &[]);
        load.goes_on();
    }
    // Told to end, a leader hands on what it has.
    let leads = leader(&servers);
    servers.signal(&leads, "TERM");
    assert_eq!(servers.wait(&leads), Some(0));
    load.goes_on();
    servers.start(&leads, &[]);
    load.finish(&servers);
}

#[test]
fn a_lost_server_is_replaced_and_another_removed_while_writes_go_on() {
    let mut servers = three();
    let load = Load::start(&servers);
    servers.kill("c");
    std::fs::remove_dir_all(servers.data_dir("c")).expect("the lost disk");
    let printed = servers.reeve("a", &["member", "replace", "c"]).text();
    let joined = joining(&printed);
    servers.start("c", &joined.iter().map(String::as_str).collect::<Vec<_>>());
    load.goes_on();
    let all = members(&servers, "a").expect("members");
    let names: Vec<_> = all.iter().filter_map(|member| member["name"].as_str()).collect();
    assert_eq!((all.len(), names.contains(&"c")), (3, true), "{all:?}");
    servers.reeve("a", &["member", "remove", "b"]).done();
    // It notices by itself, and does not come back with what it has.
    assert_eq!(servers.wait("b"), Some(1));
    assert!(servers.log_tail("b").contains("was removed from the control plane"), "{}", servers.log_tail("b"));
    servers.spawn("b", &[]);
    assert_eq!(servers.wait("b"), Some(1));
    load.goes_on();
    assert_eq!(members(&servers, "c").expect("members").len(), 2);
    // As a new server it may.
    std::fs::remove_dir_all(servers.data_dir("b")).expect("the old data");
    join(&mut servers, "b", "c");
    load.goes_on();
    std::thread::sleep(Duration::from_secs(1));
    load.finish(&servers);
}
