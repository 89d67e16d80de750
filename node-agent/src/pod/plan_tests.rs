//! The plan as stories: what is known of a pod, what happens next.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use reeve_engine::engine::{Image, ProcessUser};

use super::image_volumes::ImageUse;
use super::plan::{Effect, ending, plan};
use super::state::{
    Condemned, Drain, End, Exit, Health, ImageProblem, ImageStep, Life, PodState, Run, SandboxStep, StartFailure, Step,
    VolumesStep, Why,
};
use super::status::status;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn pod(spec: serde_json::Value) -> PodState {
    let pod = serde_json::json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 1 },
        "spec": spec,
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    PodState::new(Arc::new(pod), at(0))
}

fn simple(policy: &str) -> PodState {
    pod(serde_json::json!({ "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }] }))
}

fn image() -> ImageStep {
    ImageStep::Ready(Box::new(Image {
        id: "sha256:1".to_owned(),
        tags: vec![],
        digests: vec![],
        size_bytes: 1,
        created_at: None,
        user: String::new(),
    }))
}

/// Sandbox, volumes and images are there.
fn on_ground(mut state: PodState) -> PodState {
    state.sandbox = SandboxStep::Ready { id: "s".to_owned() };
    state.volumes = VolumesStep::Ready;
    for slot in &mut state.slots {
        slot.image = image();
    }
    state
}

fn life(name: &str) -> Run {
    Run::Running(Life {
        container: format!("id-{name}"),
        image: "i".to_owned(),
        image_id: "sha256:1".to_owned(),
        user: Some(ProcessUser { uid: 1000, gid: 7, groups: vec![7, 8] }),
        started_at: at(1),
        size: None,
    })
}

fn exit(code: i32, second: i64) -> Exit {
    Exit {
        container: "id-c".to_owned(),
        image_id: "sha256:1".to_owned(),
        user: Some(ProcessUser { uid: 1000, gid: 7, groups: vec![7, 8] }),
        started_at: Some(at(1)),
        finished_at: at(second),
        exit_code: code,
        reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
    }
}

fn run(state: &mut PodState, slot: usize) {
    let name = state.slots[slot].name.clone();
    state.slots[slot].run = life(&name);
    state.slots[slot].health = Health { started: true, ready: true };
}

fn starts(state: &PodState, second: i64) -> Vec<(usize, u32)> {
    let effects = plan(state, at(second)).effects;
    let start = |effect: &Effect| match effect {
        Effect::StartContainer { slot, attempt } => Some((*slot, *attempt)),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

fn written(state: &PodState, second: i64) -> serde_json::Value {
    let status = status(state, "192.0.2.1".parse().unwrap(), &PodStatus::default(), at(second));
    serde_json::to_value(status).unwrap()
}

fn condition(status: &serde_json::Value, kind: &str) -> (String, String) {
    let list = status["conditions"].as_array().unwrap();
    let found = list.iter().find(|condition| condition["type"] == kind).unwrap();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

#[test]
fn sandbox_volumes_and_images_are_prepared_at_the_same_time() {
    let effects = plan(&simple("Always"), at(0)).effects;
    assert_eq!(
        effects,
        [Effect::CreateSandbox { attempt: 0 }, Effect::MountVolumes, Effect::FetchImage { of: ImageUse::Container(0) }]
    );
}

#[test]
fn containers_start_together_when_the_ground_is_there() {
    let state = on_ground(pod(serde_json::json!({ "containers": [{ "name": "a" }, { "name": "b" }] })));
    assert_eq!(starts(&state, 0), [(0, 0), (1, 0)]);
    let mut waiting = state.clone();
    waiting.volumes = VolumesStep::Mounting;
    assert_eq!(starts(&waiting, 0), []);
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let mut state = on_ground(pod(serde_json::json!({
        "initContainers": [{ "name": "i1" }, { "name": "side", "restartPolicy": "Always" }, { "name": "i2" }],
        "containers": [{ "name": "c" }],
    })));
    assert_eq!(starts(&state, 0), [(0, 0)]);
    assert_eq!(written(&state, 0)["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    run(&mut state, 0);
    assert_eq!(starts(&state, 0), []);
    state.slots[0].run = Run::Exited(exit(0, 2));
    assert_eq!(starts(&state, 2), [(1, 0)]);
    run(&mut state, 1);
    state.slots[1].health = Health::default();
    assert_eq!(starts(&state, 2), []);
    state.slots[1].health.started = true;
    assert_eq!(starts(&state, 2), [(2, 0)]);
    let message = "containers with incomplete status: [i2]".to_owned();
    assert_eq!(condition(&written(&state, 2), "Initialized"), ("False".to_owned(), message));
    state.slots[2].run = Run::Exited(exit(0, 3));
    assert_eq!(starts(&state, 3), [(3, 0)]);
    run(&mut state, 3);
    assert_eq!(condition(&written(&state, 3), "Initialized").0, "True");
    // A sidecar that ends is started again, whatever its code.
    state.slots[1].run = Run::Exited(exit(0, 4));
    assert_eq!(starts(&state, 4), [(1, 1)]);
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let mut state = on_ground(pod(serde_json::json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "i" }],
        "containers": [{ "name": "c" }],
    })));
    state.slots[0].run = Run::Exited(exit(1, 2));
    state.end = ending(&state, at(2));
    assert_eq!(state.end.as_ref().map(|end| &end.why), Some(&Why::Completed));
    assert_eq!(written(&state, 2)["phase"], "Failed");
}

#[test]
fn restart_policies_decide_what_an_exit_means() {
    for (policy, code, restarts, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 1, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
    ] {
        let mut state = on_ground(simple(policy));
        state.slots[0].run = Run::Exited(exit(code, 5));
        assert_eq!(!starts(&state, 5).is_empty(), restarts, "{policy} {code}");
        assert_eq!(ending(&state, at(5)).is_none(), restarts, "{policy} {code}");
        assert_eq!(written(&state, 5)["phase"], phase, "{policy} {code}");
    }
}

#[test]
fn a_crashing_container_waits_longer_each_time_and_says_so() {
    let mut state = on_ground(simple("Always"));
    state.slots[0].run = Run::Exited(exit(1, 0));
    assert_eq!(starts(&state, 0), [(0, 1)]);
    state.slots[0].backoff.restarted(at(0), at(0));
    state.slots[0].run = Run::Exited(exit(1, 1));
    state.slots[0].restarts = 1;
    let waiting = plan(&state, at(2));
    assert_eq!(waiting.effects, [Effect::TellCrashBackoff { slot: 0, until: at(11) }]);
    assert_eq!(waiting.wake_at, Some(at(11)));
    let status = written(&state, 2);
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["state"]["waiting"]["message"], "back-off 10s restarting failed container=c pod=p_n(u)");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!((&container["restartCount"], &status["phase"]), (&1.into(), &"Running".into()));
    assert_eq!(starts(&state, 11), [(0, 2)]);
}

#[test]
fn a_failed_pull_becomes_a_back_off() {
    let mut state = on_ground(simple("Always"));
    let problem = |backs_off| ImageProblem { reason: "ErrImagePull", message: "no such host".to_owned(), backs_off };
    let failed =
        |backs_off| ImageStep::Failed { problem: problem(backs_off), failures: 1, since: at(0), retry_at: at(10) };
    state.slots[0].image = failed(false);
    let waiting = |state: &PodState| written(state, 0)["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting(&state)["reason"], "ErrImagePull");
    assert_eq!(plan(&state, at(0)).wake_at, Some(at(1)));
    assert_eq!(plan(&state, at(1)).effects, [Effect::TellPullBackoff { of: ImageUse::Container(0) }]);
    state.slots[0].image = failed(true);
    assert_eq!(waiting(&state)["reason"], "ImagePullBackOff");
    assert_eq!(waiting(&state)["message"], "Back-off pulling image \"i\": ErrImagePull: no such host");
    assert_eq!(plan(&state, at(10)).effects, [Effect::FetchImage { of: ImageUse::Container(0) }]);
    state.slots[0].image = ImageStep::Fetching { failures: 1, before: Some(problem(true)) };
    assert_eq!(waiting(&state)["reason"], "ImagePullBackOff", "still, while the next attempt is made");
}

#[test]
fn only_a_failed_pull_becomes_a_back_off() {
    let mut state = on_ground(simple("Always"));
    let message = "Container image \"i\" is not present with pull policy of Never".to_owned();
    let problem = ImageProblem { reason: "ErrImageNeverPull", message, backs_off: false };
    state.slots[0].image = ImageStep::Failed { problem, failures: 1, since: at(0), retry_at: at(10) };
    assert!(plan(&state, at(5)).effects.is_empty());
}

/// Two containers of which the first mounts a volume that shows an image, twice; nobody mounts the other such volume.
fn with_image_volumes() -> PodState {
    let mount = |path: &str| serde_json::json!({ "name": "data", "mountPath": path });
    let volume = |name: &str| serde_json::json!({ "name": name, "image": { "reference": format!("{name}:1") } });
    on_ground(pod(serde_json::json!({
        "restartPolicy": "Always",
        "containers": [
            { "name": "a", "image": "i", "volumeMounts": [mount("/x"), mount("/y")] },
            { "name": "b", "image": "i" },
        ],
        "volumes": [volume("data"), { "name": "other", "emptyDir": {} }, volume("unused")],
    })))
}

fn missing(reason: &'static str) -> ImageStep {
    let problem = ImageProblem { reason, message: "no such host".to_owned(), backs_off: false };
    ImageStep::Failed { problem, failures: 1, since: at(0), retry_at: at(10) }
}

#[test]
fn the_images_of_all_volumes_are_looked_for_once_before_any_container_starts() {
    let mut state = with_image_volumes();
    let fetch = |number| Effect::FetchImage { of: ImageUse::Volume(number) };
    assert_eq!(plan(&state, at(1)).effects, [fetch(0), fetch(1)]);
    state.image_volumes[0].image = image();
    state.image_volumes[1].image = ImageStep::Fetching { failures: 0, before: None };
    assert!(plan(&state, at(1)).effects.is_empty());
    state.image_volumes[1].image = image();
    assert_eq!(starts(&state, 1), [(0, 0), (1, 0)]);
    assert_eq!(state.shown_images().keys().collect::<Vec<_>>(), ["data", "unused"]);
    // And again before the next life of one of them.
    run(&mut state, 0);
    run(&mut state, 1);
    assert!(plan(&state, at(2)).effects.is_empty());
    state.slots[1].on_exit(exit(0, 2), 0);
    state.slots[1].image = image();
    state.forget_shown_images();
    assert_eq!(plan(&state, at(60)).effects, [fetch(0), fetch(1)]);
    // Not before that is due.
    let (reason, message) = ("CreateContainerError", String::new());
    state.slots[1].failure = Some(StartFailure { reason, message, failures: 1, retry_at: at(70) });
    assert_eq!((plan(&state, at(60)).effects, plan(&state, at(60)).wake_at), (vec![], Some(at(70))));
    assert_eq!(plan(&state, at(70)).effects, [fetch(0), fetch(1)]);
}

#[test]
fn an_image_that_cannot_be_had_holds_up_only_who_mounts_it() {
    let mut state = with_image_volumes();
    state.image_volumes[0].image = missing("ErrImagePull");
    state.image_volumes[1].image = missing("ErrImagePull");
    assert_eq!(starts(&state, 0), [(1, 0)]);
    assert_eq!(state.waiting_for(ImageUse::Volume(0)), ["a"]);
    assert_eq!(state.waiting_for(ImageUse::Volume(1)), Vec::<String>::new());
    let waiting = |state: &PodState, index: usize| {
        let container = &written(state, 0)["containerStatuses"][index];
        let waiting = &container["state"]["waiting"];
        [&waiting["reason"], &waiting["message"]].map(|text| text.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(waiting(&state, 0), ["ErrImagePull", "no such host"]);
    assert_eq!(waiting(&state, 1), ["ContainerCreating", ""]);
    let of = ImageUse::Volume(0);
    assert!(plan(&state, at(1)).effects.contains(&Effect::TellPullBackoff { of }));
    if let Some(ImageStep::Failed { problem, .. }) = state.image_step_mut(of) {
        problem.backs_off = true;
    }
    let message = "Back-off pulling image \"data:1\": ErrImagePull: no such host";
    assert_eq!(waiting(&state, 0), ["ImagePullBackOff", message]);
    assert!(plan(&state, at(10)).effects.contains(&Effect::FetchImage { of }));
    // Its own image is missing, too: what the volume lacks comes first.
    state.slots[0].image = missing("InvalidImageName");
    assert_eq!(waiting(&state, 0)[0], "ImagePullBackOff");
}

#[test]
fn the_image_of_a_container_is_looked_for_when_its_turn_has_come() {
    let mut state = pod(serde_json::json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "c" }] }));
    let fetches = |state: &PodState| {
        let effects = plan(state, at(2)).effects;
        let slot = |effect: &Effect| match effect {
            Effect::FetchImage { of: ImageUse::Container(slot) } => Some(*slot),
            _ => None,
        };
        effects.iter().filter_map(slot).collect::<Vec<_>>()
    };
    assert_eq!(fetches(&state), [0], "while sandbox and volumes are being made");
    state = on_ground(state);
    state.slots[1].image = ImageStep::Unknown { failures: 0 };
    run(&mut state, 0);
    assert_eq!(fetches(&state), Vec::<usize>::new(), "the init container still runs");
    state.slots[0].run = Run::Exited(exit(0, 2));
    assert_eq!(fetches(&state), [1]);
}

#[test]
fn readiness_makes_conditions_and_the_status_is_the_kubelets() {
    let mut state = on_ground(simple("Always"));
    state.ips = vec!["10.0.0.2".parse().unwrap()];
    run(&mut state, 0);
    state.slots[0].health.ready = false;
    let unready = written(&state, 1);
    let message = "containers with unready status: [c]".to_owned();
    assert_eq!(condition(&unready, "Ready"), ("False".to_owned(), message.clone()));
    assert_eq!(condition(&unready, "ContainersReady"), ("False".to_owned(), message));
    state.slots[0].health.ready = true;
    let ready = written(&state, 1);
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&ready, kind).0, "True", "{kind}");
    }
    assert_eq!(ready["phase"], "Running");
    assert_eq!(ready["podIPs"], serde_json::json!([{ "ip": "10.0.0.2" }]));
    assert_eq!(ready["hostIPs"], serde_json::json!([{ "ip": "192.0.2.1" }]));
    assert_eq!((&ready["qosClass"], &ready["observedGeneration"]), (&"BestEffort".into(), &1.into()));
    assert_eq!(ready["containerStatuses"][0]["containerID"], "reeve://id-c");
    assert_eq!(ready["containerStatuses"][0]["started"], true);
}

