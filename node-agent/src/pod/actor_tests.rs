//! A pod's whole life with an engine and an API in memory: real actor, real table, real files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use reeve_api::clock::RealClock;
use reeve_api::drain::NoProxy;
use reeve_api::rng::SeededRng;
use reeve_client::{Component, EventRecorder, Informer};
use reeve_engine::engine::*;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::actor::{Beginning, Input, PodHandle, start};
use super::adopt::{Remains, adopt};
use super::context::NodeContext;
use super::state::PodState;
use super::user_ids::UserIds;
use super::view::Views;
use crate::node::machine::Capacity;
use crate::objects::ObjectCache;
use crate::probe::metrics::ProbeCounts;
use crate::testing::node_config;

/// An engine whose containers are records; commands "run" until the test ends them.
struct MemoryEngine {
    clock: RealClock,
    sandboxes: Mutex<BTreeMap<String, Sandbox>>,
    containers: Mutex<BTreeMap<String, Container>>,
    events: broadcast::Sender<EngineEvent>,
    images: Mutex<Vec<String>>,
}

impl MemoryEngine {
    fn new() -> Arc<Self> {
        let events = broadcast::channel(64).0;
        Arc::new(Self {
            clock: RealClock::new(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events,
            images: Mutex::new(vec!["here:1".to_owned()]),
        })
    }

    fn now(&self) -> jiff::Timestamp {
        reeve_api::clock::Clock::now(&self.clock)
    }

    fn end(&self, id: &str, code: i32) {
        let mut containers = self.containers.lock().unwrap();
        let Some(container) = containers.get_mut(id) else { return };
        let ContainerState::Running { started_at, .. } = container.state else { return };
        container.state = ContainerState::Exited {
            started_at: Some(started_at),
            finished_at: self.now(),
            exit_code: Some(code),
            reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
            message: String::new(),
        };
        let event = EngineEvent { sandbox: container.sandbox.clone(), container: container.clone() };
        drop(self.events.send(event));
    }
}

fn none(what: &'static str, id: &str) -> EngineError {
    EngineError::NotFound { what, id: id.to_owned() }
}

#[async_trait::async_trait]
impl Engine for MemoryEngine {
    fn version(&self) -> String {
        "reeve://test".to_owned()
    }
    async fn signal_container(&self, _: &str, _: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("signals".to_owned()))
    }
    async fn pause_container(&self, _: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("pausing".to_owned()))
    }
    async fn resume_container(&self, _: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("resuming".to_owned()))
    }
    async fn checkpoint_container(&self, _: &str, _: &Path, _: Option<Duration>) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("checkpoints".to_owned()))
    }
    fn features(&self) -> Features {
        Features { user_namespaces: true, ..Features::default() }
    }
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, EngineError> {
        let id = format!("sandbox-{}", config.attempt);
        let sandbox = Sandbox {
            id: id.clone(),
            config,
            state: SandboxState::Ready,
            created_at: self.now(),
            netns: None,
            ips: Vec::new(),
        };
        self.sandboxes.lock().unwrap().insert(id, sandbox.clone());
        Ok(sandbox)
    }
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), EngineError> {
        if let Some(sandbox) = self.sandboxes.lock().unwrap().get_mut(id) {
            sandbox.state = SandboxState::NotReady;
        }
        Ok(())
    }
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), EngineError> {
        self.sandboxes.lock().unwrap().remove(id);
        self.containers.lock().unwrap().retain(|_, container| container.sandbox != id);
        Ok(())
    }
    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, EngineError> {
        Ok(self.sandboxes.lock().unwrap().values().cloned().collect())
    }
    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<String, EngineError> {
        let id = format!("{}-{}", config.name, config.attempt);
        let container = Container {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            image_id: config.image.clone(),
            user: None,
            config,
            state: ContainerState::Created,
            created_at: self.now(),
        };
        self.containers.lock().unwrap().insert(id.clone(), container);
        Ok(id)
    }
    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let started_at = self.now();
        let mut containers = self.containers.lock().unwrap();
        let container = containers.get_mut(id).ok_or_else(|| none("container", id))?;
        container.state = ContainerState::Running { started_at, pid: 1 };
        Ok(())
    }
    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<(), EngineError> {
        self.end(id, 143);
        Ok(())
    }
    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        self.containers.lock().unwrap().remove(id);
        Ok(())
    }
    async fn list_containers(&self) -> Result<Vec<Container>, EngineError> {
        Ok(self.containers.lock().unwrap().values().cloned().collect())
    }
    async fn container_status(&self, id: &str) -> Result<Container, EngineError> {
        self.containers.lock().unwrap().get(id).cloned().ok_or_else(|| none("container", id))
    }
    async fn usage(&self) -> Result<BTreeMap<String, Usage>, EngineError> {
        Ok(BTreeMap::new())
    }
    async fn pod_sandbox_usage(&self, _id: &str) -> Result<Usage, EngineError> {
        Ok(Usage { memory_bytes: Some(8 << 20), ..Usage::default() })
    }
    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let mut containers = self.containers.lock().unwrap();
        let config = &mut containers.get_mut(id).ok_or_else(|| none("container", id))?.config;
        config.resources = std::mem::take(&mut config.resources).updated(&resources);
        config.annotations.extend(annotations);
        Ok(())
    }
    async fn update_pod_sandbox_resources(&self, id: &str, resources: Resources) -> Result<(), EngineError> {
        let mut sandboxes = self.sandboxes.lock().unwrap();
        let config = &mut sandboxes.get_mut(id).ok_or_else(|| none("sandbox", id))?.config;
        config.resources = std::mem::take(&mut config.resources).updated(&resources);
        Ok(())
    }
    async fn exec(&self, id: &str, _config: ExecConfig) -> Result<ExecSession, EngineError> {
        Err(none("container", id))
    }
    async fn attach(&self, id: &str, _config: AttachConfig) -> Result<ExecSession, EngineError> {
        Err(none("container", id))
    }
    async fn port_forward(&self, sandbox: &str, _port: u16) -> Result<Connection, EngineError> {
        Err(none("sandbox", sandbox))
    }
    async fn reopen_container_log(&self, _id: &str) -> Result<(), EngineError> {
        Ok(())
    }
    async fn writable_layer(&self, _id: &str) -> Result<FsUsage, EngineError> {
        Ok(FsUsage::default())
    }
    async fn image_fs_usage(&self) -> Result<FsUsage, EngineError> {
        Ok(FsUsage::default())
    }
    fn events(&self) -> BoxStream<'static, EngineEvent> {
        let events = self.events.subscribe();
        futures::stream::unfold(events, |mut events| async { events.recv().await.ok().map(|event| (event, events)) })
            .boxed()
    }
    async fn pull_image(&self, image: &str, _auth: Option<RegistryAuth>) -> Result<Image, EngineError> {
        Err(EngineError::Pull { image: image.to_owned(), reason: "there is no registry here".to_owned() })
    }
    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError> {
        let found = Image {
            id: "sha256:1".to_owned(),
            tags: vec![image.to_owned()],
            digests: vec![],
            size_bytes: 1,
            created_at: None,
            user: String::new(),
        };
        Ok(Some(found).filter(|_| self.images.lock().unwrap().iter().any(|here| here == image)))
    }
    async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        Ok(Vec::new())
    }
    fn image_changes(&self) -> BoxStream<'static, ()> {
        futures::stream::pending().boxed()
    }
    async fn remove_image(&self, _image: &str) -> Result<(), EngineError> {
        Ok(())
    }
}

