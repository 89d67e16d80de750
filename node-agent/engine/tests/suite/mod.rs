//! What the node agent counts on, whoever runs the containers: one suite for every [`Engine`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use reeve_engine::engine::{
    AttachConfig, Container, ContainerConfig, ContainerState, EngineError, ExecConfig, ExecSession, ImageSource, Mount,
    OutputStream, Resources, Sandbox, SandboxConfig, SandboxState, SharedEngine, UserNamespace,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long anything may take that is no command's own time.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Where a test runs its containers.
pub(crate) struct Ground {
    pub(crate) engine: SharedEngine,
    /// Id of an image with busybox.
    pub(crate) image: String,
    /// A folder for logs.
    pub(crate) dir: PathBuf,
    /// Tells the pods of one test from another's.
    pub(crate) name: String,
}

/// A promise, and what proves it.
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    pub(crate) prove: for<'g> fn(&'g Ground) -> LocalBoxFuture<'g, ()>,
}

macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        /// All promises.
        pub(crate) const ALL: &[Promise] =
            &[$(Promise { name: stringify!($name), prove: |ground| Box::pin($name(ground)) }),*];
    };
}

promises![
    a_sandbox_is_known_until_it_is_removed,
    the_end_of_a_container_is_told_and_remembered,
    a_command_that_is_not_there_fails_the_start,
    a_stop_waits_for_the_grace_and_then_kills,
    a_command_has_its_own_streams_and_code,
    a_command_that_takes_too_long_is_told_so,
    a_terminal_has_the_size_it_is_given,
    who_attaches_reaches_the_input_and_sees_the_output,
    a_port_of_the_pods_loopback_can_be_reached,
    new_limits_and_notes_are_kept,
    a_log_goes_on_in_a_new_file,
    what_runs_uses_something,
    a_pod_may_have_users_of_its_own,
    an_image_may_be_looked_into,
    what_is_gone_can_be_stopped_and_removed_again,
];

impl Ground {
    async fn sandbox(&self) -> Sandbox {
        self.engine.run_pod_sandbox(self.sandbox_config()).await.unwrap()
    }

    fn sandbox_config(&self) -> SandboxConfig {
        SandboxConfig {
            name: self.name.clone(),
            namespace: "default".to_owned(),
            uid: format!("uid-{}", self.name),
            hostname: "web-0".to_owned(),
            cgroup: format!("kubepods/pod{}", self.name),
            log_dir: self.dir.join(&self.name),
            labels: BTreeMap::from([("label".to_owned(), "kept".to_owned())]),
            ..SandboxConfig::default()
        }
    }

    fn script(&self, pod: &Sandbox, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: "app".to_owned(),
            attempt: 1,
            image: self.image.clone(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: pod.config.log_dir.join("app/1.log"),
            annotations: BTreeMap::from([("note".to_owned(), "first".to_owned())]),
            ..ContainerConfig::default()
        }
    }

    async fn start(&self, pod: &Sandbox, config: ContainerConfig) -> String {
        let id = self.engine.create_container(&pod.id, config).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        id
    }

    async fn exec(&self, id: &str, script: &str, edit: impl FnOnce(&mut ExecConfig)) -> ExecSession {
        let mut config = ExecConfig {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            stdout: true,
            stderr: true,
            ..ExecConfig::default()
        };
        edit(&mut config);
        self.engine.exec(id, config).await.unwrap()
    }

