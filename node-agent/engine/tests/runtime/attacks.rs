//! Classes of attacks that other runtimes have lost to, tried on a real kernel. What is exchanged is exchanged by
//! another thread in a tight loop, for about a second of starts.
//!
//! | class | test |
//! |---|---|
//! | program written through `/proc/self/exe` (runc 2019-5736) | `isolation::the_program_cannot_be_…` |
//! | descriptor or folder leads out (runc 2024-21626) | `exec::a_working_folder_cannot_lead_…` |
//! | component is a link (runc 2019-19921, 2023-27561) | `isolation::links_in_…`, `…what_the_kernel_shows_…` |
//! | … exchanged meanwhile (runc 2021-30465, youki 2025-62161) | `what_is_exchanged_…`, `a_link_of_…` |
//! | mask or `/dev/null` exchanged (runc 2025-31133) | `a_mask_is_the_null_device_…` |
//! | `/dev/console`, `/dev/pts` exchanged (runc 2025-52565) | `a_console_shows_…`, `a_terminal_is_made_…` |
//! | writes to `/proc` redirected (runc 2025-52881) | `what_the_engine_tells_the_kernel_…` |
//! | files and folders made outside (runc 2024-45310) | `mount_points_are_made_inside_…` |
//! | inheritable capabilities (runc 2022-29162, crun 2022-27650) | `no_capability_is_inheritable` |
//! | cgroups, `release_agent` (runc 2023-25809, Linux 2022-0492) | `no_container_writes_cgroups_…` |
//! | who the user of an image is (crun 2026-30892) | unit tests of `runtime::users` |
//! | abstract socket of the engine (containerd 2020-15257) | `nothing_of_the_engine_listens_…` |
//! | device or FIFO of an image opened by the engine | `only_regular_files_…` of `snapshot::tests` |
//! | files of a checkpoint are links (containerd 2026-53489) | `links_in_a_checkpoint_…`, `a_checkpoint_holds_…` |

use std::fs;
use std::io::Read as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reeve_engine::engine::{
    ContainerConfig, Engine as _, ExecConfig, Mount, Sandbox, SandboxConfig, Seccomp, UserNamespace,
};
use reeve_engine::runtime::root::MASKED;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, inotify};
use tokio::time::Instant;

use crate::bed::{Bed, append_link, eventually, log_text, read_all};
use crate::restore::{self, Made};

crate::tests![
    what_is_exchanged_on_the_way_to_a_mount_point_leads_nowhere,
    mount_points_are_made_inside_whatever_is_exchanged,
    a_link_of_the_kernels_leads_to_no_mount_point,
    a_mask_is_the_null_device_or_the_container_does_not_start,
    a_console_shows_the_terminal_and_nothing_else,
    a_terminal_is_made_in_a_devpts_and_nothing_else_is_opened,
    what_the_engine_tells_the_kernel_cannot_be_caught_by_a_volume,
    no_capability_is_inheritable,
    no_container_writes_cgroups_or_has_the_node_run_a_program,
    nothing_of_the_engine_listens_on_an_abstract_socket,
    links_in_a_checkpoint_are_not_followed,
    a_checkpoint_holds_nothing_of_the_node,
];

/// How long containers are started while something is exchanged.
const RACE: Duration = Duration::from_secs(1);
/// How many at least, on a machine that is busy.
const TRIES_MIN: usize = 12;
/// What nothing of the node's may be found by.
const SECRET: &str = "9d1c-of-the-node-only";

/// Two names that another thread exchanges as fast as it can.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Exchange {
    fn of(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                count += 1;
            }
            count
        });
        Self { stop, thread }
    }

    /// How often they were exchanged.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn mount(source: &Path, target: impl Into<PathBuf>) -> Mount {
    Mount { source: source.to_owned(), target: target.into(), ..Mount::default() }
}

