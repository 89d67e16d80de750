//! A resize as stories: what a pod has, what it is granted, what follows.

use std::slice::from_ref;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::super::image_volumes::ImageUse;
use super::super::plan::{Effect, plan};
use super::super::state::{Condemned, Exit, Health, Life, Run, VolumesStep};
use super::super::status::status;
use super::*;

const MIB: i64 = 1 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn container(name: &str, cpu: &str, memory: &str, policy: &Value) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": memory });
    json!({ "name": name, "image": "i", "resizePolicy": policy,
            "resources": { "limits": amounts, "requests": amounts } })
}

fn pod(generation: i64, containers: &[Value]) -> Arc<Pod> {
    let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": generation },
                      "spec": { "restartPolicy": "OnFailure", "containers": containers } });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// A pod whose containers run with what it says.
fn running(containers: &[Value]) -> PodState {
    let mut state = PodState::new(pod(1, containers), at(0));
    state.sandbox = SandboxStep::Ready { id: "s".to_owned() };
    state.volumes = VolumesStep::Ready;
    state.resize.group = Some(pod_resources(state.spec()));
    for index in 0..state.slots.len() {
        let size = state.container(index).map(|own| Size::of(state.spec(), own));
        let slot = &mut state.slots[index];
        slot.run = Run::Running(Life {
            container: format!("id-{}", slot.name),
            image: "i".to_owned(),
            image_id: "sha256:1".to_owned(),
            user: None,
            started_at: at(1),
            size,
        });
        slot.health = Health { started: true, ready: true };
    }
    state
}

