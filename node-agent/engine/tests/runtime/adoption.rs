//! Death and return: of the agent, of the supervisor, of both.

use std::process::{Command, ExitCode};
use std::time::Duration;

use reeve_engine::engine::{AttachConfig, ContainerState, Engine as _, SandboxState};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;

use crate::bed::{Bed, eventually, log_text, read_all};

crate::tests![
    a_container_survives_the_agent_and_is_adopted,
    a_container_survives_the_supervisor_and_is_adopted,
    a_container_survives_both_and_is_adopted,
    a_terminal_and_an_input_survive_the_supervisor,
    an_end_that_no_supervisor_saw_is_known_to_the_agent,
    what_cannot_be_adopted_is_killed_and_never_doubled,
    after_a_reboot_nothing_is_ready_and_nothing_runs,
    shutting_down_ends_everything_but_the_records,
];

/// The argument that makes this program an agent that dies.
pub(crate) const AGENT: &str = "agent-that-dies";

/// Starts a container in the folder given, says its id, and kills itself.
pub(crate) fn agent_main(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bed = Bed::furnished((&args[0]).into()).await;
        let sandbox = bed.sandbox().await;
        let id = bed.start(&sandbox, bed.script("survivor", &args[1])).await;
        println!("{id} {}", bed.engine.supervisor_pid().await.unwrap());
        kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    });
    ExitCode::FAILURE
}

/// Counts until it finds /tmp/go; then gives the command that made it time to end by itself, for what is still in the
/// container when its first process goes is killed.
const COUNT: &str =
    "i=0; while true; do i=$((i+1)); echo $i; if test -e /tmp/go; then sleep 0.5; exit 9; fi; sleep 0.005; done";

/// Runs an agent that starts a container and dies; the container's id and the supervisor's pid.
fn run_dying_agent(dir: &std::path::Path) -> (String, i32) {
    let output = Command::new("/proc/self/exe").args([AGENT, &dir.to_string_lossy(), COUNT]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (id, pid) =
        text.trim().split_once(' ').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (id.to_owned(), pid.parse().unwrap())
}

async fn a_container_survives_the_agent_and_is_adopted() {
    let dir = Bed::folder();
    let (id, supervisor) = run_dying_agent(&dir);
    let bed = Bed::at(dir).await;
    assert_eq!(bed.engine.supervisor_pid().await.unwrap(), supervisor);
    let before = bed.engine.container_status(&id).await.unwrap();
    assert!(matches!(before.state, ContainerState::Running { .. }), "{:?}", before.state);
    assert_eq!(bed.engine.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::Ready);
    let session = bed.engine.exec(&id, touch_go()).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 0);
    assert_eq!(bed.end(&id).await.0, Some(9));
    counts_without_gap(&log_text(&before.config.log_path));
    bed.close().await;
}

async fn a_container_survives_the_supervisor_and_is_adopted() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.script("survivor", COUNT);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    let before = bed.engine.container_status(&id).await.unwrap().state;
    let first = kill_supervisor(&bed).await;
    assert_ne!(bed.engine.supervisor_pid().await.unwrap(), first);
    let session = bed.engine.exec(&id, touch_go()).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 0);
    assert_eq!(bed.engine.container_status(&id).await.unwrap().state, before, "same process, same start");
    assert_eq!(bed.end(&id).await.0, expected_code(9), "the kernel tells the exit code of a foreign child");
    counts_with_one_gap_at_most(&log_text(&log));
    bed.close().await;
}

async fn a_container_survives_both_and_is_adopted() {
    let dir = Bed::folder();
    let (id, supervisor) = run_dying_agent(&dir);
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    let log = dir.join("logs/survivor.log");
    let bed = Bed::at(dir).await;
    assert_ne!(bed.engine.supervisor_pid().await.unwrap(), supervisor);
    let state = bed.engine.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    let session = bed.engine.exec(&id, touch_go()).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 0);
    assert_eq!(bed.end(&id).await.0, expected_code(9));
    counts_with_one_gap_at_most(&log_text(&log));
    bed.close().await;
}

async fn a_terminal_and_an_input_survive_the_supervisor() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut ids = Vec::new();
    for (name, tty) in [("tty", true), ("pipe", false)] {
        let mut config = bed.script(name, "echo up; read line; echo got $line; exit 2");
        (config.stdin, config.tty) = (true, tty);
        ids.push((bed.start(&sandbox, config.clone()).await, config.log_path));
    }
    for (_, log) in &ids {
        eventually("it is up", || log_text(log).contains("up")).await;
    }
    kill_supervisor(&bed).await;
    for (id, log) in &ids {
        let attach = AttachConfig { stdin: true, stdout: true, stderr: false };
        let mut session = bed.engine.attach(id, attach).await.unwrap();
        session.stdin.as_mut().unwrap().write_all(b"this\n").await.unwrap();
        let text = read_all(session.stdout.take()).await;
        assert!(text.contains("got this"), "{text:?}; log: {:?}", log_text(log));
        assert_eq!(bed.end(id).await.0, expected_code(2));
        assert!(log_text(log).contains("got this"));
    }
    bed.close().await;
}

