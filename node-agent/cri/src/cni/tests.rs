//! Pods wired by plugins that are shell scripts: what they are told, in which order, and what is undone.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Writes what it was told into its folder's log; fails with `ADD` where a file `fail` lies beside it.
const SCRIPT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
config=$(cat)
echo "$CNI_COMMAND $(basename "$0") $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS $config" >> "$dir/log"
if [ "$CNI_COMMAND" = ADD ] && [ -e "$dir/fail-$(basename "$0")" ]; then
    echo '{"cniVersion":"1.0.0","code":11,"msg":"no address","details":"the range is used up"}'; exit 1
fi
if [ "$CNI_COMMAND" = CHECK ] && [ -e "$dir/missing" ]; then
    echo "{\"msg\":\"could not check $(cat "$dir/missing") dnat: chain X not found in iptables table nat\"}"; exit 1
fi
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'
exit 0
"#;

struct Bed {
    dir: tempfile::TempDir,
    cni: Cni,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["net", "last", "portmap"] {
            let path = dir.path().join(name);
            std::fs::write(&path, SCRIPT).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let list = r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [
            {"type": "net"}, {"type": "last", "capabilities": {"portMappings": true}}]}"#;
        std::fs::write(dir.path().join("10-n.conflist"), list).unwrap();
        Self { cni: Self::cni(dir.path()), dir }
    }

    fn cni(dir: &Path) -> Cni {
        let config =
            CniConfig { conf_dir: dir.to_owned(), bin_dirs: vec![dir.to_owned()], record_dir: dir.join("records") };
        Cni::new(config).unwrap()
    }

    async fn attach(&self) -> Result<Arc<[IpAddr]>, CniError> {
        let pod = Pod {
            id: "s1".to_owned(),
            netns: "/proc/self/ns/net".into(),
            args: vec![("IgnoreUnknown", "1".to_owned()), ("K8S_POD_NAME", "web".to_owned())],
            capabilities: [("portMappings".to_owned(), serde_json::json!([{"hostPort": 1}]))].into(),
        };
        self.cni.attach(&pod, self.cni.network().unwrap()).await
    }

    /// Command and plugin of every call.
    fn calls(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }
}

#[tokio::test]
async fn plugins_are_added_in_order_and_deleted_in_reverse_also_in_a_later_life() {
    let bed = Bed::new();
    let addresses = bed.attach().await.unwrap();
    assert_eq!(addresses[..], ["10.9.0.2".parse::<IpAddr>().unwrap()]);
    let log = std::fs::read_to_string(bed.dir.path().join("log")).unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.contains("s1 eth0 IgnoreUnknown=1;K8S_POD_NAME=web"), "{last}");
    assert!(last.contains(r#""runtimeConfig":{"portMappings""#) && last.contains("prevResult"), "{last}");
    // The configuration it was made with counts, whatever stands there now.
    std::fs::remove_file(bed.dir.path().join("10-n.conflist")).unwrap();
    let later = Bed::cni(bed.dir.path());
    assert_eq!(later.addresses("s1").unwrap().unwrap()[..], addresses[..]);
    later.check("s1").await.unwrap();
    later.detach("s1").await.unwrap();
    later.detach("s1").await.unwrap();
    assert_eq!(bed.calls(), ["ADD net", "ADD last", "CHECK net", "CHECK last", "DEL last", "DEL net"]);
    assert_eq!(later.addresses("s1").unwrap(), None);
    assert!(later.recorded().is_empty());
}

#[tokio::test]
async fn a_network_that_fails_half_way_is_taken_back_and_told_in_the_plugins_words() {
    let bed = Bed::new();
    std::fs::write(bed.dir.path().join("fail-last"), "").unwrap();
    let error = bed.attach().await.expect_err("it fails").to_string();
    assert_eq!(error, "plugin type=\"last\" failed (add): no address; the range is used up");
    assert_eq!(bed.calls(), ["ADD net", "ADD last", "DEL last", "DEL net"]);
    assert!(bed.cni.recorded().is_empty());
}

#[tokio::test]
async fn a_pod_without_a_network_is_wired_to_the_end_with_no_address() {
    let bed = Bed::new();
    std::fs::remove_file(bed.dir.path().join("10-n.conflist")).unwrap();
    assert!(bed.attach().await.unwrap().is_empty());
    assert_eq!(bed.cni.addresses("s1").unwrap().map(|addresses| addresses.len()), Some(0));
    bed.cni.detach("s1").await.unwrap();
    assert!(bed.calls().is_empty());
}

#[tokio::test]
async fn rules_of_a_family_that_a_pod_does_not_have_are_not_missed() {
    let bed = Bed::new();
    let list = r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "portmap"}, {"type": "net"}]}"#;
    std::fs::write(bed.dir.path().join("10-n.conflist"), list).unwrap();
    let missing = |family: &str| std::fs::write(bed.dir.path().join("missing"), family).unwrap();
    // What the pod has is IPv4.
    bed.attach().await.unwrap();
    missing("ipv4");
    let error = bed.cni.check("s1").await.expect_err("it is missed").to_string();
    assert_eq!(
        error,
        "plugin type=\"portmap\" failed (check): could not check ipv4 dnat: chain X not found in iptables table nat"
    );
    missing("ipv6");
    let error = bed.cni.check("s1").await.expect_err("net is another plugin").to_string();
    assert!(error.starts_with("plugin type=\"net\" failed (check): could not check ipv6"), "{error}");
    bed.cni.detach("s1").await.unwrap();
}
