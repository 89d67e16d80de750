//! Commands in running containers, and attached clients.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use reeve_engine::engine::{AttachConfig, Engine as _, EngineError, ExecConfig, Mount, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bed::{Bed, eventually, log_text, read_all};

crate::tests![
    a_command_has_streams_and_an_exit_code,
    a_command_has_the_containers_restrictions,
    a_working_folder_cannot_lead_a_command_out_of_its_container,
    a_terminal_can_be_resized_and_knows_its_name,
    a_command_that_takes_too_long_is_killed,
    dropping_a_session_kills_its_command,
    an_attached_client_sees_the_output_and_feeds_the_input,
    a_container_with_a_terminal_is_attached_and_logged,
];

fn exec(command: &[&str]) -> ExecConfig {
    ExecConfig {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..ExecConfig::default()
    }
}

async fn a_command_has_streams_and_an_exit_code() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.command("main", &["sleep", "1000"])).await;
    let config = ExecConfig { stdin: true, ..exec(&["sh", "-c", "cat; echo err >&2; exit 5"]) };
    let mut session = bed.engine.exec(&id, config).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    assert_eq!(read_all(session.stdout.take()).await, "hello", "closing the input ends it");
    assert_eq!(read_all(session.stderr.take()).await, "err\n");
    assert_eq!(session.exit.await.unwrap(), 5);
    let error = bed.engine.exec(&id, exec(&["nope"])).await.unwrap_err();
    assert_eq!(error.to_string(), r#"exec: "nope": executable file not found in $PATH"#);
    bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(matches!(bed.engine.exec(&id, exec(&["true"])).await, Err(EngineError::WrongState { .. })));
    bed.close().await;
}

async fn a_command_has_the_containers_restrictions() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut config = bed.command("main", &["sleep", "1000"]);
    config.security.run_as_user = Some(1000);
    config.security.no_new_privs = true;
    config.env = vec![("COLOR".to_owned(), "red".to_owned())];
    config.working_dir = "/home/app".to_owned();
    let id = bed.start(&sandbox, config).await;
    let script = "id -u; id -G; echo $COLOR $HOSTNAME; pwd; \
                  grep -E 'Seccomp:|NoNewPrivs|CapEff|CapBnd' /proc/self/status; \
                  cat /proc/self/cgroup | grep -v ':/$' | wc -l; unshare -m true 2>/dev/null || echo refused";
    let mut session = bed.engine.exec(&id, exec(&["sh", "-c", script])).await.unwrap();
    let text = read_all(session.stdout.take()).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["1000", "1000 2000", "red web-0", "/home/app"], "{text}");
    for expected in
        ["CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2", "refused"]
    {
        assert!(lines.contains(&expected), "{expected}: {text}");
    }
    assert_eq!(session.exit.await.unwrap(), 0);
    bed.close().await;
}

/// CVE-2024-21626: a container exchanges its working folder for a link to a descriptor that a command entering it
/// may still hold. Here the supervisor has inherited one of the node's root.
async fn a_working_folder_cannot_lead_a_command_out_of_its_container() {
    let leaked = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let volume = bed.dir().join("volume");
    let work = volume.join("work");
    std::fs::create_dir_all(&work).unwrap();
    let mut config = bed.command("main", &["sleep", "1000"]);
    config.working_dir = "/volume/work".to_owned();
    config.mounts = vec![Mount { source: volume, target: "/volume".into(), ..Mount::default() }];
    let id = bed.start(&sandbox, config).await;
    std::fs::remove_dir(&work).unwrap();
    std::os::unix::fs::symlink(format!("/proc/self/fd/{}", leaked.as_raw_fd()), &work).unwrap();
    let entered = bed.engine.exec(&id, exec(&["sh", "-c", "pwd; ls"])).await;
    if let Ok(mut session) = entered {
        panic!("the command is outside: {}", read_all(session.stdout.take()).await);
    }
    std::fs::remove_file(&work).unwrap();
    std::os::unix::fs::symlink("/etc", &work).unwrap();
    let mut session = bed.engine.exec(&id, exec(&["ls"])).await.unwrap();
    assert!(read_all(session.stdout.take()).await.contains("secret"), "a link inside is followed");
    bed.close().await;
}

async fn a_terminal_can_be_resized_and_knows_its_name() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.command("main", &["sleep", "1000"])).await;
    let config = ExecConfig { stdin: true, tty: true, stderr: false, ..exec(&["sh"]) };
    let mut session = bed.engine.exec(&id, config).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    session.resize.as_ref().unwrap().send(TerminalSize { width: 101, height: 37 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stdin.write_all(b"tty; stty size; echo TERM=$TERM; exit 4\n").await.unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    for expected in ["/dev/pts/0", "37 101", "TERM=xterm"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(session.exit.await.unwrap(), 4);
    bed.close().await;
}

async fn a_command_that_takes_too_long_is_killed() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.command("main", &["sleep", "1000"])).await;
    let config = ExecConfig { timeout: Some(Duration::from_millis(200)), ..exec(&["sleep", "500"]) };
    let session = bed.engine.exec(&id, config).await.unwrap();
    assert!(matches!(session.exit.await, Err(EngineError::ExecTimeout { .. })));
    let pid = bed.engine.supervisor_pid().await.unwrap();
    eventually("the command is gone", || !children(pid).contains("sleep\u{0}500")).await;
    bed.close().await;
}

async fn dropping_a_session_kills_its_command() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.command("main", &["sleep", "1000"])).await;
    let session = bed.engine.exec(&id, exec(&["sleep", "501"])).await.unwrap();
    let pid = bed.engine.supervisor_pid().await.unwrap();
    assert!(children(pid).contains("sleep\u{0}501"));
    drop(session);
    eventually("the command is gone", || !children(pid).contains("sleep\u{0}501")).await;
    bed.close().await;
}

/// Command lines of a process' children.
fn children(pid: i32) -> String {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let lines =
        children.split_ascii_whitespace().map(|child| std::fs::read_to_string(format!("/proc/{child}/cmdline")));
    lines.map(Result::unwrap_or_default).collect::<Vec<_>>().join("\n")
}

async fn an_attached_client_sees_the_output_and_feeds_the_input() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut config = bed.script("cat", "cat; echo over >&2; exit 6");
    (config.stdin, config.stdin_once) = (true, true);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    let attach = AttachConfig { stdin: true, stdout: true, stderr: true };
    let mut session = bed.engine.attach(&id, attach).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    drop(stdin);
    assert_eq!(read_all(session.stdout.take()).await, "one\ntwo\n");
    assert_eq!(read_all(session.stderr.take()).await, "over\n");
    assert_eq!(session.exit.await.unwrap(), 6, "the first client to leave ends the input");
    assert_eq!(log_text(&log), "one\ntwo\nover\n");
    bed.close().await;
}

async fn a_container_with_a_terminal_is_attached_and_logged() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut config = bed.script("tty", "tty; test -c /dev/console && echo console; read line; echo got $line; exit 2");
    (config.stdin, config.tty) = (true, true);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    eventually("it has a terminal", || log_text(&log).contains("console")).await;
    assert!(log_text(&log).contains("/dev/pts/0"));
    let attach = AttachConfig { stdin: true, stdout: true, stderr: false };
    let mut session = bed.engine.attach(&id, attach).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"this\n").await.unwrap();
    let text = read_all(session.stdout.take()).await;
    assert!(text.contains("got this"), "{text}");
    assert_eq!(session.exit.await.unwrap(), 2);
    assert!(log_text(&log).contains("got this"));
    bed.close().await;
}
