//! A server whose data is not that of the others is found out, whatever has happened to its disk.

use reeve_store::FileViews;
use reeve_store::view::{ViewBatch, Views as _, Visit};
use reeve_tests::patience::eventually;
use reeve_tests::servers::joining;

use super::{follower, leader, members, three};

/// Takes an object out of what a stopped server has on disk, as a fault of a disk or a program might.
fn lose(data_dir: &std::path::Path, name: &str) {
    let view = FileViews::new(data_dir.join("store/view")).open().expect("the view");
    let holds = |key: &[u8]| key.windows(name.len()).any(|part| part == name.as_bytes());
    let mut batch = ViewBatch::default();
    let mut look = |key: &[u8], _: &[u8]| {
        if holds(key) {
            batch.remove(key.to_vec());
        }
        Visit::Next
    };
    view.visit(&[0], &[0xff], &mut look).expect("every record");
    assert!(!batch.changes.is_empty(), "{name} is on disk");
    view.apply(batch).expect("removed");
    view.sync().expect("written");
}

#[test]
fn a_server_whose_data_differs_is_named_and_replaced() {
    let mut servers = three();
    servers.kubectl("a", &["create", "configmap", "precious"]).done();
    let leads = leader(&servers);
    let damaged = follower(&servers, &leads);
    let sound = servers.all().iter().map(|server| server.name.clone()).find(|name| *name != leads && *name != damaged);
    let sound = sound.expect("a third server");
    // All ask often, whoever leads.
    for name in [&damaged, &sound, &leads] {
        servers.signal(name, "TERM");
        assert_eq!(servers.wait(name), Some(0));
        if *name == damaged {
            lose(&servers.data_dir(name), "precious");
        }
        servers.start(name, &["--corrupt-check-time", "1s"]);
    }
    assert!(servers.kubectl(&damaged, &["get", "configmap", "precious"]).refused().contains("NotFound"));
    servers.kubectl(&sound, &["get", "configmap", "precious"]).done();
    eventually("there is an alarm", || {
        let all = members(&servers, &sound)?;
        let alarmed: Vec<_> = all.iter().filter(|member| member["alarm"]["type"] == "CORRUPT").collect();
        match &alarmed[..] {
            [one] if one["name"] == *damaged && one["alarm"]["certain"] == true => Ok(()),
            _ => Err(format!("{all:?}")),
        }
    });
    let way_out = format!("`reeve member replace {damaged}`");
    let table = servers.reeve(&sound, &["member", "list"]).text();
    assert!(table.contains(&format!("ALARM CORRUPT: {damaged}, ")) && table.contains(&way_out), "{table}");
    let refused = servers.kubectl(&damaged, &["get", "--raw", "/readyz"]).refused();
    assert!(refused.contains("[-]store-hash failed"), "{refused}");
    servers.kubectl(&sound, &["get", "--raw", "/readyz"]).done();
    let health = servers.kubectl(&sound, &["get", "--raw", "/readyz?verbose"]).text();
    assert!(health.contains(&format!("[-]member/{damaged} alarm CORRUPT")), "{health}");
    let metrics = servers.kubectl(&sound, &["get", "--raw", "/metrics"]).text();
    assert!(metrics.lines().any(|line| line.starts_with("reeve_store_corrupt{") && line.ends_with(" 1")), "{metrics}");

    servers.kill(&damaged);
    std::fs::remove_dir_all(servers.data_dir(&damaged)).expect("the damaged data");
    let printed = servers.reeve(&sound, &["member", "replace", &damaged]).text();
    let joined = joining(&printed);
    servers.start(&damaged, &joined.iter().map(String::as_str).collect::<Vec<_>>());
    servers.kubectl(&damaged, &["get", "configmap", "precious"]).done();
    eventually("the alarm is over", || {
        let all = members(&servers, &damaged)?;
        if all.len() == 3 && all.iter().all(|member| member["alarm"].is_null()) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    });
    servers.kubectl(&damaged, &["get", "--raw", "/readyz"]).done();
}