#[test]
fn a_deleted_pod_is_drained_stopped_torn_down_and_then_deleted() {
    let mut state = on_ground(simple("Always"));
    run(&mut state, 0);
    Arc::make_mut(&mut state.pod).metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    Arc::make_mut(&mut state.pod).metadata.deletion_grace_period_seconds = Some(30);
    state.end = ending(&state, at(0));
    assert_eq!(plan(&state, at(0)).effects, [Effect::Drain]);
    state.end.as_mut().unwrap().drain = Drain::UnderWay;
    assert_eq!(plan(&state, at(0)).effects, []);
    state.end.as_mut().unwrap().drain = Drain::Done;
    let stop = Effect::StopContainer {
        slot: 0,
        container: "id-c".to_owned(),
        grace: Duration::from_secs(30),
        message: "Stopping container c".to_owned(),
    };
    assert_eq!(plan(&state, at(0)).effects, [stop]);
    state.slots[0].step = Step::Stopping { grace: Duration::from_secs(30) };
    assert_eq!(plan(&state, at(1)).effects, []);
    state.slots[0].step = Step::Rest;
    state.slots[0].run = Run::Exited(exit(143, 2));
    assert_eq!(plan(&state, at(2)).effects, [Effect::Teardown { remove: true }]);
    assert_eq!(written(&state, 2)["phase"], "Failed");
    state.sandbox = SandboxStep::Removed;
    state.end.as_mut().unwrap().torn_down = true;
    assert_eq!(plan(&state, at(2)).effects, [Effect::DeleteObject]);
}