/// What came of one container: what it printed, or why it was not started.
async fn outcome(bed: &Bed, pod: &Sandbox, config: ContainerConfig) -> Result<String, String> {
    let log = config.log_path.clone();
    let _ = fs::remove_file(&log);
    let id = bed.engine.create_container(&pod.id, config).await.unwrap();
    let started = bed.engine.start_container(&id).await;
    if started.is_ok() {
        bed.end(&id).await;
    }
    bed.engine.remove_container(&id).await.unwrap();
    started.map(|()| log_text(&log)).map_err(|error| error.to_string())
}

/// Starts one container after the other while `one` and `other` are exchanged.
async fn race(
    bed: &Bed,
    (one, other): (PathBuf, PathBuf),
    mut config: impl FnMut(usize) -> ContainerConfig,
) -> Vec<Result<String, String>> {
    let pod = bed.sandbox().await;
    let exchange = Exchange::of(one, other);
    let (mut outcomes, began) = (Vec::new(), Instant::now());
    while began.elapsed() < RACE || outcomes.len() < TRIES_MIN {
        outcomes.push(outcome(bed, &pod, config(outcomes.len())).await);
    }
    let exchanged = exchange.end();
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    println!("{} starts, {exchanged} exchanges", outcomes.len());
    assert!(exchanged > outcomes.len() as u64, "too slow to say anything");
    outcomes
}

/// Checks that each container either saw what it should or was not started, with these words; how many saw it. A
/// look-up that only raced is tried again.
fn judged(outcomes: Vec<Result<String, String>>, words: &str, is_right: impl Fn(&str) -> bool) -> usize {
    let mut seen = 0;
    for outcome in outcomes {
        match outcome {
            Ok(text) => {
                assert!(is_right(&text), "{text}");
                seen += 1;
            }
            Err(why) => assert!(why.contains(words) && !why.contains("temporarily"), "{why}"),
        }
    }
    seen
}

