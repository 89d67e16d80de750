//! Under sudo the invoking user's kubeconfig is written, with no more rights than theirs.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use reeve_tests::cluster::Cluster;
use reeve_tests::command::{Run, run};

/// Every system's user nobody.
const NOBODY: u32 = 65534;

/// `reeve VERB …` as `sudo` starts it for nobody, with that kubeconfig.
fn under_sudo(cluster: &Cluster, mut command: std::process::Command, kubeconfig: &Path) -> Run {
    command.env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string()).env("SUDO_USER", "nobody");
    command.env("KUBECONFIG", kubeconfig).current_dir(cluster.home());
    run(&mut command, "")
}

#[test]
fn under_sudo_the_users_file_is_written_and_no_link_of_theirs_leads_root_astray() {
    let cluster = Cluster::prepare("sudo");
    // A home that belongs to the user, in a folder that they may enter.
    std::fs::set_permissions(cluster.home(), std::fs::Permissions::from_mode(0o755)).expect("an open folder");
    let theirs = cluster.home().join("theirs");
    std::fs::create_dir(&theirs).expect("a folder");
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("it is theirs");
    let config = theirs.join("kube/config");
    under_sudo(&cluster, cluster.up_command(), &config).done();
    let meta = std::fs::metadata(&config).expect("their kubeconfig");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (NOBODY, NOBODY, 0o600));
    assert_eq!(std::fs::metadata(theirs.join("kube")).expect("its folder").uid(), NOBODY);

    // A link to what is root's, in place of the file and in place of its folder.
    let secret = cluster.home().join("secret");
    std::fs::write(&secret, "apiVersion: v1\n").expect("a file of root's");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("closed");
    std::fs::remove_file(&config).expect("the file goes");
    symlink(&secret, &config).expect("a link");
    let said = under_sudo(&cluster, cluster.up_command(), &config).refused();
    assert!(said.contains("ermission denied"), "{said}");
    let roots = cluster.home().join("roots");
    std::fs::create_dir(&roots).expect("a folder of root's");
    symlink(&roots, theirs.join("elsewhere")).expect("a link");
    let said = under_sudo(&cluster, cluster.up_command(), &theirs.join("elsewhere/config")).refused();
    assert!(said.contains("ermission denied"), "{said}");
    assert_eq!(std::fs::read_to_string(&secret).expect("the file"), "apiVersion: v1\n");
    assert_eq!(std::fs::metadata(&secret).expect("the file").uid(), 0);
    assert_eq!(std::fs::read_dir(&roots).expect("the folder").count(), 0);

    // A link of theirs to a file of theirs stays a link.
    std::fs::remove_file(&config).expect("the link goes");
    let real = theirs.join("dotfiles");
    symlink(&real, &config).expect("a link");
    std::fs::write(&real, "").expect("a file");
    chown(&real, Some(NOBODY), Some(NOBODY)).expect("it is theirs");
    under_sudo(&cluster, cluster.up_command(), &config).done();
    assert!(config.is_symlink() && std::fs::read_to_string(&real).expect("the file").contains(&cluster.name));
    under_sudo(&cluster, cluster.down_command(true), &config).done();
    assert!(!std::fs::read_to_string(&real).expect("the file").contains(&cluster.name));
}
