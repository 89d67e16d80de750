//! Deployments: roll out, look back, undo, scale, restart, replace.

use reeve_tests::cluster::{Cluster, IMAGE, IMAGE_2};
use reeve_tests::patience::eventually_is;

/// A web server of N replicas that names its version, and ends only when open requests had their time.
pub(crate) fn web(replicas: u32, version: &str, more: &str) -> String {
    let script = "mkdir -p /www && echo $VERSION $HOSTNAME >/www/index.html && trap 'sleep 1; exit 0' TERM; \
                  httpd -f -p 8080 -h /www & wait";
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  {more}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: {IMAGE}
        command: [sh, -c, "{script}"]
        env: [{{name: VERSION, value: {version}}}]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"#
    )
}

#[test]
fn a_deployment_rolls_out_remembers_and_goes_back() {
    let space = Cluster::shared().space("rollout");
    space.apply(&web(2, "one", ""));
    space.rolled_out("web");
    space.kubectl(&["set", "image", "deployment/web", &format!("web={IMAGE_2}")]).done();
    space.rolled_out("web");
    let image = || space.get("deployment/web", "{.spec.template.spec.containers[0].image}");
    assert_eq!(image(), IMAGE_2);
    let history = space.kubectl(&["rollout", "history", "deployment/web"]).text();
    let revisions: Vec<&str> = history.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(revisions.ends_with(&["1", "2"]), "{history}");
    space.kubectl(&["rollout", "undo", "deployment/web"]).done();
    space.rolled_out("web");
    assert_eq!(image(), IMAGE);
    let running = space.get("pods", "{.items[*].spec.containers[0].image}");
    assert!(running.split(' ').any(|own| own == IMAGE), "{running}");

    let before = space.get("pods", "{.items[*].metadata.uid}");
    space.kubectl(&["rollout", "restart", "deployment/web"]).done();
    space.rolled_out("web");
    eventually_is(
        "every pod is a new one",
        || space.get("pods", "{.items[*].metadata.uid}"),
        |now| now.split(' ').count() == 2 && now.split(' ').all(|uid| !before.contains(uid)),
    );

    space.kubectl(&["scale", "deployment/web", "--replicas=4"]).done();
    space.wait("deployment/web", "jsonpath={.status.readyReplicas}=4");
    space.kubectl(&["scale", "deployment/web", "--replicas=0"]).done();
    eventually_is("no pod is left", || space.get("pods", "{.items[*].metadata.name}"), str::is_empty);
}

#[test]
fn recreate_never_runs_two_versions_at_once() {
    let space = Cluster::shared().space("recreate");
    space.apply(&web(2, "one", "strategy: {type: Recreate}"));
    space.rolled_out("web");
    let old = space.get("pods", "{.items[*].metadata.uid}");
    space.apply(&web(2, "two", "strategy: {type: Recreate}"));
    let path = "{range .items[*]}{.metadata.uid}={.status.phase} {end}";
    let seen = eventually_is(
        "a new pod runs",
        || space.get("pods", path),
        |now| {
            now.split_whitespace()
                .any(|pod| pod.ends_with("=Running") && !old.contains(pod.split('=').next().unwrap_or_default()))
        },
    );
    // One that has ended may still be listed: the new ones do not wait until it is removed.
    let mut left = seen.split_whitespace().filter(|pod| !pod.ends_with("=Succeeded") && !pod.ends_with("=Failed"));
    assert!(!left.any(|pod| old.contains(pod.split('=').next().unwrap_or_default())), "{seen}");
    space.rolled_out("web");
}