#[test]
fn sidecars_end_after_the_containers_in_reverse_order() {
    let mut state = on_ground(pod(serde_json::json!({
        "initContainers": [
            { "name": "s1", "restartPolicy": "Always" },
            { "name": "s2", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "c" }],
    })));
    for slot in 0..3 {
        run(&mut state, slot);
    }
    state.end = Some(End { drain: Drain::Done, ..End::new(Why::Deleted, Duration::from_secs(30), at(0)) });
    let stopped = |state: &PodState| -> Vec<usize> {
        let effects = plan(state, at(0)).effects;
        effects
            .iter()
            .filter_map(|e| if let Effect::StopContainer { slot, .. } = e { Some(*slot) } else { None })
            .collect()
    };
    assert_eq!(stopped(&state), [2]);
    state.slots[2].run = Run::Exited(exit(0, 1));
    assert_eq!(stopped(&state), [1]);
    state.slots[1].run = Run::Exited(exit(0, 1));
    assert_eq!(stopped(&state), [0]);
}

#[test]
fn a_stop_that_takes_its_whole_grace_is_not_begun_again() {
    let mut state = on_ground(simple("Always"));
    run(&mut state, 0);
    state.slots[0].step = Step::Stopping { grace: Duration::from_secs(30) };
    state.end = Some(End { drain: Drain::Done, ..End::new(Why::Deleted, Duration::from_secs(30), at(0)) });
    assert_eq!(plan(&state, at(30)).effects, [], "its preStop hook would run twice");
}

