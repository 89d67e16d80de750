//! A namespace of a test's own on a cluster: tests that share a cluster do not see each other.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::command::{Run, run};
use crate::patience::patience;
use crate::processes::{self, Process};

/// A namespace; deleted in the background at the end of the test.
#[derive(Debug)]
pub struct Space<'cluster> {
    /// Where it is.
    pub cluster: &'cluster Cluster,
    /// What it is called.
    pub name: String,
}

impl<'cluster> Space<'cluster> {
    pub(crate) fn new(cluster: &'cluster Cluster, name: &str) -> Self {
        cluster.kubectl(&["create", "namespace", name]).done();
        Self { cluster, name: name.to_owned() }
    }

    /// `kubectl -n NAMESPACE ARGS`
    #[must_use]
    pub fn kubectl(&self, args: &[&str]) -> Run {
        self.kubectl_with(args, "")
    }

    /// The same with standard input.
    #[must_use]
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Run {
        let mut all = vec!["-n", &self.name];
        all.extend(args);
        self.cluster.kubectl_with(&all, stdin)
    }

    /// `kubectl apply -f -`
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        self.kubectl_with(&["apply", "-f", "-"], yaml).done();
    }

    /// `kubectl get WHAT -o jsonpath=PATH`; empty when there is no such object.
    #[must_use]
    pub fn get(&self, what: &str, path: &str) -> String {
        self.kubectl(&["get", what, "--ignore-not-found", "-o", &format!("jsonpath={path}")]).stdout
    }

    /// The object.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn object(&self, what: &str) -> Value {
        let text = self.kubectl(&["get", what, "-o", "json"]).text();
        serde_json::from_str(&text).expect("JSON")
    }

    /// `kubectl wait WHAT --for=CONDITION`: `condition=Ready`, `delete`, `jsonpath={.status.phase}=Running`.
    ///
    /// # Panics
    /// When it does not come true, with what there is.
    #[track_caller]
    #[allow(clippy::panic, reason = "the failure of the calling test")]
    pub fn wait(&self, what: &str, condition: &str) {
        let timeout = format!("--timeout={}s", patience().as_secs());
        let waited = self.kubectl(&["wait", what, &format!("--for={condition}"), &timeout]);
        if waited.code != 0 {
            let shown = self.kubectl(&["describe", what]).stdout;
            panic!("{waited}\n--- describe\n{shown}\n--- log\n{}", self.cluster.log_tail());
        }
    }

    /// Waits until the pod is ready.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn ready(&self, pod: &str) {
        self.wait(&format!("pod/{pod}"), "condition=Ready");
    }

    /// Waits until the Deployment has rolled out.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    #[allow(clippy::panic, reason = "the failure of the calling test")]
    pub fn rolled_out(&self, deployment: &str) {
        let timeout = format!("--timeout={}s", patience().as_secs());
        let waited = self.kubectl(&["rollout", "status", &format!("deployment/{deployment}"), &timeout]);
        if waited.code != 0 {
            let shown = self.kubectl(&["describe", "deployments,replicasets,pods"]).stdout;
            panic!("{waited}\n--- describe\n{shown}\n--- log\n{}", self.cluster.log_tail());
        }
    }

    /// What a shell script in the pod's first container prints. It may be run again; see below.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn sh(&self, pod: &str, script: &str) -> String {
        let exec = || self.kubectl(&["exec", pod, "--", "sh", "-c", script]);
        // kubectl before 1.34 reads messages while it still makes its streams, and drops those it has none for: on a busy
        // machine the output may be among them. It says so; the script has run.
        let is_whole = |ran: &Run| !ran.stderr.contains("Unknown stream id");
        (0..3).map(|_| exec()).find(is_whole).unwrap_or_else(exec).text()
    }

    /// Runs a program of this machine as if it were in the pod: in its network, with its resolver configuration.
    ///
    /// # Panics
    /// When the pod does not run.
    #[track_caller]
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn beside(&self, pod: &str, program: &[&str]) -> Run {
        let pid = self.processes(pod).first().map(|process| process.pid).expect("a process of the pod");
        // A copy: `mount` would take the path through /proc for the machine's own file.
        let resolv_conf = std::fs::read(format!("/proc/{pid}/root/etc/resolv.conf")).expect("the pod's resolv.conf");
        let copy = self.cluster.home().join(format!("resolv.conf.{pid}"));
        std::fs::write(&copy, resolv_conf).expect("a copy of it");
        let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec nsenter --net=/proc/$0/ns/net \"$@\"";
        let mut command = self.cluster.command("unshare");
        command.args(["--mount", "sh", "-c", script, &pid.to_string()]).arg(copy).args(program);
        run(&mut command, "")
    }

    /// The processes of the pod's first container on the machine.
    #[must_use]
    pub fn processes(&self, pod: &str) -> Vec<Process> {
        let id = self.get(&format!("pod/{pod}"), "{.status.containerStatuses[0].containerID}");
        match id.rsplit_once('/') {
            Some((_, id)) if !id.is_empty() => processes::of_container(id),
            _ => Vec::new(),
        }
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}