/// A folder of the bed with a file in it, named as what it holds.
fn folder(bed: &Bed, name: &str) -> PathBuf {
    let dir = bed.dir().join(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mark"), name).unwrap();
    dir
}

/// Links that lead to a path of the node: from the root, and from below `/shared` out of it.
fn lures(outside: &Path) -> [PathBuf; 2] {
    [outside.to_owned(), Path::new("../../../../../../..").join(outside.strip_prefix("/").unwrap())]
}

/// All paths below a folder.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}

/// runc CVE-2021-30465, youki CVE-2025-62161: a volume that two containers share, in which a folder becomes a link
/// while something is mounted below it.
async fn what_is_exchanged_on_the_way_to_a_mount_point_leads_nowhere() {
    let bed = Bed::new().await;
    let (shared, given, outside) = (folder(&bed, "shared"), folder(&bed, "given"), folder(&bed, "outside"));
    fs::create_dir(outside.join("deep")).unwrap();
    let (before, mut seen) = (tree(&outside), 0);
    for lure in lures(&outside) {
        let (point, link) = (shared.join("point"), shared.join("link"));
        fs::create_dir_all(point.join("deep")).unwrap();
        symlink(&lure, &link).unwrap();
        let outcomes = race(&bed, (point, link), |_| {
            let mut config = bed.script("race", "grep -c '/given /' /proc/self/mountinfo");
            config.mounts = vec![mount(&shared, "/shared"), mount(&given, "/shared/point/deep")];
            config
        });
        seen += judged(outcomes.await, "at /shared/point/deep: ", |text| text == "1\n");
        assert_eq!(tree(&outside), before, "nothing is made on the node");
        fs::remove_dir_all(&shared).unwrap();
        fs::create_dir(&shared).unwrap();
    }
    assert!(seen > 0, "some are started");
    bed.close().await;
}

/// runc CVE-2024-45310: the same with mount points that are not there yet.
async fn mount_points_are_made_inside_whatever_is_exchanged() {
    let bed = Bed::new().await;
    let (shared, given, outside) = (folder(&bed, "shared"), folder(&bed, "given"), folder(&bed, "outside"));
    let before = tree(&outside);
    for lure in lures(&outside) {
        let (point, link) = (shared.join("point"), shared.join("link"));
        fs::create_dir(&point).unwrap();
        symlink(&lure, &link).unwrap();
        let outcomes = race(&bed, (point, link), |number| {
            let mut config = bed.script("race", "grep -c -e '/given /' -e '/given/mark /' /proc/self/mountinfo");
            let target = |last: &str| format!("/shared/point/new{number}/below/{last}");
            config.working_dir = target("work");
            config.mounts = vec![
                mount(&shared, "/shared"),
                mount(&given, target("folder")),
                mount(&given.join("mark"), target("file")),
            ];
            config
        });
        // Between the making of one folder and of the next it may be elsewhere.
        judged(outcomes.await, "/shared/point/new", |text| text == "2\n");
        assert_eq!(tree(&outside), before, "nothing is made on the node");
        fs::remove_dir_all(&shared).unwrap();
        fs::create_dir(&shared).unwrap();
    }
    bed.close().await;
}

/// While a root is built, `/proc/self/root` in it is the node's root (CVE-2021-30465, CVE-2025-52881).
async fn a_link_of_the_kernels_leads_to_no_mount_point() {
    let bed = Bed::new().await;
    let (shared, given, outside) = (folder(&bed, "shared"), folder(&bed, "given"), folder(&bed, "outside"));
    let before = tree(&outside);
    let pod = bed.sandbox().await;
    for lure in ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/thread-self/root"] {
        let link = shared.join("link");
        symlink(lure, &link).unwrap();
        let mut config = bed.command("magic", &["true"]);
        let target = Path::new("/shared/link").join(outside.strip_prefix("/").unwrap()).join("new");
        config.mounts = vec![mount(&shared, "/shared"), mount(&given, target)];
        let refused = outcome(&bed, &pod, config).await.unwrap_err();
        assert!(refused.ends_with(": too many levels of symbolic links"), "{lure}: {refused}");
        assert_eq!(tree(&outside), before, "{lure}");
        fs::remove_file(&link).unwrap();
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

/// A volume for `/dev`, with the nodes that a container needs.
fn device_volume(bed: &Bed) -> PathBuf {
    let dev = folder(bed, "dev");
    for (name, minor) in [("null", 3), ("zero", 5)] {
        let device = rustix::fs::makedev(1, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, dev.join(name), FileType::CharacterDevice, mode, device).unwrap();
    }
    dev
}

/// The files that are masked, as far as this kernel has them.
fn masked_files() -> String {
    let files = MASKED.iter().filter(|path| fs::metadata(path).is_ok_and(|what| !what.is_dir()));
    files.copied().collect::<Vec<_>>().join(" ")
}

/// runc CVE-2025-31133: what hides a file is a file of the container's own.
async fn a_mask_is_the_null_device_or_the_container_does_not_start() {
    let bed = Bed::new().await;
    let dev = device_volume(&bed);
    let masked = |name: &str| {
        let mut config = bed.script(name, &format!("stat -c %t:%T {}", masked_files()));
        config.mounts = vec![mount(&dev, "/dev")];
        config
    };
    let is_masked = |text: &str| !text.is_empty() && text.lines().all(|line| line == "1:3");
    let pod = bed.sandbox().await;
    assert!(is_masked(&outcome(&bed, &pod, masked("plain")).await.unwrap()));
    for lure in ["zero", "../etc/secret", "/proc/sysrq-trigger", "/proc/self/root/dev/null", "absent"] {
        let link = dev.join("link");
        symlink(lure, &link).unwrap();
        let as_null =
            || fs::rename(dev.join("null"), dev.join("kept")).and_then(|()| fs::rename(&link, dev.join("null")));
        as_null().unwrap();
        let refused = outcome(&bed, &pod, masked("static")).await.unwrap_err();
        assert!(refused.starts_with("failed to mask /proc/"), "{lure}: {refused}");
        fs::rename(dev.join("kept"), dev.join("null")).unwrap();
        if lure == "absent" {
            continue;
        }
        symlink(lure, &link).unwrap();
        let outcomes = race(&bed, (dev.join("null"), link.clone()), |_| masked("race")).await;
        judged(outcomes, "failed to mask /proc/", is_masked);
        // After an odd number of exchanges the link has the other name.
        let has_link = |name: &str| fs::read_link(dev.join(name)).is_ok();
        if has_link("null") {
            rustix::fs::renameat_with(CWD, dev.join("null"), CWD, &link, RenameFlags::EXCHANGE).unwrap();
        }
        fs::remove_file(&link).unwrap();
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

/// Whether what hides the masked files is the null device, or the terminal upon it, all that is shown of the kernel's
/// `/proc` is where it belongs, and one terminal is mounted.
fn shows_terminals_only(text: &str) -> bool {
    let (kinds, mounts): (Vec<&str>, Vec<&str>) = text.lines().map(str::trim_end).partition(|line| !line.contains(' '));
    // 136 is "UNIX98 PTY slaves".
    let is_hidden = !kinds.is_empty() && kinds.iter().all(|kind| ["1", "88"].contains(kind));
    let mounts: Vec<Vec<&str>> = mounts.iter().map(|line| line.split(' ').collect()).collect();
    let of = |kind: &str| mounts.iter().filter(|fields| fields.contains(&kind)).collect::<Vec<_>>();
    let in_place = |fields: &&Vec<&str>| fields[4] == format!("/proc{}", fields[3].trim_end_matches('/'));
    let terminals = of("devpts").into_iter().filter(|fields| fields[3] == "/0").count();
    is_hidden && !of("proc").is_empty() && of("proc").iter().all(in_place) && terminals == 1
}

/// runc CVE-2025-52565: what is shown at `/dev/console` is a file of the kernel's, shown before it is masked.
async fn a_console_shows_the_terminal_and_nothing_else() {
    let bed = Bed::new().await;
    let dev = device_volume(&bed);
    fs::create_dir(dev.join("pts")).unwrap();
    fs::write(dev.join("console"), "").unwrap();
    let mut seen = 0;
    for lure in ["/proc/sysrq-trigger", "/proc/kcore", "pts/0"] {
        symlink("/proc/sysrq-trigger", dev.join("pts/0")).unwrap();
        symlink(lure, dev.join("link")).unwrap();
        let outcomes = race(&bed, (dev.join("console"), dev.join("link")), |_| {
            let mut config = bed.script("console", &format!("stat -c %t {}; cat /proc/self/mountinfo", masked_files()));
            config.tty = true;
            config.mounts = vec![mount(&dev, "/dev")];
            config
        });
        // Not every kernel has each of these files, and nobody can make one there.
        seen += judged(outcomes.await, "failed to mount /dev/console: ", shows_terminals_only);
        for name in ["console", "link", "pts/0"] {
            fs::remove_file(dev.join(name)).unwrap();
        }
        fs::write(dev.join("console"), "").unwrap();
    }
    assert!(seen > 0, "some are started");
    bed.close().await;
}

/// Whether a file was opened since it is watched.
struct Watched(rustix::fd::OwnedFd);

impl Watched {
    fn new(path: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    fn was_opened(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 256]).is_ok()
    }
}

/// runc CVE-2025-52565 and the like, for a command with a terminal: the engine makes that in the container's devpts,
/// and a device of the node in its place would be opened with the node's rights.
async fn a_terminal_is_made_in_a_devpts_and_nothing_else_is_opened() {
    let bed = Bed::new().await;
    let dev = device_volume(&bed);
    let (pts, ptmx) = (dev.join("pts"), dev.join("pts/ptmx"));
    fs::create_dir(&pts).unwrap();
    let (device, mode) = (rustix::fs::makedev(1, 3), Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(CWD, &ptmx, FileType::CharacterDevice, mode, device).unwrap();
    let pod = bed.sandbox().await;
    let mut config = bed.command("main", &["sleep", "1000"]);
    config.mounts = vec![mount(&dev, "/dev")];
    let id = bed.start(&pod, config).await;
    let exec = || {
        let command = vec!["true".to_owned()];
        bed.engine.exec(&id, ExecConfig { command, stdout: true, tty: true, ..ExecConfig::default() })
    };
    let watched = Watched::new(&ptmx);
    let refused = exec().await.map(drop).unwrap_err().to_string();
    assert!(refused.ends_with("/dev/pts of the container is not a devpts"), "{refused}");
    assert!(!watched.was_opened());
    assert!(fs::File::open(&ptmx).is_ok() && watched.was_opened(), "it would be seen");
    // Nor through a link, to the node's own terminals or elsewhere, while it is exchanged.
    for lure in ["/proc/1/root/dev/pts", "/proc/self/root/dev/pts", "../../../../../../../../dev/pts"] {
        let link = dev.join("link");
        symlink(lure, &link).unwrap();
        let exchange = Exchange::of(pts.clone(), link);
        let (mut tries, began) = (0, Instant::now());
        while began.elapsed() < RACE / 4 || tries < TRIES_MIN as u64 {
            assert!(exec().await.is_err(), "{lure}");
            tries += 1;
        }
        let exchanged = exchange.end();
        assert!(exchanged > tries, "too slow to say anything: {tries}, {exchanged}");
        assert!(!watched.was_opened(), "{lure}");
        let is_link = |name: &str| fs::read_link(dev.join(name)).is_ok();
        if is_link("pts") {
            rustix::fs::renameat_with(CWD, &pts, CWD, dev.join("link"), RenameFlags::EXCHANGE).unwrap();
        }
        fs::remove_file(dev.join("link")).unwrap();
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

/// runc CVE-2025-52881 and CVE-2019-16884: a `/proc` that is none catches what the runtime tells the kernel.
async fn what_the_engine_tells_the_kernel_cannot_be_caught_by_a_volume() {
    let bed = Bed::new().await;
    let fake = folder(&bed, "fake");
    let caught = [
        "self/oom_score_adj",
        "self/attr/exec",
        "self/attr/apparmor/exec",
        "thread-self/attr/exec",
        "1/oom_score_adj",
        "sys/net/ipv4/ip_unprivileged_port_start",
        "sys/kernel/shmmax",
        "sys/kernel/keys/root_maxkeys",
    ];
    for (number, name) in caught.iter().enumerate() {
        let place = fake.join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        // Some are links, out of the container and to another file that the kernel acts upon.
        if number % 3 == 1 {
            fs::write(fake.join(format!("behind{number}")), SECRET).unwrap();
            symlink(fake.join(format!("behind{number}")), place).unwrap();
        } else {
            fs::write(place, SECRET).unwrap();
        }
    }
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "1025".to_owned())].into();
    let pod = bed.engine.run_pod_sandbox(SandboxConfig { sysctls, ..bed.sandbox_config() }).await.unwrap();
    let mut config = bed.command("main", &["sleep", "1000"]);
    config.resources.oom_score_adj = Some(501);
    config.security.no_new_privs = true;
    config.mounts = vec![mount(&fake, "/proc")];
    let id = bed.start(&pod, config).await;
    let command = ["sleep", "777"].map(str::to_owned).to_vec();
    let session = bed.engine.exec(&id, ExecConfig { command, stdout: true, ..ExecConfig::default() }).await.unwrap();
    let supervisor = bed.engine.supervisor_pid().await.unwrap();
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    let mut told = 0;
    for child in children.split_whitespace() {
        let read = |name: &str| fs::read_to_string(format!("/proc/{child}/{name}")).unwrap();
        if read("cmdline").starts_with("sleep") {
            assert_eq!(read("oom_score_adj"), "501\n");
            assert!(read("status").contains("Seccomp:\t2"));
            told += 1;
        }
    }
    assert_eq!(told, 2, "both are told to the kernel");
    drop(session);
    let text = outcome(&bed, &pod, bed.script("see", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")).await;
    assert_eq!(text.as_deref(), Ok("1025\n"));
    for name in caught {
        assert_eq!(fs::read_to_string(fake.join(name)).unwrap(), SECRET, "{name}");
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

/// runc CVE-2022-29162, crun CVE-2022-27650: what is inheritable is had by a user's programs with file capabilities.
async fn no_capability_is_inheritable() {
    // What starts the engine has some, which its threads and programs inherit.
    let test = || {
        let mut own = rustix::thread::capabilities(None).unwrap();
        own.inheritable = own.permitted;
        rustix::thread::set_capabilities(None, own).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(is_none_inheritable());
    };
    std::thread::spawn(test).join().unwrap();
}

async fn is_none_inheritable() {
    let bed = Bed::new().await;
    let status = fs::read_to_string(format!("/proc/{}/status", bed.engine.supervisor_pid().await.unwrap())).unwrap();
    assert!(!status.contains("CapInh:\t0000000000000000"), "else there is nothing to shed");
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    let script = "grep -e CapInh -e CapAmb /proc/self/status";
    for users in [None, Some(UserNamespace { first: 700 << 16, length: 1 << 16 })] {
        let config = SandboxConfig { user_namespace: users, ..bed.sandbox_config() };
        let pod = bed.engine.run_pod_sandbox(config).await.unwrap();
        for (user, privileged) in [(0, false), (1000, false), (0, true)] {
            let mut config = bed.script("caps", &format!("{script}; echo through; exec sleep 1000"));
            config.security.run_as_user = Some(user);
            config.security.privileged = privileged;
            let log = config.log_path.clone();
            let _ = fs::remove_file(&log);
            let id = bed.start(&pod, config).await;
            eventually("it has looked", || log_text(&log).ends_with("through\n")).await;
            assert_eq!(log_text(&log), format!("{none}through\n"), "{user} {privileged}");
            let command = ["sh", "-c", script].map(str::to_owned).to_vec();
            let exec = ExecConfig { command, stdout: true, ..ExecConfig::default() };
            let session = bed.engine.exec(&id, exec).await.unwrap();
            assert_eq!(read_all(session.stdout).await, none, "{user} {privileged}");
            bed.engine.remove_container(&id).await.unwrap();
        }
        bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    }
    bed.close().await;
}

/// runc CVE-2023-25809, Linux CVE-2022-0492: whoever writes `release_agent` has the node run a program.
async fn no_container_writes_cgroups_or_has_the_node_run_a_program() {
    let bed = Bed::new().await;
    let write = "exec 2>&1; \
                 find='busybox find /sys/fs/cgroup'; \
                 for f in $($find -name cgroup.procs); do mkdir ${f%/*}/attack && echo made; done; \
                 for f in $($find -name '*.max' -o -name '*limit_in_bytes' -o -name '*.procs'); do \
                 echo 0 >$f && echo wrote; done; ";
    let new = "mount -t tmpfs x /tmp && echo mounted; \
               for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,rw,bind $d; done; mkdir /tmp/h; \
               for o in none,name=reeve-attack rdma misc net_cls; do \
               mount -t cgroup -o $o x /tmp/h && echo hierarchy && umount /tmp/h; done; ";
    // What is written is what is there already, so that the node is the same if the attack succeeds.
    let agent = "for o in $(busybox cut -d: -f2 /proc/self/cgroup); do \
                 mkdir /tmp/$o; mount -t cgroup -o $o x /tmp/$o; done; \
                 for f in $(busybox find /sys/fs/cgroup /tmp -name release_agent); do echo there; v=$(cat $f); \
                 echo \"$v\" >$f && echo agent; done; true";
    let ids = UserNamespace { first: 700 << 16, length: 1 << 16 };
    // Who has SYS_ADMIN of the node's own users is kept from nothing by cgroups; new ones it does not get either.
    type Change = fn(&mut ContainerConfig);
    let cases: [(&str, Option<UserNamespace>, &str, Change); 3] = [
        ("usual", None, agent, |_| {}),
        ("may mount", None, "true", |config| {
            config.security.capabilities_add = vec!["SYS_ADMIN".to_owned()];
            config.security.seccomp = Seccomp::Unconfined;
        }),
        ("all of its own users", Some(ids), agent, |config| {
            config.security.privileged = true;
            config.security.seccomp = Seccomp::Unconfined;
        }),
    ];
    for (name, user_namespace, agent, edit) in cases {
        let pod = SandboxConfig { user_namespace, ..bed.sandbox_config() };
        let pod = bed.engine.run_pod_sandbox(pod).await.unwrap();
        let mut config = bed.script("groups", &format!("{write}{new}{agent}"));
        edit(&mut config);
        let text = outcome(&bed, &pod, config).await.unwrap();
        let said = |word: &str| text.lines().any(|line| line == word);
        assert_eq!(said("mounted"), name != "usual", "{name}: {text}");
        for attack in ["made", "wrote", "agent", "hierarchy"] {
            assert!(!said(attack), "{name} {attack}: {text}");
        }
        assert!(text.contains("mkdir: can't create directory '/sys/fs/cgroup"), "{name}: {text}");
        bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    }
    bed.close().await;
}

/// Names of abstract sockets that a process has.
fn abstract_sockets(pid: u32) -> Vec<String> {
    let own: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| Some(fs::read_link(fd.ok()?.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names = lines.filter_map(|fields| match fields[..] {
        [.., inode, name] if name.starts_with('@') && own.contains(&format!("socket:[{inode}]")) => {
            Some(name.to_owned())
        }
        _ => None,
    });
    names.collect()
}

/// containerd CVE-2020-15257: an abstract socket belongs to a network namespace, and a pod on the node's is in it.
async fn nothing_of_the_engine_listens_on_an_abstract_socket() {
    let bed = Bed::new().await;
    let pod = bed.engine.run_pod_sandbox(SandboxConfig { host_network: true, ..bed.sandbox_config() }).await.unwrap();
    let mut config = bed.command("tty", &["sleep", "1000"]);
    (config.stdin, config.tty) = (true, true);
    let id = bed.start(&pod, config).await;
    let command = ["sleep", "1000"].map(str::to_owned).to_vec();
    let exec = ExecConfig { command, stdin: true, stdout: true, tty: true, ..ExecConfig::default() };
    let session = bed.engine.exec(&id, exec).await.unwrap();
    let supervisor = u32::try_from(bed.engine.supervisor_pid().await.unwrap()).unwrap();
    for pid in [supervisor, std::process::id()] {
        assert_eq!(abstract_sockets(pid), Vec::<String>::new(), "{pid}");
    }
    let name = format!("{}-control", bed.cgroup_root());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    assert_eq!(abstract_sockets(std::process::id()), [format!("@{name}")], "one would be found");
    drop(listener);
    // What there is instead belongs to the node's root alone.
    let sockets = tree(&bed.dir().join("run")).into_iter().map(|path| fs::symlink_metadata(path).unwrap());
    let sockets: Vec<_> = sockets.filter(|what| FileType::from_raw_mode(what.mode()) == FileType::Socket).collect();
    assert!(!sockets.is_empty());
    for socket in sockets {
        assert_eq!((socket.uid(), socket.permissions().mode() & 0o077), (0, 0));
    }
    drop(session);
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

/// The archive with one of its files made a link to `to`; with files more.
fn linked(made: &Made, name: &str, to: &str) -> PathBuf {
    let place = made.changed(name, |_| None);
    let mut bytes = fs::read(&place).unwrap();
    bytes.truncate(bytes.len() - 1024);
    let mut tar = tar::Builder::new(bytes);
    // A builder begins at the end of what it is given.
    append_link(&mut tar, name, to);
    fs::write(&place, tar.into_inner().unwrap()).unwrap();
    place
}

/// What an archive holds under a name.
fn member(archive: &Path, name: &str) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(name))?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// containerd CVE-2026-53489: a file of the checkpoint is a link to one of the node. Here each leads to the very
/// content that it replaces: followed, it would do.
async fn links_in_a_checkpoint_are_not_followed() {
    let Some(made) = restore::make(|_| {}).await else { return };
    let pod = made.pod().await;
    let outside = folder(&made.bed, "outside");
    for name in [
        "config.dump",
        "spec.dump",
        "descriptors.json",
        "rootfs-diff.tar",
        "checkpoint/inventory.img",
        "checkpoint/core-1.img",
        "checkpoint/seccomp.img",
    ] {
        let copy = outside.join(name.replace('/', "-"));
        fs::write(&copy, member(&made.archive, name).unwrap()).unwrap();
        for lure in [copy.clone(), Path::new("../../../../../../../../..").join(copy.strip_prefix("/").unwrap())] {
            let archive = linked(&made, name, &lure.to_string_lossy());
            let config = ContainerConfig { checkpoint: Some(archive), ..made.again(String::new()) };
            let said = made.refused(&pod, config).await;
            let file = name.trim_start_matches("checkpoint/");
            assert!(said.contains(&format!("failed to read {file:?}")), "{name}: {said}");
        }
    }
    // A log is nothing that is restored, wherever it leads.
    let secret = outside.join("secret");
    fs::write(&secret, SECRET).unwrap();
    for name in ["container.log", "dump.log", "checkpoint/dump.log"] {
        let archive = linked(&made, name, &secret.to_string_lossy());
        let config = ContainerConfig { checkpoint: Some(archive), ..made.again(String::new()) };
        let log = config.log_path.clone();
        let _ = fs::remove_file(&log);
        let id = made.bed.start(&pod, config).await;
        eventually("it goes on", || log_text(&log).lines().count() > 2).await;
        assert!(!fs::read_to_string(&log).unwrap().contains(SECRET), "{name}");
        made.bed.engine.remove_container(&id).await.unwrap();
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

/// The same the other way round: what a container leaves behind are links to files of the node, and its checkpoint is
/// written where one lies.
async fn a_checkpoint_holds_nothing_of_the_node() {
    if !crate::checkpoint::criu_works() {
        println!("SKIPPED: CRIU is not here, or does not work on this kernel");
        return;
    }
    let bed = Bed::new().await;
    let (outside, pod) = (folder(&bed, "outside"), bed.sandbox().await);
    let secret = outside.join("secret");
    fs::write(&secret, SECRET).unwrap();
    let target = secret.display();
    let script = format!(
        "ln -s {target} /link; ln -s {} /folder; rm /etc/passwd; ln -s {target} /etc/passwd; \
         echo ready; exec sleep 1000",
        outside.display()
    );
    let config = bed.script("links", &script);
    let log = config.log_path.clone();
    let id = bed.start(&pod, config).await;
    eventually("it has made its links", || log_text(&log) == "ready\n").await;
    fs::remove_file(&log).unwrap();
    symlink(&secret, &log).unwrap();
    let place = bed.dir().join("checkpoint.tar");
    symlink(&secret, &place).unwrap();
    bed.engine.checkpoint_container(&id, &place, None).await.unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET, "it is not written through a link");
    assert!(fs::symlink_metadata(&place).unwrap().is_file());
    let archive = fs::read(&place).unwrap();
    let is_inside = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|own| own == SECRET.as_bytes());
    assert!(!is_inside(&archive) && is_inside(&fs::read(&secret).unwrap()));
    let changes = member(&place, "rootfs-diff.tar").unwrap();
    let mut changes = tar::Archive::new(changes.as_slice());
    let links = changes.entries().unwrap().map(Result::unwrap).filter(|entry| entry.header().entry_type().is_symlink());
    let links: Vec<String> = links.map(|entry| entry.path().unwrap().display().to_string()).collect();
    assert_eq!(links, ["etc/passwd", "folder", "link"]);
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}
