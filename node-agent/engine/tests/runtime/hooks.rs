//! Hooks of the node's owner: where and when they run, and what their failure means.

use reeve_engine::engine::{ContainerState, Engine as _, SandboxConfig, UserNamespace};
use serde_json::{Value, json};

use crate::bed::{Bed, eventually, log_text};

crate::tests![
    every_stage_runs_in_its_place_and_knows_its_container,
    a_hook_that_fails_or_takes_too_long_fails_the_start_and_nothing_runs,
    a_container_that_no_file_speaks_of_has_no_hooks,
];

/// Writes a file that runs a shell script at some stages.
fn hook(bed: &Bed, name: &str, stages: &[&str], script: &str, when: &Value, timeout: u64) {
    let dir = bed.dir().join("hooks.d");
    std::fs::create_dir_all(&dir).unwrap();
    let file = json!({
        "version": "1.0.0", "when": when, "stages": stages,
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": timeout},
    });
    std::fs::write(dir.join(name), file.to_string()).unwrap();
}

async fn every_stage_runs_in_its_place_and_knows_its_container() {
    let bed = Bed::new().await;
    let out = bed.dir().join("out");
    std::fs::create_dir(&out).unwrap();
    let place = out.display();
    let always = json!({ "always": true });
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let script = format!("cat > {place}/{stage}; echo {stage} $(hostname) >> {place}/order");
        hook(&bed, &format!("{stage}.json"), &[stage], &script, &always, 10);
    }
    // Of the container itself: the program, too.
    hook(&bed, "inside.json", &["startContainer"], "echo here > /tmp/inside; grep -c id > /dev/null", &always, 10);
    let users = UserNamespace { first: 702 << 16, length: 1 << 16 };
    for user_namespace in [None, Some(users)] {
        let _ = std::fs::remove_file(out.join("order"));
        let config = SandboxConfig { user_namespace, ..bed.sandbox_config() };
        let pod = bed.engine.run_pod_sandbox(config).await.unwrap();
        let config = bed.script("hooked", "cat /tmp/inside; exec sleep 1000");
        let log = config.log_path.clone();
        let _ = std::fs::remove_file(&log);
        let id = bed.start(&pod, config).await;
        eventually("its command finds what a hook has left", || log_text(&log) == "here\n").await;
        let ContainerState::Running { pid, .. } = bed.engine.container_status(&id).await.unwrap().state else {
            panic!("it runs")
        };
        bed.engine.remove_container(&id).await.unwrap();
        let node = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
        let order = [("prestart", &*node), ("createRuntime", &node), ("createContainer", "web-0")];
        let order = order.into_iter().chain([("poststart", &*node), ("poststop", &node)]);
        let expected: String = order.map(|(stage, name)| format!("{stage} {name}\n")).collect();
        assert_eq!(std::fs::read_to_string(out.join("order")).unwrap(), expected);
        for (stage, status) in [("createRuntime", "creating"), ("poststart", "running"), ("poststop", "stopped")] {
            let state: Value = serde_json::from_slice(&std::fs::read(out.join(stage)).unwrap()).unwrap();
            assert_eq!((&state["id"], &state["status"]), (&json!(id), &json!(status)), "{state}");
            let pid = if status == "stopped" { Value::Null } else { json!(pid) };
            assert_eq!(state["pid"], pid, "{state}");
        }
        bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    }
    bed.close().await;
}

async fn a_hook_that_fails_or_takes_too_long_fails_the_start_and_nothing_runs() {
    let bed = Bed::new().await;
    let always = json!({ "always": true });
    let pod = bed.sandbox().await;
    for (stage, script, why) in [
        ("createRuntime", "echo no way >&2; exit 3", "exit status 3, stdout: , stderr: no way"),
        ("startContainer", "exit 4", "exit status 4, stdout: , stderr: "),
        ("createContainer", "sleep 100", "hook ran past specified timeout of 1s"),
    ] {
        hook(&bed, "bad.json", &[stage], script, &always, 1);
        let id = bed.engine.create_container(&pod.id, bed.script("never", "touch /tmp/ran; sleep 100")).await.unwrap();
        let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
        assert_eq!(error, format!("error running {stage} hook #0: {why}"));
        let (code, reason, message) = bed.end(&id).await;
        assert_eq!((code, reason.as_str(), message), (Some(128), "StartError", error));
        bed.engine.remove_container(&id).await.unwrap();
    }
    std::fs::write(bed.dir().join("hooks.d/bad.json"), "{").unwrap();
    let id = bed.engine.create_container(&pod.id, bed.script("never", "true")).await.unwrap();
    let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
    assert!(error.contains("bad.json"), "{error}");
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn a_container_that_no_file_speaks_of_has_no_hooks() {
    let bed = Bed::new().await;
    let when = json!({ "annotations": { "^example.com/gpu$": "^yes$" }, "commands": ["^sh$"] });
    hook(&bed, "gpu.json", &["createRuntime"], "echo the hook ran >&2; exit 1", &when, 5);
    assert_eq!(bed.run(bed.script("plain", "echo fine")).await, (0, "fine\n".to_owned()));
    let mut config = bed.script("gpu", "echo fine");
    config.annotations.insert("example.com/gpu".to_owned(), "yes".to_owned());
    let pod = bed.sandbox().await;
    let id = bed.engine.create_container(&pod.id, config).await.unwrap();
    let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
    assert!(error.ends_with("stderr: the hook ran"), "{error}");
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}