async fn an_end_that_no_supervisor_saw_is_known_to_the_agent() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed
        .start(&sandbox, bed.script("unseen", "until test -e /tmp/go; do sleep 0.01; done; sleep 0.5; exit 4"))
        .await;
    let ContainerState::Running { pid, .. } = bed.engine.container_status(&id).await.unwrap().state else { panic!() };
    let supervisor = bed.engine.supervisor_pid().await.unwrap();
    let session = bed.engine.exec(&id, touch_go()).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 0);
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::STOP).unwrap();
    eventually("it has ended", || !alive(pid)).await;
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    // The next supervisor finds nobody to adopt; the agent's own handle tells.
    let (code, _, message) = bed.end(&id).await;
    assert_eq!(code, expected_code(4), "{message}");
    bed.close().await;
}

async fn what_cannot_be_adopted_is_killed_and_never_doubled() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.command("survivor", &["sleep", "1000"]);
    let id = bed.start(&sandbox, config).await;
    let ContainerState::Running { pid, .. } = bed.engine.container_status(&id).await.unwrap().state else { panic!() };
    // Without its record nobody can prove that this process is the container's.
    std::fs::remove_file(bed.dir().join("run/engine/containers").join(&id).join("started.json")).unwrap();
    kill_supervisor(&bed).await;
    let (code, reason, message) = bed.end(&id).await;
    assert_eq!((code, reason.as_str()), (None, "ContainerStatusUnknown"), "{message}");
    eventually("it is killed", || !std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists()).await;
    assert!(bed.engine.start_container(&id).await.is_err());
    bed.close().await;
}

async fn after_a_reboot_nothing_is_ready_and_nothing_runs() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.engine.create_container(&sandbox.id, bed.command("x", &["true"])).await.unwrap();
    // Another boot id in the records is what a reboot looks like from here.
    let records = bed.dir().join("data/engine");
    for path in [
        records.join("sandboxes").join(format!("{}.json", sandbox.id)),
        records.join("containers").join(&id).join("container.json"),
    ] {
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["boot_id"] = "another".into();
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    }
    let engine = bed.reopen().await;
    assert_eq!(engine.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    let state = engine.container_status(&id).await.unwrap().state;
    assert!(
        matches!(&state, ContainerState::Exited { exit_code: None, message, .. } if message.contains("restarted")),
        "{state:?}"
    );
    // It must not put another supervisor in the place of the one that is ended now.
    engine.shutdown(Duration::ZERO).await.unwrap();
    bed.close().await;
}

async fn shutting_down_ends_everything_but_the_records() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.script("polite", "trap 'exit 3' TERM; echo up; while true; do sleep 0.01; done");
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    eventually("it is up", || log_text(&log).contains("up")).await;
    let pid = bed.engine.supervisor_pid().await.unwrap();
    bed.engine.shutdown(Duration::from_secs(10)).await.unwrap();
    eventually("the supervisor is gone", || !alive(pid)).await;
    let engine = bed.reopen().await;
    assert_eq!(engine.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    let state = engine.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: Some(3), .. }), "{state:?}");
    engine.purge().await.unwrap();
    Bed::at(bed.dir().to_owned()).await.close().await;
    forget(bed);
}

fn touch_go() -> reeve_engine::engine::ExecConfig {
    reeve_engine::engine::ExecConfig {
        command: vec!["touch".to_owned(), "/tmp/go".to_owned()],
        ..reeve_engine::engine::ExecConfig::default()
    }
}

/// Kills the supervisor and waits until the engine has another one.
pub(crate) async fn kill_supervisor(bed: &Bed) -> i32 {
    let pid = bed.engine.supervisor_pid().await.unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    for _ in 0..1000 {
        if bed.engine.supervisor_pid().await.is_ok_and(|now| now != pid) {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no other supervisor came");
}

/// Before Linux 6.15 nobody tells a foreign child's exit code.
fn expected_code(code: i32) -> Option<i32> {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).filter_map(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (version >= (6, 15)).then_some(code)
}

/// The log holds 1, 2, 3, … : nothing lost, nothing twice.
fn counts_without_gap(log: &str) {
    let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 1);
    assert!(numbers.iter().zip(1..).all(|(seen, expected)| *seen == expected), "{numbers:?}");
}

/// The log of a container whose supervisor was killed once: nothing twice, and at most one gap, of what the supervisor
/// had taken out of the FIFO and not yet written.
fn counts_with_one_gap_at_most(log: &str) {
    let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 1);
    let before = std::iter::once(0).chain(numbers.iter().copied());
    let steps: Vec<i64> = before.zip(&numbers).map(|(last, next)| *next as i64 - last as i64).collect();
    assert!(steps.iter().all(|step| *step > 0), "twice, or out of order: {numbers:?}");
    assert!(steps.iter().filter(|step| **step > 1).count() <= 1, "more than one gap: {numbers:?}");
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Forgets a bed whose folders another one cleans up.
fn forget(bed: Bed) {
    std::mem::forget(bed);
}