#[test]
fn a_shorter_grace_stops_again() {
    let mut state = on_ground(simple("Always"));
    run(&mut state, 0);
    state.slots[0].step = Step::Stopping { grace: Duration::from_secs(30) };
    state.end = Some(End { drain: Drain::Done, ..End::new(Why::Deleted, Duration::from_secs(1), at(0)) });
    let effects = plan(&state, at(3)).effects;
    assert!(matches!(&effects[..], [Effect::StopContainer { grace, .. }] if *grace == Duration::from_secs(1)));
}

#[test]
fn a_pod_over_its_deadline_fails_with_the_kubelets_reason() {
    let mut state = on_ground(pod(serde_json::json!({ "activeDeadlineSeconds": 10, "containers": [{ "name": "c" }] })));
    run(&mut state, 0);
    assert_eq!(ending(&state, at(9)), None);
    assert_eq!(plan(&state, at(9)).wake_at, Some(at(10)));
    let end = ending(&state, at(10)).unwrap();
    let Why::Failed { reason, message } = end.why.clone() else { panic!("{end:?}") };
    assert_eq!(message, "Pod was active on the node longer than the specified deadline");
    state.failed = Some((reason, message));
    state.end = Some(end);
    let status = written(&state, 10);
    assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"DeadlineExceeded".into()));
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_stopped_and_started_again() {
    let mut state = on_ground(simple("Always"));
    run(&mut state, 0);
    let message = "Container c failed liveness probe, will be restarted".to_owned();
    state.slots[0].condemned = Some(Condemned::by_probe(message));
    let effects = plan(&state, at(0)).effects;
    assert!(matches!(&effects[..], [Effect::StopContainer { slot: 0, .. }]), "{effects:?}");
}

