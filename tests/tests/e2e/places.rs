//! Data folders of all kinds, and machines that lack something: used as they are, or refused and left as they were.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use reeve_tests::cluster::Cluster;
use reeve_tests::command::{Run, run};

/// `reeve up` with another data folder.
fn up_in(cluster: &Cluster, data_dir: &str) -> Run {
    cluster.reeve(&["up", "--netns", "--name", &cluster.name, "--data-dir", data_dir])
}

fn purge(cluster: &Cluster) {
    cluster.reeve(&["down", "--purge", "--name", &cluster.name]).done();
}

/// Takes the cluster down wherever it lies, when the test fails half-way.
struct Anywhere<'c>(&'c Cluster);

impl Drop for Anywhere<'_> {
    fn drop(&mut self) {
        let _ = self.0.reeve(&["down", "--purge", "--name", &self.0.name]);
    }
}

/// Nothing of the cluster is on the machine, not even its lock.
#[track_caller]
fn assert_no_trace(cluster: &Cluster) {
    let lock = cluster.run_dir().with_extension("lock");
    assert!(!cluster.run_dir().exists() && !lock.exists(), "something is left in /run/reeve");
}

/// A tmpfs for as long as it lives.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(dir: &Path, options: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a mount point");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir), "").done();
        Self(dir.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0), "");
    }
}

/// Takes all room on a file system but for so many MiB; removed when it ends.
struct Filler(std::path::PathBuf);

