//! Start, log, stop, end.

use std::time::Duration;

use futures::StreamExt as _;
use reeve_engine::engine::{ContainerState, Engine as _, EngineError, LogLimits, Mount, Sandbox, SandboxState};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::bed::{Bed, eventually, log_text};

crate::tests![
    a_container_runs_and_its_log_is_complete,
    a_log_is_there_as_soon_as_its_container_has_started,
    a_start_is_told_even_if_the_end_overtakes_it,
    a_command_that_cannot_run_is_told_in_containerds_words,
    an_exit_code_a_signal_and_the_memory_limit_are_told_apart,
    stopping_asks_first_and_kills_after_the_grace,
    a_stopped_sandbox_takes_no_containers_and_its_removal_leaves_nothing,
    a_start_that_a_mount_holds_up_can_be_cut_off,
    what_a_held_up_start_has_inherited_keeps_nobody_busy,
    a_log_that_has_grown_is_exchanged_without_loss,
    a_log_that_cannot_be_written_stops_only_its_own_container,
    bad_requests_are_refused_and_leave_nothing,
    nothing_that_the_supervisors_starter_ignored_is_ignored_in_a_container,
    a_signal_reaches_the_first_process,
];

async fn a_container_runs_and_its_log_is_complete() {
    let bed = Bed::new().await;
    let (code, text) = bed.run(bed.script("log", "seq 20000; echo err >&2; printf tail")).await;
    assert_eq!(code, 0);
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("err")).count(), 1);
    lines.retain(|line| !line.contains("err") && !line.contains("tail"));
    assert_eq!(lines.len(), 20000, "no line is lost");
    assert!(text.contains("tail"), "nor what has no line end");
    bed.close().await;
}

async fn a_log_is_there_as_soon_as_its_container_has_started() {
    use std::os::unix::fs::PermissionsExt as _;
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.script("quiet", "exec sleep 1000");
    let log = config.log_path.clone();
    bed.start(&sandbox, config).await;
    let about = std::fs::metadata(log).expect("whoever links to it finds it");
    assert_eq!((about.len(), about.permissions().mode() & 0o777), (0, 0o640));
    bed.close().await;
}

async fn a_start_is_told_even_if_the_end_overtakes_it() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut events = bed.engine.events();
    let mut told = std::collections::BTreeMap::<String, Vec<bool>>::new();
    let starts = (0..40).map(async |number| bed.start(&sandbox, bed.command(&format!("c{number}"), &["true"])).await);
    let all = futures::future::join_all(starts).await;
    while told.values().map(Vec::len).sum::<usize>() < 2 * all.len() {
        let next = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        let container = next.unwrap_or_else(|_| panic!("something is not told: {told:?}")).expect("an event").container;
        let has_ended = matches!(container.state, ContainerState::Exited { .. });
        told.entry(container.id).or_default().push(has_ended);
    }
    assert!(all.iter().all(|id| told[id] == [false, true]), "{told:?}");
    bed.close().await;
}

async fn a_command_that_cannot_run_is_told_in_containerds_words() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    for (command, message) in [
        ("foo", r#"exec: "foo": executable file not found in $PATH"#),
        ("/x", r#"exec: "/x": stat /x: no such file or directory"#),
        ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
        ("/etc", r#"exec: "/etc": is a directory"#),
    ] {
        let id = bed.engine.create_container(&sandbox.id, bed.command("bad", &[command])).await.unwrap();
        let error = bed.engine.start_container(&id).await.unwrap_err();
        assert!(matches!(error, EngineError::Start(_)), "{error:?}");
        assert_eq!(error.to_string(), message);
        assert_eq!(bed.end(&id).await, (Some(128), "StartError".to_owned(), message.to_owned()));
    }
    bed.close().await;
}

async fn an_exit_code_a_signal_and_the_memory_limit_are_told_apart() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.script("seven", "exit 7")).await;
    assert_eq!(bed.end(&id).await.0, Some(7));
    let id = bed.start(&sandbox, bed.script("kill", "sh -c 'kill -KILL $$'; exit $?")).await;
    assert_eq!(bed.end(&id).await, (Some(137), "Error".to_owned(), String::new()));
    let mut config = bed.script("eat", "x=a; while true; do x=$x$x; done");
    config.resources.memory_limit_bytes = Some(16 << 20);
    let id = bed.start(&sandbox, config).await;
    assert_eq!(bed.end(&id).await, (Some(137), "OOMKilled".to_owned(), String::new()));
    bed.close().await;
}