#[test]
fn a_status_shows_resources_mounts_and_user_once_the_container_is_there() {
    let mut state = on_ground(pod(serde_json::json!({ "containers": [
        { "name": "z", "image": "i",
            "resources": { "requests": { "cpu": "100m" }, "limits": { "cpu": "200m", "memory": "1Gi" } },
            "volumeMounts": [
                { "name": "data", "mountPath": "/data" },
                { "name": "token", "mountPath": "/token", "readOnly": true },
                { "name": "deep", "mountPath": "/deep", "readOnly": true, "recursiveReadOnly": "IfPossible" },
            ] },
        { "name": "a", "image": "i" },
    ] })));
    let mounts = serde_json::json!([
        { "name": "data", "mountPath": "/data" },
        { "name": "token", "mountPath": "/token", "readOnly": true, "recursiveReadOnly": "Disabled" },
        { "name": "deep", "mountPath": "/deep", "readOnly": true, "recursiveReadOnly": "Enabled" },
    ]);
    let waiting = written(&state, 0)["containerStatuses"].clone();
    assert_eq!((&waiting[0]["name"], &waiting[1]["name"]), (&"a".into(), &"z".into()), "in the order of their names");
    assert_eq!(waiting[1]["volumeMounts"], mounts);
    assert_eq!(waiting[1]["image"], "i");
    for field in ["resources", "allocatedResources", "user"] {
        assert!(waiting[1].get(field).is_none(), "{field} before there is a container");
    }
    run(&mut state, 0);
    run(&mut state, 1);
    let running = written(&state, 1)["containerStatuses"].clone();
    assert_eq!(running[1]["image"], "docker.io/library/i:latest", "as the runtime names it");
    let limits = serde_json::json!({ "cpu": "200m", "memory": "1Gi" });
    assert_eq!(running[1]["resources"], serde_json::json!({ "requests": { "cpu": "100m" }, "limits": limits }));
    assert_eq!(running[1]["allocatedResources"], serde_json::json!({ "cpu": "100m" }));
    let user = serde_json::json!({ "linux": { "uid": 1000, "gid": 7, "supplementalGroups": [7, 8] } });
    assert_eq!((&running[1]["user"], &running[1]["volumeMounts"]), (&user, &mounts));
    assert_eq!((&running[0]["resources"], running[0].get("allocatedResources")), (&serde_json::json!({}), None));
    state.slots[0].run = Run::Exited(exit(1, 2));
    assert_eq!(written(&state, 2)["containerStatuses"][1]["user"], user, "also after its end");
}