/// The actions in words: `pod`, or the container's name, with the amounts.
fn told(job: &Job) -> Vec<String> {
    let amounts = |own: &Resources| {
        let parts = [
            own.memory_limit_bytes.map(|bytes| format!("{}Mi", bytes / MIB)),
            own.cpu_quota_us.map(|quota| format!("{}m", quota / 100)),
            own.cpu_shares.map(|shares| format!("{shares} shares")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let word = |action: Action| match action {
        Action::Group(resources) => format!("pod {}", amounts(&resources)),
        Action::Container { change, resources, .. } => {
            format!("{} {}", job.containers[change].name, amounts(&resources))
        }
    };
    job.actions().into_iter().map(word).collect()
}

fn resized(before: &[Value], after: &[Value]) -> PodState {
    let mut state = running(before);
    state.set_pod(pod(2, after));
    state
}

#[test]
fn a_pod_grows_before_its_containers_and_shrinks_after_them() {
    let none = json!([]);
    let (small, large) = (container("c", "100m", "50Mi", &none), container("c", "200m", "80Mi", &none));
    let up = job(&resized(from_ref(&small), from_ref(&large))).unwrap();
    assert_eq!(
        told(&up),
        ["pod 80Mi", "c 80Mi", "pod 200m", "pod 204 shares", "c 200m 204 shares"],
        "memory first, then processor"
    );
    let down = job(&resized(from_ref(&large), from_ref(&small))).unwrap();
    assert_eq!(told(&down), ["c 50Mi", "pod 50Mi", "c 100m 102 shares", "pod 102 shares", "pod 100m"]);
    assert_eq!(job(&resized(from_ref(&small), from_ref(&small))), None, "nothing to do");
}

#[test]
fn containers_that_give_come_before_those_that_take() {
    let none = json!([]);
    let before = [container("a", "100m", "50Mi", &none), container("b", "100m", "50Mi", &none)];
    let after = [container("a", "150m", "60Mi", &none), container("b", "70m", "45Mi", &none)];
    let job = job(&resized(&before, &after)).unwrap();
    assert_eq!(
        told(&job),
        ["pod 105Mi", "b 45Mi", "a 60Mi", "pod 220m", "pod 225 shares", "b 70m 71 shares", "a 150m 153 shares"]
    );
}

#[test]
fn a_first_limit_comes_after_the_containers_have_theirs() {
    let bare = json!({ "name": "c", "image": "i", "resources": { "requests": { "cpu": "100m" } } });
    let limited = json!({ "name": "c", "image": "i", "resources": {
        "requests": { "cpu": "100m" }, "limits": { "cpu": "200m", "memory": "50Mi" } } });
    let job = job(&resized(&[bare], &[limited])).unwrap();
    assert_eq!(told(&job), ["c 50Mi", "pod 50Mi", "c 200m 102 shares", "pod 200m"]);
}

#[test]
fn a_memory_limit_below_what_is_used_is_refused_in_the_kubelets_words() {
    let none = json!([]);
    let job = job(&resized(&[container("c", "1", "50Mi", &none)], &[container("c", "1", "1Mi", &none)])).unwrap();
    assert!(job.gives_memory());
    let used = |bytes| BTreeMap::from([("id-c".to_owned(), Some(bytes))]);
    assert_eq!(job.refusal(Some(1000), &used(900)), None);
    assert_eq!(
        job.refusal(Some(3_000_000), &used(2_000_000)).unwrap(),
        "cannot decrease memory limits: [attempting to set pod memory limit (1048576) below current usage (3000000), \
         attempting to set container \"c\" memory limit (1048576) below current usage (2000000)]"
    );
    assert_eq!(
        job.refusal(None, &BTreeMap::new()).unwrap(),
        "cannot decrease memory limits: missing pod memory usage",
        "a container that has ended uses nothing"
    );
    let none = json!([]);
    let more = super::job(&resized(&[container("c", "1", "50Mi", &none)], &[container("c", "2", "60Mi", &none)]));
    assert!(!more.unwrap().gives_memory(), "what is used matters only where a limit falls");
}

#[test]
fn a_container_restarts_exactly_where_its_policy_says_so() {
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": "NotRequired" },
                        { "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let of = |cpu, memory| container("c", cpu, memory, &policy);
    assert_eq!(restarts(&resized(&[of("1", "50Mi")], &[of("2", "50Mi")])), Vec::<usize>::new());
    let mut state = resized(&[of("1", "50Mi")], &[of("2", "60Mi")]);
    assert_eq!(restarts(&state), [0]);
    state.slots[0].condemned = Some(Condemned::by_pod("Container c resize requires restart".to_owned()));
    state.slots[0].revive = true;
    assert!(restarts(&state).is_empty(), "it is told once");
    let stop = plan(&state, at(2)).effects;
    assert!(matches!(stop.as_slice(), [Effect::StopContainer { slot: 0, .. }]), "first it ends: {stop:?}");
    // It ends well, of which a policy of OnFailure would make the pod's end.
    let exit = Exit {
        container: "id-c".to_owned(),
        image_id: "sha256:1".to_owned(),
        user: None,
        started_at: Some(at(1)),
        finished_at: at(2),
        exit_code: 0,
        reason: "Completed".to_owned(),
        message: String::new(),
    };
    state.slots[0].on_exit(exit, 0);
    assert_eq!(super::super::plan::ending(&state, at(2)), None);
    let then = plan(&state, at(2)).effects;
    assert!(
        then.contains(&Effect::Resize) && !then.iter().any(|effect| matches!(effect, Effect::StartContainer { .. }))
    );
    state.resize.group = Some(pod_resources(state.spec()));
    assert!(is_in_progress(&state), "until it runs again");
    assert_eq!(
        plan(&state, at(2)).effects,
        [Effect::FetchImage { of: ImageUse::Container(0) }],
        "then it begins, without a back-off"
    );
}

#[test]
fn a_resize_that_fails_is_tried_again_later_and_keeps_no_container_down() {
    let none = json!([]);
    let mut state = resized(&[container("c", "1", "50Mi", &none)], &[container("c", "1", "60Mi", &none)]);
    assert_eq!(plan(&state, at(2)).effects, [Effect::Resize]);
    state.resize.under_way = true;
    assert_eq!(plan(&state, at(2)).effects, [], "one at a time");
    state.resize.under_way = false;
    state.resize.retry = Some((1, at(5)));
    let waiting = plan(&state, at(2));
    assert_eq!((waiting.effects, waiting.wake_at), (vec![], Some(at(5))));
    assert_eq!(plan(&state, at(5)).effects, [Effect::Resize]);
}

#[test]
fn the_status_tells_what_was_granted_what_is_there_and_why_not() {
    let none = json!([]);
    let mut state = resized(&[container("c", "100m", "50Mi", &none)], &[container("c", "200m", "60Mi", &none)]);
    let mut in_progress = InProgress::begun(Some(2), at(2));
    assert!(in_progress.failed("no".to_owned(), at(3)), "it is new");
    assert!(!in_progress.failed("no".to_owned(), at(4)), "it is known");
    state.resize.in_progress = Some(in_progress);
    state.resize.pending = Some(Pending {
        reason: "Deferred".to_owned(),
        message: "m".to_owned(),
        generation: Some(3),
        since: at(5),
        probed: at(6),
    });
    let told = status(&state, "10.0.0.1".parse().unwrap(), &PodStatus::default(), at(7));
    let told = serde_json::to_value(told).unwrap();
    let of_container = &told["containerStatuses"][0];
    assert_eq!(of_container["allocatedResources"], json!({ "cpu": "200m", "memory": "60Mi" }));
    assert_eq!(of_container["resources"]["limits"], json!({ "cpu": "100m", "memory": "50Mi" }));
    let conditions = told["conditions"].as_array().unwrap();
    let find = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    assert_eq!(
        *find(PENDING),
        json!({ "type": PENDING, "status": "True", "reason": "Deferred", "message": "m", "observedGeneration": 3,
                "lastTransitionTime": "1970-01-12T13:46:45Z", "lastProbeTime": "1970-01-12T13:46:46Z" })
    );
    let progress = find(IN_PROGRESS);
    assert_eq!((&progress["reason"], &progress["message"]), (&json!("Error"), &json!("no")));
    let mut pod = Pod::clone(&state.pod);
    pod.status = Some(serde_json::from_value(told.clone()).unwrap());
    assert_eq!(Resize::recalled(&pod).in_progress, state.resize.in_progress, "the next agent goes on with it");
}

#[test]
fn events_carry_the_resources_as_the_kubelets_do() {
    let pod: Pod = serde_json::from_value(json!({ "spec": {
        "initContainers": [{ "name": "i" }],
        "containers": [{ "name": "c", "resources": { "limits": { "cpu": "1" }, "requests": { "cpu": "1" } } }],
    }}))
    .unwrap();
    assert_eq!(
        event("Pod resize OutOfcpu", &pod, Some(2), "too much"),
        "Pod resize OutOfcpu: {\"initContainers\":[{\"name\":\"i\",\"resources\":{}}],\
         \"containers\":[{\"name\":\"c\",\"resources\":{\"limits\":{\"cpu\":\"1\"},\"requests\":{\"cpu\":\"1\"}}}],\
         \"generation\":2,\"error\":\"too much\"}"
    );
}