/// What the API was told.
#[derive(Default)]
struct Api {
    status: watch::Sender<Value>,
    /// Writes of the status so far.
    writes: AtomicU64,
    deleted: watch::Sender<bool>,
    /// Deletions that are still to be refused because somebody wrote at the same moment.
    conflicts: Mutex<u32>,
    events: watch::Sender<Vec<String>>,
}

impl Api {
    fn client(self: &Arc<Self>) -> kube::Client {
        let api = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = Arc::clone(&api);
            async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let watching = request.uri().query().unwrap_or_default().contains("watch=true");
        let bytes = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if watching {
            // A watch of nothing: it stays open and silent.
            std::future::pending::<()>().await;
        }
        let answer = match method {
            Method::PATCH if path.ends_with("/status") => {
                let mut status = body["status"].clone();
                for list in status.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
                    list.retain(|element| element.get("$patch").is_none());
                }
                let version = (self.writes.fetch_add(1, Ordering::Relaxed) + 1) * 10;
                let metadata = json!({ "name": "p", "resourceVersion": version.to_string() });
                self.status.send_replace(status.clone());
                json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": status })
            }
            Method::DELETE => {
                assert_eq!(body["gracePeriodSeconds"], 0);
                assert_eq!(body["preconditions"]["uid"], "u");
                let left = self.conflicts.lock().unwrap().checked_sub(1);
                if let Some(left) = left {
                    return self.conflict(left);
                }
                self.deleted.send_replace(true);
                json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })
            }
            Method::GET if path.ends_with("/pods/p") => {
                json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "p", "uid": "u" } })
            }
            Method::PATCH => json!({ "kind": "Event", "apiVersion": "v1", "metadata": {}, "involvedObject": {} }),
            Method::POST => {
                let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
                let event = format!("{}: {}", text("reason"), text("message"));
                self.events.send_modify(|events| events.push(event));
                body
            }
            _ => json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": [] }),
        };
        let mut response = Response::new(Body::from(Bytes::from(answer.to_string())));
        *response.status_mut() = StatusCode::OK;
        response
    }
}