#[test]
fn every_condition_names_the_generation_it_saw() {
    let state = on_ground(simple("Always"));
    let status = written(&state, 0);
    let conditions = status["conditions"].as_array().unwrap();
    let kinds: Vec<_> = conditions.iter().map(|condition| condition["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
    assert!(conditions.iter().all(|condition| condition["observedGeneration"] == 1), "{conditions:?}");
    assert_eq!((&status["observedGeneration"], &status["qosClass"]), (&1.into(), &"BestEffort".into()));
    assert_eq!((&status["hostIP"], &status["hostIPs"][0]["ip"]), (&"192.0.2.1".into(), &"192.0.2.1".into()));
}

#[test]
fn a_sidecar_that_is_not_ready_keeps_the_pod_from_being_ready() {
    let mut state = on_ground(pod(serde_json::json!({
        "initContainers": [{ "name": "side", "restartPolicy": "Always" }], "containers": [{ "name": "c" }],
    })));
    run(&mut state, 0);
    run(&mut state, 1);
    assert_eq!(condition(&written(&state, 1), "Ready").0, "True");
    state.slots[0].health.ready = false;
    let message = "containers with unready status: [side]".to_owned();
    assert_eq!(condition(&written(&state, 1), "Ready"), ("False".to_owned(), message));
}

#[test]
fn an_ephemeral_container_starts_at_once_and_never_again_and_the_pod_does_not_wait_for_it() {
    let spec = serde_json::json!({
        "restartPolicy": "Always",
        "initContainers": [{ "name": "i", "image": "i" }],
        "containers": [{ "name": "c", "image": "i" }],
    });
    let mut state = on_ground(pod(spec));
    run(&mut state, 0);
    let mut grown = (*state.pod).clone();
    let own = serde_json::json!([{ "name": "e", "image": "i", "targetContainerName": "c" }]);
    grown.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(own).unwrap();
    let grown = Arc::new(grown);
    assert!(state.set_pod(Arc::clone(&grown)), "a container has been added");
    assert!(!state.set_pod(grown), "and is not added twice");
    assert_eq!(plan(&state, at(2)).effects, [Effect::FetchImage { of: ImageUse::Container(2) }]);
    state.slots[2].image = image();
    let start = Effect::StartContainer { slot: 2, attempt: 0 };
    assert_eq!(plan(&state, at(2)).effects, [start], "although the init container still runs");
    run(&mut state, 2);
    let shown = status(&state, "192.0.2.1".parse().unwrap(), &PodStatus::default(), at(2));
    let own = &shown.ephemeral_container_statuses.as_ref().unwrap()[0];
    assert_eq!((own.name.as_str(), own.ready, own.started), ("e", false, None));
    assert!(own.state.as_ref().unwrap().running.is_some());
    assert_eq!(shown.container_statuses.unwrap().len(), 1);
    state.slots[2].run = Run::Exited(exit(1, 3));
    assert_eq!(plan(&state, at(100)).effects, [], "it is not started again");
    state.slots[0].run = Run::Exited(exit(0, 4));
    run(&mut state, 1);
    let ready = status(&state, "192.0.2.1".parse().unwrap(), &PodStatus::default(), at(5));
    let ready = ready.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
}