async fn stopping_asks_first_and_kills_after_the_grace() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let polite = bed.script("polite", "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.01; done");
    let log = polite.log_path.clone();
    let id = bed.start(&sandbox, polite).await;
    eventually("it is up", || log_text(&log).contains("up")).await;
    bed.engine.stop_container(&id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(bed.end(&id).await.0, Some(3));
    assert!(log_text(&log).contains("bye"), "what it says at its end is in the log when the stop returns");
    // The first process of a PID namespace does not hear signals it does not handle.
    let id = bed.start(&sandbox, bed.command("deaf", &["sleep", "1000"])).await;
    let before = Instant::now();
    bed.engine.stop_container(&id, Duration::from_millis(300)).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300) && before.elapsed() < Duration::from_secs(5));
    assert_eq!(bed.end(&id).await.0, Some(137));
    bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    bed.close().await;
}

async fn a_stopped_sandbox_takes_no_containers_and_its_removal_leaves_nothing() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.command("sleep", &["sleep", "1000"])).await;
    bed.engine.stop_pod_sandbox(&sandbox.id).await.unwrap();
    bed.engine.stop_pod_sandbox(&sandbox.id).await.unwrap();
    assert_eq!(bed.end(&id).await.0, Some(137));
    assert_eq!(bed.engine.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    assert!(bed.engine.create_container(&sandbox.id, bed.command("late", &["true"])).await.is_err());
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    assert!(bed.engine.list_containers().await.unwrap().is_empty());
    assert!(!sandbox.netns.unwrap().exists());
    bed.close().await;
}

/// A file system whose server never says a word: whoever looks into it waits. `None` where there is no FUSE.
struct Hanging {
    dir: std::path::PathBuf,
    _server: std::fs::File,
}