impl Api {
    fn conflict(&self, left: u32) -> Response<Body> {
        *self.conflicts.lock().unwrap() = left;
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409,
            "reason": "Conflict", "message": "the object has been modified" });
        let mut response = Response::new(Body::from(Bytes::from(status.to_string())));
        *response.status_mut() = StatusCode::CONFLICT;
        response
    }
}

struct Rig {
    node: Arc<NodeContext>,
    engine: Arc<MemoryEngine>,
    api: Arc<Api>,
    images: watch::Sender<u64>,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let (dir, engine, api) = (tempfile::tempdir().unwrap(), MemoryEngine::new(), Arc::new(Api::default()));
        let images = watch::Sender::new(0);
        let component =
            Component::new(api.client(), RealClock::shared(), Arc::new(SeededRng::new(1)), CancellationToken::new());
        let services = Informer::all(&component);
        let nodes: Informer<k8s_openapi::api::core::v1::Node> = Informer::all(&component);
        let node = NodeContext {
            config: node_config(dir.path()),
            engine: engine.clone(),
            drain: Arc::new(NoProxy),
            events: EventRecorder::start(&component, "kubelet", Some("node1")),
            objects: ObjectCache::new(component.clone()),
            services,
            node: nodes.store().clone(),
            capacity: Capacity {
                cpu_milli: 1000,
                memory_bytes: 1 << 30,
                storage_bytes: 1 << 30,
                ..Capacity::default()
            },
            images: images.subscribe(),
            credentials: None,
            peers: None,
            network: watch::channel(None).1,
            probes: ProbeCounts::default(),
            user_ids: UserIds::beyond_the_nodes(component.rng.clone()),
            component,
        };
        Self { node: Arc::new(node), engine, api, images, _dir: dir }
    }

    /// Starts an actor and hands it the engine's events, as the table does.
    fn start(&self, state: PodState) -> PodHandle {
        let handle = start(&self.node, &Views::default(), Beginning { state, dead: Default::default() }, || {});
        let (inputs, mut events) = (handle.inputs.clone(), self.engine.events());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if inputs.send(Input::Engine(Box::new(event.container))).await.is_err() {
                    return;
                }
            }
        });
        handle
    }

    async fn event(&self, wanted: &str) {
        let mut events = self.api.events.subscribe();
        let found = events.wait_for(|events| events.iter().any(|event| event == wanted));
        let found = tokio::time::timeout(Duration::from_secs(10), found).await.map(drop);
        assert!(found.is_ok(), "{wanted} in {:?}", *self.api.events.borrow());
    }

    async fn status(&self, reached: impl Fn(&Value) -> bool) -> Value {
        let mut status = self.api.status.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(10), status.wait_for(|status| reached(status))).await;
        match waited {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("not reached; last: {:#}", *self.api.status.borrow()),
        }
    }
}

