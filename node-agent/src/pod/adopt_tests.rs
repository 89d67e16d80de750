//! Adoption as tables: what the engine has, what becomes of the pod.

use std::collections::BTreeMap;

use reeve_engine::engine::{ContainerConfig, SandboxConfig};

use super::*;
use crate::pod::plan::{Effect, ending, plan};
use crate::pod::resize::annotation;
use crate::pod::resources::{Size, pod_resources};
use crate::pod::state::spec;

fn now() -> Timestamp {
    Timestamp::from_second(1_000).unwrap()
}

fn pod(policy: &str, status: serde_json::Value) -> Arc<Pod> {
    let pod = serde_json::json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{ "name": "i", "image": "x" }],
            "containers": [{ "name": "c", "image": "x" }],
        },
        "status": status,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn sandbox(state: SandboxState) -> Sandbox {
    let resources = pod_resources(spec(&pod("Always", serde_json::Value::Null)));
    let config = SandboxConfig { uid: "u".to_owned(), attempt: 3, resources, ..SandboxConfig::default() };
    Sandbox { id: "s3".to_owned(), config, state, created_at: now(), netns: None, ips: Vec::new() }
}

fn container(name: &str, attempt: u32, exit_code: Option<i32>) -> engine::Container {
    let state = match exit_code {
        None => ContainerState::Running { started_at: now(), pid: 1 },
        Some(code) => ContainerState::Exited {
            started_at: Some(now()),
            finished_at: now(),
            exit_code: Some(code),
            reason: "Error".to_owned(),
            message: String::new(),
        },
    };
    let labels = BTreeMap::from([(POD_UID.to_owned(), "u".to_owned())]);
    let config = ContainerConfig { name: name.to_owned(), attempt, labels, ..ContainerConfig::default() };
    engine::Container {
        id: format!("{name}{attempt}"),
        sandbox: "s3".to_owned(),
        config,
        image_id: String::new(),
        user: None,
        state,
        created_at: now(),
    }
}

fn adopted(pod: Arc<Pod>, state: SandboxState, containers: Vec<engine::Container>) -> PodState {
    let remains = Remains::new(vec![sandbox(state)], containers).take("u");
    adopt(pod, &remains, &["10.0.0.7".parse().unwrap()], now()).state
}

#[test]
fn what_runs_goes_on_with_its_count_address_and_health() {
    let status = serde_json::json!({ "containerStatuses": [
        { "name": "c", "containerID": "reeve://c2", "ready": true, "started": true, "image": "", "imageID": "",
            "restartCount": 2 },
    ] });
    let containers = vec![container("i", 0, Some(0)), container("c", 1, Some(1)), container("c", 2, None)];
    let state = adopted(pod("Always", status), SandboxState::Ready, containers);
    assert_eq!(state.ips, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    let slot = &state.slots[1];
    assert_eq!((slot.restarts, slot.health.ready), (2, true));
    assert_eq!(slot.last.as_ref().unwrap().container, "c1");
    assert_eq!(plan(&state, now()).effects, [Effect::MountVolumes]);
}

/// How the container `c` is, which runs, if it has those probes and the API was told `before`.
fn health(probes: &[&str], before: serde_json::Value) -> (bool, bool) {
    let mut pod = (*pod("Always", serde_json::json!({ "containerStatuses": [before] }))).clone();
    let probe = || serde_json::from_value(serde_json::json!({ "tcpSocket": { "port": 1 } })).ok();
    let spec = &mut pod.spec.as_mut().unwrap().containers[0];
    spec.startup_probe = probes.contains(&"startup").then(probe).flatten();
    spec.readiness_probe = probes.contains(&"readiness").then(probe).flatten();
    let containers = vec![container("i", 0, Some(0)), container("c", 2, None)];
    let health = adopted(Arc::new(pod), SandboxState::Ready, containers).slots[1].health;
    (health.started, health.ready)
}

#[test]
fn a_container_of_which_the_api_has_not_heard_is_as_one_that_has_just_begun() {
    for told in ["", "reeve://c1"] {
        let before = serde_json::json!({ "name": "c", "containerID": told, "ready": true, "started": true,
            "image": "", "imageID": "", "restartCount": 1 });
        assert_eq!(health(&[], before.clone()), (true, true), "nobody will find out that it is well");
        assert_eq!(health(&["readiness"], before.clone()), (true, false));
        assert_eq!(health(&["startup"], before.clone()), (false, false));
        assert_eq!(health(&["startup", "readiness"], before), (false, false));
    }
}

#[test]
fn what_probes_have_found_stands_and_nothing_else_that_was_said_of_a_container() {
    let before = |started: bool, ready: bool| {
        serde_json::json!({ "name": "c", "containerID": "reeve://c2", "ready": ready, "started": started,
            "image": "", "imageID": "", "restartCount": 2 })
    };
    assert_eq!(health(&[], before(false, false)), (true, true), "somebody else said so");
    assert_eq!(health(&["startup"], before(true, false)), (true, true));
    assert_eq!(health(&["startup"], before(false, true)), (false, false));
    assert_eq!(health(&["readiness"], before(true, true)), (true, true));
    assert_eq!(health(&["readiness"], before(true, false)), (true, false));
    assert_eq!(health(&["startup", "readiness"], before(true, true)), (true, true));
}

#[test]
fn a_sidecar_of_which_the_api_has_not_heard_lets_the_next_container_start() {
    let mut pod = (*pod("Always", serde_json::Value::Null)).clone();
    pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].restart_policy = Some("Always".to_owned());
    let state = adopted(Arc::new(pod), SandboxState::Ready, vec![container("i", 0, None)]);
    assert!(state.initialized());
}

