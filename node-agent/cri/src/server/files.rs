//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a sandbox: every container sees them that brings none of
//! its own. The kubelet brings its own hosts file, and no others. And the node's folders that a container sees.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use reeve_engine::engine::{Mount, SandboxConfig};
use reeve_proto::cri::DnsConfig;

/// What stands in a hosts file before anything else.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Folder of a sandbox's files.
pub(super) fn dir(root: &Path, sandbox: &str) -> PathBuf {
    root.join("sandboxes").join(sandbox)
}

/// Writes them. On the node's network they are the node's.
pub(super) fn write(
    dir: &Path,
    config: &SandboxConfig,
    dns: Option<&DnsConfig>,
    address: Option<&str>,
) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let node = |path: &str| match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    };
    let hosts = if config.host_network { node("/etc/hosts")? } else { hosts(&config.hostname, address) };
    let resolv_conf = match dns {
        Some(dns) => resolv_conf(dns),
        None => node("/etc/resolv.conf")?,
    };
    for (name, text) in NAMES.into_iter().zip([hosts, format!("{}\n", config.hostname), resolv_conf]) {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

fn hosts(hostname: &str, address: Option<&str>) -> String {
    let own = address.map(|address| format!("{address}\t{hostname}\n")).unwrap_or_default();
    format!("{HOSTS}{own}")
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// Shows them in a container, where it shows nothing itself.
pub(super) fn add_mounts(dir: &Path, mounts: &mut Vec<Mount>, read_only: bool) {
    for name in NAMES {
        let (source, target) = (dir.join(name), Path::new("/etc").join(name));
        if source.exists() && !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(Mount { source, target, read_only, ..Mount::default() });
        }
    }
}

/// Makes the folders of the node that a container is to see and that are not there: who has a `hostPath` volume of no
/// type counts on the runtime for it.
pub(super) fn make_sources(mounts: &[Mount]) -> Result<(), String> {
    for path in mounts.iter().map(|mount| &mount.source) {
        if path.as_os_str().is_empty() || path.exists() {
            continue;
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(|error| format!("failed to mkdir {:?}: {error}", path.display().to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_sees_its_pods_files_unless_it_brings_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let config = SandboxConfig { hostname: "web-0".to_owned(), ..SandboxConfig::default() };
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".to_owned()],
            searches: vec!["a.svc".to_owned(), "svc".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        write(dir.path(), &config, Some(&dns), Some("10.1.2.3")).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("hosts").ends_with("10.1.2.3\tweb-0\n"));
        assert_eq!(read("resolv.conf"), "search a.svc svc\nnameserver 10.0.0.10\noptions ndots:5\n");
        let mut mounts = vec![Mount { target: "/etc/hosts".into(), ..Mount::default() }];
        add_mounts(dir.path(), &mut mounts, true);
        let targets: Vec<_> = mounts.iter().map(|mount| mount.target.to_string_lossy().into_owned()).collect();
        assert_eq!(targets, ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
    }

    #[test]
    fn a_folder_of_the_node_that_is_not_there_is_made_and_a_link_that_leads_nowhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let of = |source: &Path| [Mount { source: source.to_owned(), ..Mount::default() }];
        let missing = dir.path().join("a/b");
        make_sources(&of(&missing)).unwrap();
        assert!(missing.is_dir());
        make_sources(&of(&missing)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        let refused = make_sources(&of(&link)).unwrap_err();
        assert!(refused.starts_with(&format!("failed to mkdir \"{}\": ", link.display())), "{refused}");
    }
}