fn pod(image: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": {
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 5,
            "containers": [{ "name": "c", "image": image, "imagePullPolicy": "IfNotPresent",
                "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
            "volumes": [{ "name": "v", "emptyDir": {} }],
        },
    }))
    .unwrap()
}

fn state(rig: &Rig, image: &str) -> PodState {
    PodState::new(Arc::new(pod(image)), rig.node.now())
}

#[tokio::test]
async fn a_pod_runs_is_restarted_after_a_crash_and_leaves_nothing_when_deleted() {
    let rig = Rig::new();
    let handle = rig.start(state(&rig, "here:1"));
    let running = rig.status(|status| status["phase"] == "Running").await;
    assert_eq!(running["containerStatuses"][0]["containerID"], "reeve://c-0");
    let config = rig.engine.container_status("c-0").await.unwrap().config;
    assert!(config.mounts.iter().any(|mount| mount.target.ends_with("v") && mount.source.is_dir()));
    let hosts = config.mounts.iter().find(|mount| mount.target.ends_with("hosts")).unwrap();
    assert!(hosts.source.is_file());

    rig.engine.end("c-0", 7);
    let again = rig.status(|status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(again["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 7);

    let mut deleted = pod("here:1");
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(rig.node.now()));
    deleted.metadata.deletion_grace_period_seconds = Some(5);
    handle.inputs.send(Input::Pod(Arc::new(deleted).into())).await.unwrap();
    let mut gone = rig.api.deleted.subscribe();
    tokio::time::timeout(Duration::from_secs(10), gone.wait_for(|gone| *gone)).await.unwrap().unwrap();
    assert_eq!(rig.api.status.borrow()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    assert!(rig.engine.sandboxes.lock().unwrap().is_empty());
    assert!(!rig.node.config.pod_dir("u").exists());
    handle.inputs.closed().await;
    for event in ["Started: Container started", "Killing: Stopping container c"] {
        rig.event(event).await;
    }
}

fn ready(status: &Value) -> &Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == "Ready").map_or(&Value::Null, |ready| &ready["status"])
}

/// The pod as the API has it when nothing more is written, with `Ready` as the node controller leaves it.
async fn marked_not_ready(rig: &Rig) -> Pod {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut status = rig.api.status.borrow().clone();
    for condition in status["conditions"].as_array_mut().unwrap() {
        if condition["type"] == "Ready" {
            *condition = json!({ "type": "Ready", "status": "False" });
        }
    }
    let mut marked = pod("here:1");
    marked.status = Some(serde_json::from_value(status).unwrap());
    let writes = rig.api.writes.load(Ordering::Relaxed);
    marked.metadata.resource_version = Some((writes * 10 + 5).to_string());
    marked
}

#[tokio::test]
async fn a_pod_that_others_marked_not_ready_is_ready_again_at_once() {
    let rig = Rig::new();
    let handle = rig.start(state(&rig, "here:1"));
    rig.status(|status| ready(status) == "True").await;
    let marked = marked_not_ready(&rig).await;
    rig.api.status.send_replace(json!({}));
    handle.inputs.send(Input::Pod(Arc::new(marked).into())).await.unwrap();
    let corrected = rig.status(|status| ready(status) == "True");
    tokio::time::timeout(Duration::from_secs(5), corrected).await.expect("it does not wait for its turn");
}

#[tokio::test]
async fn a_pod_that_others_mark_not_ready_while_a_new_agent_begins_is_ready_again() {
    let rig = Rig::new();
    let first = rig.start(state(&rig, "here:1"));
    rig.status(|status| ready(status) == "True").await;
    drop(first);
    let mut known = pod("here:1");
    known.metadata.resource_version = Some("10".to_owned());
    known.status = Some(serde_json::from_value(rig.api.status.borrow().clone()).unwrap());
    let (sandboxes, containers) = (rig.engine.list_pod_sandboxes().await, rig.engine.list_containers().await);
    let mut remains = Remains::new(sandboxes.unwrap(), containers.unwrap());
    let adopted = adopt(Arc::new(known), &remains.take("u"), &["127.0.0.1".parse().unwrap()], rig.node.now());
    let next = rig.start(adopted.state);
    let marked = marked_not_ready(&rig).await;
    rig.api.status.send_replace(json!({}));
    next.inputs.send(Input::Pod(Arc::new(marked).into())).await.unwrap();
    rig.status(|status| ready(status) == "True").await;
}

#[tokio::test]
async fn a_deletion_that_meets_a_write_is_tried_again() {
    let rig = Rig::new();
    *rig.api.conflicts.lock().unwrap() = 1;
    let mut deleted = pod("here:1");
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(rig.node.now()));
    let _handle = rig.start(PodState::new(Arc::new(deleted), rig.node.now()));
    let mut gone = rig.api.deleted.subscribe();
    tokio::time::timeout(Duration::from_secs(10), gone.wait_for(|gone| *gone)).await.unwrap().unwrap();
    assert_eq!(*rig.api.conflicts.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_pod_past_its_deadline_fails_and_an_event_says_why() {
    let rig = Rig::new();
    let mut limited = pod("here:1");
    limited.spec.as_mut().unwrap().active_deadline_seconds = Some(1);
    let _handle = rig.start(PodState::new(Arc::new(limited), rig.node.now()));
    rig.status(|status| status["phase"] == "Failed" && status["reason"] == "DeadlineExceeded").await;
    rig.event("DeadlineExceeded: Pod was active on the node longer than the specified deadline").await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_in_the_kubelets_words() {
    let rig = Rig::new();
    let _handle = rig.start(state(&rig, "elsewhere:1"));
    let waiting = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    rig.status(|status| waiting(status) == "ErrImagePull").await;
    rig.status(|status| waiting(status) == "ImagePullBackOff").await;
    for event in [
        "Pulling: Pulling image \"elsewhere:1\"",
        "Failed: Error: ErrImagePull",
        "BackOff: Back-off pulling image \"elsewhere:1\"",
        "Failed: Error: ImagePullBackOff",
    ] {
        rig.event(event).await;
    }
}

/// Of its two containers `c` looks into an image.
fn looking_into(image: &str) -> Pod {
    let mut pod = pod("here:1");
    let spec = pod.spec.as_mut().unwrap();
    let source = json!({ "name": "i", "image": { "reference": image, "pullPolicy": "IfNotPresent" } });
    spec.volumes.as_mut().unwrap().push(serde_json::from_value(source).unwrap());
    spec.containers.push(k8s_openapi::api::core::v1::Container { name: "d".to_owned(), ..spec.containers[0].clone() });
    let mount = json!({ "name": "i", "mountPath": "/i", "subPath": "dir" });
    spec.containers[0].volume_mounts.as_mut().unwrap().push(serde_json::from_value(mount).unwrap());
    pod
}

#[tokio::test]
async fn a_container_shows_the_image_of_a_volume() {
    let rig = Rig::new();
    let _handle = rig.start(PodState::new(Arc::new(looking_into("here:1")), rig.node.now()));
    rig.status(|status| status["phase"] == "Running").await;
    let config = rig.engine.container_status("c-0").await.unwrap().config;
    let mount = config.mounts.iter().find(|mount| mount.target.ends_with("i")).unwrap();
    let (image, reference) = ("sha256:1".to_owned(), "here:1".to_owned());
    assert_eq!(mount.image, Some(ImageSource { image, reference, sub_path: "dir".to_owned() }));
    assert!(mount.read_only);
}

#[tokio::test]
async fn an_image_of_a_volume_that_cannot_be_pulled_holds_up_who_mounts_it_in_the_kubelets_words() {
    let rig = Rig::new();
    let _handle = rig.start(PodState::new(Arc::new(looking_into("elsewhere:1")), rig.node.now()));
    let status = rig
        .status(|status| {
            let states = [0, 1].map(|index| &status["containerStatuses"][index]["state"]);
            states[0]["waiting"]["reason"] == "ImagePullBackOff" && states[1]["running"].is_object()
        })
        .await;
    let start = "Back-off pulling image \"elsewhere:1\": ErrImagePull: there is no registry here";
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with(start), "{message}");
    for event in [
        "Pulling: Pulling image \"elsewhere:1\"",
        "Failed: Error: ErrImagePull",
        "BackOff: Back-off pulling image \"elsewhere:1\"",
        "Failed: Error: ImagePullBackOff",
    ] {
        rig.event(event).await;
    }
    rig.engine.images.lock().unwrap().push("elsewhere:1".to_owned());
    rig.images.send_modify(|version| *version += 1);
    rig.status(|status| status["phase"] == "Running").await;
}

#[tokio::test]
async fn an_image_that_appears_ends_the_back_off_at_once() {
    let rig = Rig::new();
    let _handle = rig.start(state(&rig, "elsewhere:1"));
    rig.status(|status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff").await;
    rig.engine.images.lock().unwrap().push("elsewhere:1".to_owned());
    rig.images.send_modify(|version| *version += 1);
    rig.status(|status| status["phase"] == "Running").await;
}

#[tokio::test]
async fn an_image_that_was_only_built_is_used_where_no_registry_has_it_although_it_is_always_pulled() {
    let rig = Rig::new();
    rig.engine.images.lock().unwrap().push("built".to_owned());
    let mut always = pod("built");
    always.spec.as_mut().unwrap().containers[0].image_pull_policy = Some("Always".to_owned());
    let _handle = rig.start(PodState::new(Arc::new(always), rig.node.now()));
    rig.status(|status| status["phase"] == "Running").await;
    rig.event("Pulling: Pulling image \"built\"").await;
    rig.event("Pulled: Container image \"built\" already present on machine and can be accessed by the pod").await;
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_without_touching_it() {
    let rig = Rig::new();
    let first = rig.start(state(&rig, "here:1"));
    rig.status(|status| status["phase"] == "Running").await;
    drop(first);
    let next = Rig { api: Arc::new(Api::default()), ..Rig::new() };
    let sandboxes = rig.engine.list_pod_sandboxes().await.unwrap();
    let containers = rig.engine.list_containers().await.unwrap();
    let mut remains = Remains::new(sandboxes, containers);
    let mut known = pod("here:1");
    known.status = Some(serde_json::from_value(rig.api.status.borrow().clone()).unwrap_or_default());
    let adopted = adopt(Arc::new(known), &remains.take("u"), &["127.0.0.1".parse().unwrap()], next.node.now());
    assert_eq!(adopted.state.slots[0].running().map(|life| life.container.as_str()), Some("c-0"));
    assert_eq!(adopted.state.slots[0].restarts, 0);
}