    /// Waits for a container's end through the events.
    async fn end(&self, id: &str) -> Container {
        let mut events = self.engine.events();
        let ended = |own: &Container| matches!(own.state, ContainerState::Exited { .. });
        let now = self.engine.container_status(id).await.unwrap();
        if ended(&now) {
            return now;
        }
        let told = async {
            loop {
                let event = events.next().await.expect("the events go on");
                if event.container.id == id && ended(&event.container) {
                    return event.container;
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, told).await.expect("the end is told")
    }

    async fn remove(&self, pod: &Sandbox) {
        self.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    }
}

async fn text(stream: Option<OutputStream>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut text).await.unwrap();
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn code_and_reason(own: &Container) -> (Option<i32>, &str) {
    match &own.state {
        ContainerState::Exited { exit_code, reason, .. } => (*exit_code, reason),
        other => panic!("{other:?}"),
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn a_sandbox_is_known_until_it_is_removed(ground: &Ground) {
    let made = ground.sandbox().await;
    let listed = async || ground.engine.list_pod_sandboxes().await.unwrap().into_iter().find(|own| own.id == made.id);
    let own = listed().await.expect("it is listed");
    assert_eq!((own.state, own.config.name.as_str()), (SandboxState::Ready, ground.name.as_str()));
    assert_eq!(
        (own.config.labels.get("label").map(String::as_str), own.config.hostname.as_str()),
        (Some("kept"), "web-0")
    );
    ground.engine.stop_pod_sandbox(&made.id).await.unwrap();
    assert_eq!(listed().await.expect("it is listed").state, SandboxState::NotReady);
    let config = ground.script(&made, "true");
    assert!(ground.engine.create_container(&made.id, config).await.is_err(), "nothing runs in it any more");
    ground.remove(&made).await;
    assert!(listed().await.is_none());
}

async fn the_end_of_a_container_is_told_and_remembered(ground: &Ground) {
    let pod = ground.sandbox().await;
    let id = ground.engine.create_container(&pod.id, ground.script(&pod, "echo out; exit 7")).await.unwrap();
    assert_eq!(ground.engine.container_status(&id).await.unwrap().state, ContainerState::Created);
    ground.engine.start_container(&id).await.unwrap();
    let ended = ground.end(&id).await;
    assert_eq!(code_and_reason(&ended), (Some(7), "Error"));
    let all = ground.engine.list_containers().await.unwrap();
    let own = all.iter().find(|own| own.id == id).expect("it is listed");
    assert_eq!((own.sandbox.as_str(), code_and_reason(own)), (pod.id.as_str(), (Some(7), "Error")));
    assert_eq!((own.config.name.as_str(), own.config.attempt), ("app", 1));
    let log = std::fs::read_to_string(&own.config.log_path).unwrap();
    assert!(log.ends_with(" stdout F out\n"), "{log}");
    ground.remove(&pod).await;
}

async fn a_command_that_is_not_there_fails_the_start(ground: &Ground) {
    let pod = ground.sandbox().await;
    let config = ContainerConfig { command: vec!["/no/such".to_owned()], ..ground.script(&pod, "") };
    let id = ground.engine.create_container(&pod.id, config).await.unwrap();
    let refused = ground.engine.start_container(&id).await.expect_err("nothing to start");
    assert!(matches!(refused, EngineError::Start(_)), "{refused:?}");
    assert_eq!(code_and_reason(&ground.engine.container_status(&id).await.unwrap()), (Some(128), "StartError"));
    ground.remove(&pod).await;
}

async fn a_stop_waits_for_the_grace_and_then_kills(ground: &Ground) {
    let pod = ground.sandbox().await;
    let config = ground.script(&pod, "trap '' TERM; echo ready; while true; do sleep 0.1; done");
    let id = ground.start(&pod, config.clone()).await;
    let says_ready = || std::fs::read_to_string(&config.log_path).is_ok_and(|log| log.contains("ready"));
    eventually("it runs", says_ready).await;
    let began = tokio::time::Instant::now();
    ground.engine.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(code_and_reason(&ground.end(&id).await).0, Some(137));
    ground.remove(&pod).await;
}

async fn a_command_has_its_own_streams_and_code(ground: &Ground) {
    let pod = ground.sandbox().await;
    let id = ground.start(&pod, ground.script(&pod, "sleep 1000")).await;
    let mut session = ground.exec(&id, "cat; echo err >&2; exit 3", |config| config.stdin = true).await;
    let mut stdin = session.stdin.take().expect("an input");
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    let (out, err) = tokio::join!(text(session.stdout.take()), text(session.stderr.take()));
    assert_eq!((out.as_str(), err.as_str(), session.exit.await.unwrap()), ("hello", "err\n", 3));
    ground.remove(&pod).await;
}

async fn a_command_that_takes_too_long_is_told_so(ground: &Ground) {
    let pod = ground.sandbox().await;
    let id = ground.start(&pod, ground.script(&pod, "sleep 1000")).await;
    let limit = Some(Duration::from_secs(1));
    let session = ground.exec(&id, "sleep 1000", |config| config.timeout = limit).await;
    let late = session.exit.await.expect_err("it is late");
    assert!(matches!(late, EngineError::ExecTimeout { seconds: 1, .. }), "{late:?}");
    ground.remove(&pod).await;
}

async fn a_terminal_has_the_size_it_is_given(ground: &Ground) {
    let pod = ground.sandbox().await;
    let id = ground.start(&pod, ground.script(&pod, "sleep 1000")).await;
    let script = "until stty size | grep -q '^24 80'; do sleep 0.05; done; tty";
    let mut session = ground
        .exec(&id, script, |config| {
            (config.tty, config.stderr) = (true, false);
        })
        .await;
    let resize = session.resize.take().expect("a terminal");
    resize.send(reeve_engine::engine::TerminalSize { width: 80, height: 24 }).await.unwrap();
    assert!(text(session.stdout.take()).await.contains("/dev/pts/"));
    assert_eq!(session.exit.await.unwrap(), 0);
    ground.remove(&pod).await;
}

async fn who_attaches_reaches_the_input_and_sees_the_output(ground: &Ground) {
    let pod = ground.sandbox().await;
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..ground.script(&pod, "read line; echo got $line; sleep 0.3; exit 5")
    };
    let id = ground.start(&pod, config).await;
    let wanted = AttachConfig { stdin: true, stdout: true, stderr: true };
    let mut session = ground.engine.attach(&id, wanted).await.unwrap();
    let mut stdin = session.stdin.take().expect("an input");
    stdin.write_all(b"word\n").await.unwrap();
    stdin.flush().await.unwrap();
    assert_eq!(text(session.stdout.take()).await, "got word\n");
    assert_eq!(code_and_reason(&ground.end(&id).await).0, Some(5));
    ground.remove(&pod).await;
}

async fn a_port_of_the_pods_loopback_can_be_reached(ground: &Ground) {
    let pod = ground.sandbox().await;
    let config = ground.script(&pod, "echo up; while true; do echo pong | nc -l -p 8080; done");
    ground.start(&pod, config.clone()).await;
    eventually("it runs", || Path::new(&config.log_path).metadata().is_ok_and(|log| log.len() > 0)).await;
    let reach = async {
        loop {
            let mut answer = String::new();
            if let Ok(mut connection) = ground.engine.port_forward(&pod.id, 8080).await {
                let _ = connection.read_to_string(&mut answer).await;
            }
            if answer == "pong\n" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, reach).await.expect("the port answers");
    ground.remove(&pod).await;
}

async fn new_limits_and_notes_are_kept(ground: &Ground) {
    let pod = ground.sandbox().await;
    let limits = |bytes| Resources { memory_limit_bytes: Some(bytes), ..Resources::default() };
    let config = ContainerConfig { resources: limits(64 << 20), ..ground.script(&pod, "sleep 1000") };
    let id = ground.start(&pod, config).await;
    let notes = BTreeMap::from([("more".to_owned(), "second".to_owned())]);
    ground.engine.update_container_resources(&id, limits(128 << 20), notes).await.unwrap();
    let own = ground.engine.container_status(&id).await.unwrap().config;
    assert_eq!(own.resources.memory_limit_bytes, Some(128 << 20));
    let notes = ["note", "more"].map(|name| own.annotations.get(name).map(String::as_str));
    assert_eq!(notes, [Some("first"), Some("second")]);
    ground.remove(&pod).await;
}

async fn a_log_goes_on_in_a_new_file(ground: &Ground) {
    let pod = ground.sandbox().await;
    let config = ground.script(&pod, "while true; do echo tick; sleep 0.05; done");
    let (id, log) = (ground.start(&pod, config.clone()).await, config.log_path);
    let has_ticks = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("tick"));
    eventually("it logs", has_ticks).await;
    std::fs::rename(&log, log.with_extension("old")).unwrap();
    ground.engine.reopen_container_log(&id).await.unwrap();
    assert!(log.exists());
    eventually("it logs again", has_ticks).await;
    ground.remove(&pod).await;
}

async fn what_runs_uses_something(ground: &Ground) {
    let pod = ground.sandbox().await;
    let id = ground.start(&pod, ground.script(&pod, "while true; do :; done")).await;
    let used = async {
        loop {
            let used = ground.engine.usage().await.unwrap();
            if used.get(&id).is_some_and(|own| own.cpu_nanoseconds > Some(0) && own.working_set_bytes > Some(0)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, used).await.expect("it is counted");
    // containerd looks every ten seconds.
    let images = async {
        while ground.engine.image_fs_usage().await.unwrap().used_bytes == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, images).await.expect("images are counted");
    ground.remove(&pod).await;
}

async fn a_pod_may_have_users_of_its_own(ground: &Ground) {
    if !ground.engine.features().user_namespaces {
        println!("SKIPPED: {} has no user namespaces", ground.engine.version());
        return;
    }
    let ids = UserNamespace { first: 701 << 16, length: 1 << 16 };
    let config = SandboxConfig { user_namespace: Some(ids), ..ground.sandbox_config() };
    let pod = ground.engine.run_pod_sandbox(config).await.unwrap();
    let volume = ground.dir.join("of-users");
    std::fs::create_dir_all(&volume).unwrap();
    let mut config = ground.script(&pod, "touch /v/file; exec sleep 1000");
    config.mounts = vec![Mount { source: volume.clone(), target: "/v".into(), ..Mount::default() }];
    let id = ground.start(&pod, config).await;
    let session = ground.exec(&id, "id -u; cat /proc/self/uid_map", |_| ()).await;
    let told = text(session.stdout).await;
    let words: Vec<&str> = told.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &ids.first.to_string(), &ids.length.to_string()]);
    let owner = || std::fs::metadata(volume.join("file")).map(|file| std::os::unix::fs::MetadataExt::uid(&file));
    eventually("its file is there", || owner().is_ok()).await;
    assert_eq!(owner().unwrap(), 0, "ids on the disk are those inside");
    assert_eq!(ground.engine.list_pod_sandboxes().await.unwrap()[0].config.user_namespace, Some(ids));
    ground.remove(&pod).await;
}

async fn an_image_may_be_looked_into(ground: &Ground) {
    let pod = ground.sandbox().await;
    let show = |sub_path: &str| Mount {
        target: "/v".into(),
        read_only: true,
        image: Some(ImageSource {
            image: ground.image.clone(),
            reference: "busybox:latest".to_owned(),
            sub_path: sub_path.to_owned(),
        }),
        ..Mount::default()
    };
    let script = "exec 2>&1; head -n 1 /v/passwd; touch /v/new; test -e /v/bin; echo $?";
    let config = ContainerConfig { mounts: vec![show("etc")], ..ground.script(&pod, script) };
    let log = config.log_path.clone();
    let id = match ground.engine.create_container(&pod.id, config).await {
        Err(EngineError::Unsupported(why)) => {
            println!("SKIPPED: {why}");
            return ground.remove(&pod).await;
        }
        made => made.unwrap(),
    };
    ground.engine.start_container(&id).await.unwrap();
    ground.end(&id).await;
    let log = std::fs::read_to_string(&log).unwrap();
    let said: Vec<&str> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let read_only = "touch: /v/new: Read-only file system";
    assert_eq!(said, ["root:x:0:0:root:/root:/bin/sh", read_only, "1"], "{log}");
    let config = ContainerConfig { attempt: 2, mounts: vec![show("no/such")], ..ground.script(&pod, "true") };
    let refused = ground.engine.create_container(&pod.id, config).await.expect_err("nothing to show").to_string();
    assert!(refused.contains("ImageVolumeMountFailed") && refused.contains("no/such"), "{refused}");
    ground.remove(&pod).await;
}

async fn what_is_gone_can_be_stopped_and_removed_again(ground: &Ground) {
    let pod = ground.sandbox().await;
    let id = ground.start(&pod, ground.script(&pod, "sleep 1000")).await;
    for _ in 0..2 {
        ground.engine.remove_container(&id).await.unwrap();
        ground.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    }
    let gone = ground.engine.container_status(&id).await.expect_err("it is gone");
    assert!(matches!(gone, EngineError::NotFound { .. }), "{gone:?}");
    for _ in 0..2 {
        ground.remove(&pod).await;
        ground.engine.stop_pod_sandbox(&pod.id).await.unwrap();
    }
}