#[test]
fn a_resize_that_was_under_way_goes_on() {
    let mut half = container("c", 0, None);
    half.config.annotations.extend([annotation(Size { cpu_request: 100, ..Size::default() })]);
    let state =
        adopted(pod("Always", serde_json::Value::Null), SandboxState::Ready, vec![container("i", 0, Some(0)), half]);
    assert_eq!(plan(&state, now()).effects, [Effect::MountVolumes, Effect::Resize]);
}

#[test]
fn after_a_reboot_everything_starts_again_with_one_restart_more() {
    let containers = vec![container("i", 0, Some(0)), container("c", 2, Some(137))];
    let mut state = adopted(pod("Always", serde_json::json!({})), SandboxState::NotReady, containers);
    assert!(ending(&state, now()).is_none());
    let effects = plan(&state, now()).effects;
    assert!(effects.contains(&Effect::CreateSandbox { attempt: 4 }), "{effects:?}");
    state.sandbox = SandboxStep::Ready { id: "s4".to_owned() };
    assert_eq!((state.slots[0].next_attempt(), state.slots[1].next_attempt()), (1, 3));
    assert!(!state.initialized() || state.slots[1].last.is_some());
}

#[test]
fn a_pod_that_never_restarts_is_not_started_again() {
    let containers = vec![container("i", 0, Some(0)), container("c", 0, Some(137))];
    let state = adopted(pod("Never", serde_json::json!({})), SandboxState::NotReady, containers);
    assert!(ending(&state, now()).is_some());
}

#[test]
fn a_pod_that_had_ended_stays_ended_although_the_engine_forgot_it() {
    let status = serde_json::json!({ "phase": "Succeeded", "containerStatuses": [{
        "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 0, "containerID": "reeve://c0" } },
    }] });
    let beginning = adopt(pod("Always", status), &PodRemains::default(), &[], now());
    assert!(beginning.state.end.is_some());
    let plan = plan(&beginning.state, now());
    assert_eq!(plan.effects, [Effect::Teardown { remove: false }]);
}

fn status_of(container: &str, restarts: u32, state: serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "phase": "Running", "containerStatuses": [{
        "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts,
        "containerID": format!("reeve://{container}"), "state": state,
    }] })
}

#[test]
fn a_container_that_only_the_api_remembers_has_been_lost_and_counts_as_restarted() {
    let running = serde_json::json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    let pod = pod("Always", status_of("c4", 4, running));
    let mut state = adopt(pod, &PodRemains::default(), &[], now()).state;
    let slot = &state.slots[1];
    assert_eq!((slot.restarts, &slot.run), (4, &Run::Idle), "it is to run again");
    let last = slot.last.as_ref().unwrap();
    assert_eq!((last.container.as_str(), last.reason.as_str(), last.exit_code), ("c4", "ContainerStatusUnknown", 137));
    assert_eq!(slot.next_attempt(), 5);
    state.slots[0].run = Run::Idle;
    assert!(plan(&state, now()).effects.contains(&Effect::CreateSandbox { attempt: 0 }));
}

#[test]
fn what_the_api_knows_to_have_ended_well_is_not_run_again_although_the_engine_forgot_it() {
    let ended =
        serde_json::json!({ "terminated": { "exitCode": 0, "reason": "Completed", "containerID": "reeve://c0" } });
    let mut pod = (*pod("OnFailure", status_of("c0", 0, ended))).clone();
    let second = serde_json::from_value(serde_json::json!({ "name": "d", "image": "x" })).unwrap();
    pod.spec.as_mut().unwrap().containers.push(second);
    let state = adopt(Arc::new(pod), &PodRemains::default(), &[], now()).state;
    let exit = state.slots.iter().find(|slot| slot.name == "c").unwrap().exit().cloned().unwrap();
    assert_eq!((exit.container.as_str(), exit.exit_code), ("c0", 0));
}

#[test]
fn an_end_that_the_engine_forgot_is_as_the_api_was_told() {
    let ended =
        serde_json::json!({ "terminated": { "exitCode": 0, "reason": "Completed", "containerID": "reeve://c0" } });
    let mut lost = container("c", 0, Some(0));
    lost.state = ContainerState::Exited {
        started_at: None,
        finished_at: now(),
        exit_code: None,
        reason: "ContainerStatusUnknown".to_owned(),
        message: String::new(),
    };
    let pod = pod("Never", status_of("c0", 0, ended));
    let state = adopted(pod, SandboxState::NotReady, vec![container("i", 0, Some(0)), lost]);
    let exit = state.slots[1].exit().unwrap();
    assert_eq!((exit.exit_code, exit.reason.as_str()), (0, "Completed"));
}