impl Hanging {
    fn new(bed: &Bed) -> Option<Self> {
        let Ok(fuse) = std::fs::File::options().read(true).write(true).open("/dev/fuse") else {
            println!("SKIPPED: no /dev/fuse; a mount that hangs cannot be made");
            return None;
        };
        let dir = bed.dir().join("hanging");
        std::fs::create_dir(&dir).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", std::os::fd::AsRawFd::as_raw_fd(&fuse));
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("x"), &dir, Some("fuse"), flags, Some(options.as_str())).unwrap();
        Some(Self { dir, _server: fuse })
    }

    /// Starts a container that waits for it, and returns when it does.
    async fn hold(&self, bed: &Bed, sandbox: &Sandbox, name: &str) -> (String, JoinHandle<Result<(), EngineError>>) {
        let mut config = bed.script(name, "true");
        let source = self.dir.join(name);
        config.mounts = vec![Mount { source, target: "/v".into(), ..Mount::default() }];
        let id = bed.engine.create_container(&sandbox.id, config).await.unwrap();
        let (engine, own) = (bed.engine.clone(), id.clone());
        let start = tokio::spawn(async move { engine.start_container(&own).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!start.is_finished(), "it waits for the mount");
        (id, start)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        nix::mount::umount2(&self.dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

async fn a_start_that_a_mount_holds_up_can_be_cut_off() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let Some(hanging) = Hanging::new(&bed) else { return bed.close().await };
    let (id, start) = hanging.hold(&bed, &sandbox, "held").await;
    let others = bed.script("other", "true");
    bed.start(&sandbox, others).await;
    bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let soon = Duration::from_secs(10);
    drop(tokio::time::timeout(soon, start).await.expect("the start returns").unwrap());
    tokio::time::timeout(soon, bed.engine.remove_container(&id)).await.expect("it can be removed").unwrap();
    drop(hanging);
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn what_a_held_up_start_has_inherited_keeps_nobody_busy() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let Some(hanging) = Hanging::new(&bed) else { return bed.close().await };
    // The second process is born with the descriptors by which the first one is watched.
    let (first, start) = hanging.hold(&bed, &sandbox, "first").await;
    let (second, second_start) = hanging.hold(&bed, &sandbox, "second").await;
    bed.engine.stop_container(&first, Duration::ZERO).await.unwrap();
    drop(start.await.unwrap());
    let pid = bed.engine.supervisor_pid().await.unwrap();
    let before = cpu_ticks(pid);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ticks = cpu_ticks(pid) - before;
    assert!(ticks < 10, "the supervisor took {ticks} of 50 ticks to wait");
    bed.engine.stop_container(&second, Duration::ZERO).await.unwrap();
    drop(second_start.await.unwrap());
    drop(hanging);
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

/// Processor time of a process so far, in ticks of 10 ms: fields 14 and 15 of proc_pid_stat(5).
fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

async fn a_log_that_has_grown_is_exchanged_without_loss() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut config = bed.script("rotate", "seq 100000");
    config.log_limits = LogLimits { size_max_bytes: Some(40_000), files_max: 1000 };
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    bed.end(&id).await;
    let mut files: Vec<_> = std::fs::read_dir(log.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    // The current file sorts first; it is the newest.
    files.rotate_left(1);
    let sizes: Vec<u64> = files.iter().map(|path| path.metadata().unwrap().len()).collect();
    // What is read at once, 64 KiB, becomes more with its stamps.
    assert!(files.len() > 5 && sizes.iter().all(|size| *size < 40_000 + (1 << 20)), "{sizes:?}");
    let text: String = files.iter().map(|path| log_text(path)).collect();
    assert!(text.lines().eq((1..=100_000).map(|i| i.to_string()).collect::<Vec<_>>()), "all lines, in order");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn a_log_that_cannot_be_written_stops_only_its_own_container() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut stuck = bed.script("stuck", "seq 100000; echo done");
    // A folder where the file should be: every write is refused until it is gone.
    std::fs::create_dir_all(&stuck.log_path).unwrap();
    stuck.log_path = stuck.log_path.clone();
    let log = stuck.log_path.clone();
    let id = bed.start(&sandbox, stuck).await;
    let other = bed.start(&sandbox, bed.script("other", "seq 20000")).await;
    assert_eq!(bed.end(&other).await.0, Some(0));
    let now = bed.engine.container_status(&id).await.unwrap();
    assert!(matches!(now.state, ContainerState::Running { .. }), "it waits in write: {:?}", now.state);
    std::fs::remove_dir(&log).unwrap();
    assert_eq!(bed.end(&id).await.0, Some(0));
    assert_eq!(log_text(&log).lines().count(), 100_001, "and nothing is lost");
    bed.close().await;
}

async fn bad_requests_are_refused_and_leave_nothing() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let refused = |config| {
        let engine = bed.engine.clone();
        let sandbox = sandbox.id.clone();
        async move { engine.create_container(&sandbox, config).await.unwrap_err().to_string() }
    };
    let mut config = bed.command("x", &["true"]);
    config.image = "nothing".to_owned();
    assert_eq!(refused(config).await, "no such image: nothing");
    let mut config = bed.command("x", &["true"]);
    config.security.capabilities_add = vec!["FLY".to_owned()];
    assert_eq!(refused(config).await, r#"unknown capability "FLY""#);
    let mut config = bed.command("x", &["true"]);
    config.security.run_as_non_root = true;
    assert_eq!(refused(config).await, "container has runAsNonRoot and image will run as root");
    let mut config = bed.command("x", &["true"]);
    config.mounts.push(Mount { source: "/does/not/exist".into(), target: "/data".into(), ..Mount::default() });
    let id = bed.engine.create_container(&sandbox.id, config).await.unwrap();
    let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
    assert!(error.contains("/does/not/exist") && error.contains("no such file or directory"), "{error}");
    bed.engine.remove_container(&id).await.unwrap();
    assert!(bed.engine.list_containers().await.unwrap().is_empty());
    assert!(matches!(bed.engine.container_status("x").await, Err(EngineError::NotFound { .. })));
    bed.close().await;
}

#[allow(unsafe_code, reason = "signal(2) has no safe wrapper")]
async fn nothing_that_the_supervisors_starter_ignored_is_ignored_in_a_container() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // As under `nohup` and in a script's background.
    let ignored = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];
    let handle = |handler| {
        // SAFETY: to ignore, or not, runs no code of ours.
        ignored.map(|own| unsafe { signal(own, handler) }.unwrap())
    };
    let before = handle(SigHandler::SigIgn);
    let bed = Bed::new().await;
    let (code, text) =
        bed.run(bed.command("looks", &["grep", "-e", "SigIgn", "-e", "SigBlk", "/proc/self/status"])).await;
    handle(before[0]);
    assert_eq!((code, text.as_str()), (0, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"));
    bed.close().await;
}

async fn a_signal_reaches_the_first_process() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config =
        bed.script("hears", "trap 'echo hup' HUP; trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done");
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    let says = async |line: &str| {
        eventually(line, || log_text(&log).lines().any(|own| own == line)).await;
    };
    says("ready").await;
    bed.engine.signal_container(&id, "SIGHUP").await.unwrap();
    says("hup").await;
    for wrong in ["SIGFOO", "", "0", "-1"] {
        let refused = bed.engine.signal_container(&id, wrong).await.unwrap_err();
        assert!(matches!(refused, EngineError::Invalid(_)), "{wrong}: {refused}");
    }
    bed.engine.signal_container(&id, "usr1").await.unwrap();
    assert_eq!(bed.end(&id).await.0, Some(9));
    let refused = bed.engine.signal_container(&id, "HUP").await.unwrap_err();
    assert!(matches!(refused, EngineError::WrongState { .. }), "{refused}");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}