impl Filler {
    fn leaving(disk: &Tmpfs, mib: u64) -> Self {
        let free = run(Command::new("df").args(["--output=avail", "-BM"]).arg(&disk.0), "").text();
        let free: u64 = free.lines().last().and_then(|line| line.trim().strip_suffix('M')?.parse().ok()).expect("room");
        let filler = Self(disk.0.join("filler"));
        // One too many leaves nothing; a file that does not fit takes what there is.
        let size = if mib == 0 { free + 1 } else { free - mib };
        let count = format!("count={size}");
        let of = format!("of={}", filler.0.display());
        let _ = run(Command::new("dd").args(["if=/dev/zero", "bs=1M", &count, &of]), "");
        filler
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn on_a_full_disk_reads_and_deletions_go_on_and_writes_as_soon_as_there_is_room() {
    let cluster = Cluster::prepare("brim");
    let _anywhere = Anywhere(&cluster);
    let disk = Tmpfs::mount(&cluster.home().join("disk"), "size=256m");
    up_in(&cluster, "disk").done();
    let kubectl = |args: &str| cluster.kubectl(&args.split(' ').collect::<Vec<_>>());
    for (round, mib) in [32, 0].into_iter().enumerate() {
        kubectl(&format!("create configmap kept-{round}")).done();
        let filler = Filler::leaving(&disk, mib);
        // The store sees how little is left with the next write, its own or the node's.
        let refused =
            (0..100).map(|n| kubectl(&format!("create configmap more-{round}-{n}"))).find(|run| run.code != 0);
        let refused = refused.expect("a full disk refuses").refused();
        assert!(refused.contains("store cannot write"), "{refused}");
        kubectl(&format!("get configmap kept-{round}")).done();
        if mib > 0 {
            kubectl(&format!("delete configmap kept-{round}")).done();
        }
        drop(filler);
        let written = |_| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            kubectl(&format!("create configmap again-{round}")).code == 0
        };
        assert!((0..100).any(written), "there is room, and nothing is written");
        kubectl(&format!("get configmap again-{round}")).done();
    }
    kubectl("get configmap kept-1").done();
    purge(&cluster);
}

#[test]
fn a_data_folder_may_be_relative_a_link_or_a_file_system_of_its_own() {
    let cluster = Cluster::prepare("places");
    let _anywhere = Anywhere(&cluster);
    // The commands run in the cluster's home.
    up_in(&cluster, "deep/er").done();
    assert!(cluster.home().join("deep/er/cluster.json").exists());
    purge(&cluster);
    assert!(!cluster.home().join("deep/er").exists());

    let real = cluster.home().join("real");
    std::fs::create_dir(&real).expect("a folder");
    symlink(&real, cluster.home().join("link")).expect("a link");
    up_in(&cluster, "link").done();
    assert!(up_in(&cluster, "link").text().contains("is already up"));
    assert!(up_in(&cluster, "other").refused().contains("already lies in"));
    purge(&cluster);
    assert!(!real.exists(), "what the link led to is gone");

    let disk = Tmpfs::mount(&cluster.home().join("disk"), "size=256m,noexec");
    up_in(&cluster, "disk").done();
    purge(&cluster);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(mounts.contains(&*disk.0.to_string_lossy()), "the user's file system stays mounted");
    assert_eq!(std::fs::read_dir(&disk.0).expect("it").count(), 0, "and is empty");
    assert_no_trace(&cluster);
}

#[test]
fn a_data_folder_that_cannot_be_is_refused_and_left_as_it_was() {
    let cluster = Cluster::prepare("refusals");
    let _anywhere = Anywhere(&cluster);
    let home = cluster.home();
    std::fs::write(home.join("file"), "mine").expect("a file");
    symlink(home.join("none"), home.join("nowhere")).expect("a link");
    std::fs::create_dir(home.join("thesis")).expect("a folder");
    std::fs::write(home.join("thesis/chapter"), "mine").expect("a file");
    let _full = Tmpfs::mount(&home.join("full"), "size=4k,nr_inodes=3");
    let _read_only = Tmpfs::mount(&home.join("fixed"), "ro,size=1m");
    for (data_dir, words) in [
        ("file", "it is not a folder"),
        ("file/below", "Not a directory"),
        ("nowhere", "No such file"),
        ("thesis", "it is not empty (it has \"chapter\") and holds no cluster"),
        ("full", "No space left on device"),
        ("fixed", "Read-only file system"),
        ("fixed/below", "Read-only file system"),
        ("/proc/reeve", "/proc/reeve"),
    ] {
        let said = up_in(&cluster, data_dir).refused();
        assert!(said.contains(words) && said.contains(data_dir), "{data_dir}: {said}");
        assert_no_trace(&cluster);
    }
    assert_eq!(std::fs::read_to_string(home.join("file")).expect("the file"), "mine");
    let entries = std::fs::read_dir(home.join("thesis")).expect("the folder").count();
    assert_eq!(entries, 1);
}

#[test]
fn a_disk_that_is_full_stops_up_with_a_message_and_up_works_when_there_is_room() {
    let cluster = Cluster::prepare("full");
    let disk = Tmpfs::mount(&cluster.data_dir(), "size=64k");
    let said = cluster.up_again().refused();
    // Which of them depends on how far it gets.
    let words = ["the disk is full: 0 MiB are free", "No space left on device"];
    assert!(words.iter().any(|words| said.contains(words)), "{said}");
    run(Command::new("mount").args(["-o", "remount,size=256m"]).arg(&disk.0), "").done();
    cluster.up_again().done();
    cluster.kubectl(&["get", "nodes"]).done();
    cluster.reeve(&["down", "--purge", "--name", &cluster.name]).done();
    assert_no_trace(&cluster);
    drop(disk);
    std::fs::remove_dir(cluster.data_dir()).expect("the mount point is empty");
}

#[test]
fn a_machine_that_lacks_something_is_told_what() {
    let cluster = Cluster::prepare("lacking");
    // In a mount namespace of its own the machine's cgroups can be taken away.
    let mut without_cgroups = cluster.command("unshare");
    without_cgroups.args(["--mount", "sh", "-c", "umount --recursive --lazy /sys/fs/cgroup && exec \"$@\"", "sh"]);
    let up = cluster.up_command();
    without_cgroups.arg(up.get_program()).args(up.get_args());
    let said = run(&mut without_cgroups, "").refused();
    assert!(said.contains("no cgroup file system is mounted"), "{said}");
    let mut without_mounts = cluster.command("setpriv");
    without_mounts.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    without_mounts.arg(up.get_program()).args(up.get_args());
    let said = run(&mut without_mounts, "").refused();
    assert!(said.contains("CAP_SYS_ADMIN is missing"), "{said}");
    assert_no_trace(&cluster);
}
