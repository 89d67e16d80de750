//! The same script with the real kubectl and with `reeve`: the same words, the same bytes, the same exit codes.
//!
//! What only reads is asked of one server by both programs, byte for byte. What writes goes to a server each, and
//! what differs by nature (UIDs, times) is left out. Our words are those of kubectl 1.36; where an older kubectl says
//! something else, the step says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::process::Output;

use support::{Cluster, has_kubectl};

const REEVE: &str = env!("CARGO_BIN_EXE_reeve");

/// Two clusters that go through the same, one by each program, and what was different.
struct Pair {
    kubectl: Cluster,
    reeve: Cluster,
    differences: Vec<String>,
}

impl Pair {
    async fn start() -> Self {
        let pair = Self { kubectl: Cluster::start().await, reeve: Cluster::start().await, differences: Vec::new() };
        // What the controller manager would have made.
        for cluster in [&pair.kubectl, &pair.reeve] {
            cluster.run("kubectl", &["create", "serviceaccount", "default"]);
        }
        pair
    }

    fn file(&self, name: &str, text: &str) {
        self.bytes(name, text.as_bytes());
    }

    fn bytes(&self, name: &str, bytes: &[u8]) {
        self.kubectl.write(name, bytes);
        self.reeve.write(name, bytes);
    }

    fn differ(&mut self, line: &str, what: &str, expected: &str, found: &str) {
        self.differences.push(format!("--- {line} ({what})\nkubectl: {expected:?}\nreeve:   {found:?}\n"));
    }

    fn compare(&mut self, line: &str, expected: &Output, found: &Output, normal: impl Fn(&str) -> String) {
        let text = |bytes: &[u8]| normal(&String::from_utf8_lossy(bytes));
        if text(&expected.stdout) != text(&found.stdout) {
            self.differ(line, "output", &text(&expected.stdout), &text(&found.stdout));
        }
        if text(&expected.stderr) != text(&found.stderr) {
            self.differ(line, "errors", &text(&expected.stderr), &text(&found.stderr));
        }
        if expected.status.code() != found.status.code() {
            self.differ(line, "exit code", &expected.status.to_string(), &found.status.to_string());
        }
    }

    /// Both programs do the same to a cluster each.
    fn both(&mut self, line: &str) {
        let words: Vec<&str> = words(line);
        let expected = self.kubectl.run("kubectl", &words);
        let found = self.reeve.run(REEVE, &words);
        self.compare(line, &expected, &found, settled);
    }

    /// Both programs ask the same cluster. Ages may change meanwhile: then both are asked again.
    fn read(&mut self, line: &str) {
        let words: Vec<&str> = words(line);
        for last in [false, false, true] {
            let expected = self.kubectl.run("kubectl", &words);
            let found = self.kubectl.run(REEVE, &words);
            if last || (expected.stdout == found.stdout && expected.stderr == found.stderr) {
                return self.compare(line, &expected, &found, aged);
            }
        }
    }

    #[track_caller]
    fn finish(self) {
        let all = self.differences.join("\n");
        assert!(all.is_empty(), "{} differences:\n{all}", self.differences.len());
    }
}

/// Words of a command line; what stands between single quotes is one.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    words.collect()
}

/// Without what no two clusters have in common, and without what kubectl 1.34 stopped to print.
fn settled(text: &str) -> String {
    let varies = [
        "creationTimestamp:",
        "uid:",
        "resourceVersion:",
        "clusterIP:",
        "kubectl.kubernetes.io/restartedAt:",
        "reeve.kubernetes.io/restartedAt:",
        "  - 10.96.",
        "nodePort:",
        "targetPort:",
    ];
    let lines = text.lines().filter(|line| {
        !line.contains("kube-api-access-")
            && !varies
                .iter()
                .any(|own| line.trim_start_matches([' ', '-']).starts_with(own.trim_start_matches([' ', '-'])))
    });
    own_name(&lines.map(|line| format!("{line}\n")).collect::<String>())
}

/// Without lines that `describe` of kubectl 1.36 prints and older ones print otherwise or not at all: what of a
/// projected volume is optional, a port's application protocol, the version of kube-proxy.
fn aged(text: &str) -> String {
    let changed = ["Optional:  ", "ConfigMapOptional:", "SecretOptionalName:", "AppProtocol:", "Kube-Proxy Version:"];
    let kept = |line: &&str| !changed.iter().any(|own| line.trim_start().starts_with(own));
    let ending = if text.ends_with('\n') { "\n" } else { "" };
    own_name(&format!("{}{ending}", text.lines().filter(kept).collect::<Vec<_>>().join("\n")))
}

/// Each program calls itself by its own name; kubectl's log lines are its own.
fn own_name(text: &str) -> String {
    let said = text.lines().filter(|line| !line.starts_with('E') || !line.contains("memcache.go"));
    let said: Vec<&str> = said.collect();
    let ending = if text.ends_with('\n') { "\n" } else { "" };
    let text = format!("{}{ending}", said.join("\n")).replace("kubectl", "reeve");
    // Ours names the column, too, where a text does not parse.
    match text.split_once(", column ") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => text,
    }
}

const ODD: &[&str] = &[
    "",
    " ",
    "a",
    "yes",
    "No",
    "TRUE",
    "null",
    "~",
    "1",
    "-1.5",
    "1e3",
    "0x1f",
    "0o7",
    "012",
    "2026-01-01",
    "12:30",
    "2026-01-01T00:00:00Z",
    "y",
    "n",
    "=",
    "<<",
    "a: b",
    "a:b",
    "- a",
    "-",
    "--",
    "---",
    "#x",
    "a #b",
    "a#b",
    "{a}",
    "[a]",
    "@x",
    "`x",
    "%x",
    "a:",
    " a",
    "a ",
    "'a'",
    "\"a\"",
    "a'b",
    "\\",
    "a\nb",
    "a\nb\n",
    "a\n\nb\n\n",
    "\n",
    "\n\n",
    "\na",
    " a\nb",
    "a \nb",
    "a\n b",
    "a\n  b\n",
    "\ta",
    "a\tb",
    "a\tb\nc",
    "a\r\nb",
    "é",
    "日本語",
    "😀",
    "\u{a0}",
    "\u{1}",
    "?",
    "? a",
    "?a",
    "!a",
    "&a",
    "*a",
    "|",
    ">",
    "| a",
    ".5",
    "5.",
    "+1",
    "1_000",
    "0b1",
    ".inf",
    "-.INF",
    ".nan",
    "1,2",
    "a,b",
    "on",
    "Off",
    "NULL",
    "True",
    "nUll",
    "1.2.3",
    "1:2:3",
    "-1:30",
    "0x",
    "1e",
    "e1",
    "1.5e+3",
    "1Gi",
    "100m",
    "http://x:1/y?z=a&b#c",
    "a\\nb",
    "...",
    "..",
    "x: |",
    "long words go on and on until the line is too long for the emitter and has to be folded somewhere here",
    "two  spaces  in a text that is so long that it has to be folded somewhere near the eightieth column  of it all",
    "long: words go on and on until the line is too long for the emitter and has to be folded somewhere here: yes",
    "a\nlong words go on and on until the line is too long for the emitter but nothing is folded in a literal text\n",
    "nospacesatallinaverylongtextthatcannotbefoldedanywhereatallbecausethereisnospaceinitnotevenasingleone-really",
    "long \u{1} words go on and on until the line is too long for the emitter and has to be folded somewhere here too",
];

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_printed_alike_in_every_form() {
    if !has_kubectl() {
        return;
    }
    let mut pair = Pair::start().await;
    let data: serde_json::Map<String, serde_json::Value> =
        ODD.iter().enumerate().map(|(index, text)| (format!("k{index}"), (*text).into())).collect();
    let mut odd =
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd"}, "data": data});
    let notes = ODD.iter().enumerate().map(|(index, text)| (format!("n{index}"), (*text).into()));
    odd["metadata"]["annotations"] = notes.collect::<serde_json::Map<_, _>>().into();
    pair.file("odd.json", &odd.to_string());
    pair.both("create -f odd.json");
    pair.both("create deployment web --image=web:1 --port=80 --replicas=2 -- serve --all");
    pair.both("expose deployment web --port=80 --type=NodePort");
    pair.both("run one --image=one -- a b");
    for form in ["yaml", "json", "name", "wide", ""] {
        let form = if form.is_empty() { String::new() } else { format!("-o {form}") };
        for what in
            ["cm odd", "cm", "deploy", "deploy web", "svc,cm", "deploy/web svc/web", "pods", "all", "ns", "sa -A"]
        {
            pair.read(&format!("get {what} {form}"));
        }
    }
    for line in [
        "get cm odd -o 'jsonpath={.data.k3}'",
        "get cm odd -o 'jsonpath={.data}'",
        "get cm odd -o 'jsonpath={.nope}'",
        "get svc -o 'jsonpath={range .items[*]}{.metadata.name}{\"\\t\"}{.spec.ports[*].port}{\"\\n\"}{end}'",
        "get pods -o 'jsonpath={.items[?(@.metadata.name==\"one\")].spec.containers[0].args}'",
        "get pods -o 'jsonpath-as-json={.items[*].metadata.name}'",
        "get svc -o 'custom-columns=N:.metadata.name,P:.spec.ports[*].port,X:.nope'",
        "get deploy --show-labels",
        "get deploy -L app,nope",
        "get deploy -l app=web",
        "get deploy -l app!=web",
        "get deploy,svc --no-headers",
        "get cm --field-selector metadata.name=odd",
        "get svc --sort-by=.metadata.name",
        "get svc --sort-by=.spec.clusterIP -o name",
        "get cm nope --ignore-not-found",
        "get --raw /version",
        "api-resources",
        "api-resources -o name",
        "api-resources --namespaced=false",
        "api-versions",
    ] {
        pair.read(line);
    }
    pair.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_described_and_explained_alike() {
    if !has_kubectl() {
        return;
    }
    let mut pair = Pair::start().await;
    pair.file("pod.yaml", POD);
    for line in [
        "create -f pod.yaml",
        "create deployment web --image=web:1 --port=80",
        "expose deployment web --type=NodePort --port=80",
        "create configmap settings --from-literal=a=b --from-literal=c=d",
        "create secret generic s --from-literal=a=b",
        "label deploy web tier=front",
    ] {
        pair.both(line);
    }
    pair.file("more.yaml", MORE);
    pair.both("create -f more.yaml");
    for what in [
        "svc web",
        "svc named",
        "cm settings",
        "secret s",
        "ns default",
        "sa default",
        "pod full",
        "deploy web",
        "rs set",
        "node",
        "ep hand",
        "endpointslice hand",
    ] {
        pair.read(&format!("describe {what}"));
    }
    pair.read("describe pod nope");
    for what in
        ["pod", "deploy", "svc", "cm", "secret", "node", "ns", "sa", "rs", "lease", "endpointslice", "events", "ep"]
    {
        pair.read(&format!("explain {what}"));
        pair.read(&format!("explain {what} --recursive"));
    }
    for what in [
        "pod.spec",
        "pod.spec.containers",
        "deployment.spec.strategy",
        "pod.spec.containers.imagePullPolicy",
        "pod.spec.nodeSelector",
        "pod.metadata.creationTimestamp",
        "svc.spec",
        "deployments.apps.spec.template.spec.volumes",
        "pod.nope",
        "nope",
        "pod.status",
        "node.status",
        "pod.metadata",
        "pod.spec.containers.livenessProbe.httpGet.port",
        "pod.spec.affinity",
        "pod.spec.containers.securityContext",
    ] {
        pair.read(&format!("explain {what}"));
    }
    pair.finish();
}

const MORE: &str = r#"apiVersion: v1
kind: Node
metadata:
  name: worker
  labels: {node-role.kubernetes.io/edge: "", kubernetes.io/os: linux}
  annotations: {long: "a note of two\nlines"}
spec: {podCIDR: 10.9.0.0/24, podCIDRs: [10.9.0.0/24], taints: [{key: b, effect: NoSchedule}, {key: a, value: c, effect: NoSchedule}]}
status:
  capacity: {cpu: "2", memory: 1Gi, pods: "10", x.io/gpu: "1"}
  addresses: [{type: InternalIP, address: 10.0.0.1}]
  conditions: [{type: Ready, status: "True", reason: R, message: is ready, lastHeartbeatTime: "2026-01-01T00:00:00Z", lastTransitionTime: "2026-01-01T00:00:00Z"}]
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec:
  selector: {app: a, tier: b}
  sessionAffinity: ClientIP
  externalIPs: [10.1.1.1]
  ports: [{name: a, port: 80, targetPort: web, appProtocol: x.io/y}, {name: b, port: 81}]
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: set}
spec:
  replicas: 2
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}, annotations: {note: hello}}
    spec:
      priorityClassName: system-node-critical
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: set}}}]
      initContainers: [{name: first, image: first:1}]
      containers:
      - name: main
        image: main:1
        command: [sh, -c, "echo a\necho b"]
        env:
        - {name: TWO, value: "a\nb"}
        - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
        envFrom: [{prefix: P_, secretRef: {name: s, optional: true}}]
        volumeMounts: [{name: d, mountPath: /z, subPath: x}, {name: t, mountPath: /a}]
      volumes:
      - {name: d, downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}
      - {name: t, projected: {sources: [{secret: {name: s}}, {configMap: {name: c, optional: true}}, {serviceAccountToken: {path: t}}]}}
      - {name: p, persistentVolumeClaim: {claimName: c}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: hand}
subsets: [{addresses: [{ip: 10.2.0.1}, {ip: 10.2.0.2}], ports: [{port: 80}, {name: b, port: 81}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: hand}
addressType: IPv4
ports: [{name: a, port: 80}]
endpoints: [{addresses: [10.2.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: p}}, {addresses: [10.2.0.2]}]
"#;

const POD: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: full
  labels: {app: full, tier: back}
  annotations: {note: hello}
spec:
  nodeSelector: {disk: ssd}
  tolerations: [{key: a, operator: Exists, effect: NoSchedule}, {key: b, value: c}]
  initContainers: [{name: init, image: init:1, command: [sh, -c, "true"]}]
  containers:
  - name: main
    image: main:1
    args: ["--all"]
    ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]
    env:
    - {name: A, value: b}
    - {name: P, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: S, valueFrom: {secretKeyRef: {name: s, key: a}}}
    - {name: C, valueFrom: {configMapKeyRef: {name: settings, key: a, optional: true}}}
    envFrom: [{configMapRef: {name: settings}}]
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
    readinessProbe: {httpGet: {path: /ready, port: 80}, initialDelaySeconds: 3}
    livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 7}
    startupProbe: {exec: {command: [test, -f, /x]}}
    volumeMounts: [{name: config, mountPath: /config, readOnly: true}, {name: scratch, mountPath: /tmp}]
  volumes:
  - {name: config, configMap: {name: settings, items: [{key: a, path: b}]}}
  - {name: scratch, emptyDir: {sizeLimit: 1Gi}}
  - {name: secret, secret: {secretName: s}}
  - {name: host, hostPath: {path: /etc, type: Directory}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn writing_says_the_same_and_leaves_the_same() {
    if !has_kubectl() {
        return;
    }
    let mut pair = Pair::start().await;
    pair.file("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: 'y'\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n");
    pair.file("a2.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {l: m}\ndata:\n  z: '1'\n");
    pair.file("values", "A=1\n# no\nB=x y\n");
    pair.bytes("binary", &[0xff, 0xfe, 0]);
    pair.file("text", "hello\n");
    for line in WRITES {
        pair.both(line);
    }
    for line in ["get cm,secret,deploy,svc,pods,sa,ns -o yaml", "get cm a -o yaml", "get deploy web -o yaml"] {
        pair.both(line);
    }
    pair.finish();
}

const WRITES: &[&str] = &[
    "replace -f a.yaml",
    "create cm a",
    "replace -f a.yaml --dry-run=server",
    "replace -f a.yaml -o name --save-config",
    "replace -f a2.yaml",
    "replace",
    "get cm a -o yaml",
    "delete cm a --ignore-not-found",
    "delete cm b --ignore-not-found",
    "run over --image=i:1 --overrides={\"spec\":{\"hostNetwork\":true}} --dry-run=client -o yaml",
    "apply -f a.yaml --dry-run=client",
    "apply -f a.yaml --dry-run=server",
    "apply -f a.yaml",
    "apply -f a.yaml",
    "apply -f a2.yaml",
    "apply -f a2.yaml -o name",
    "apply -f a2.yaml -o yaml",
    "create -f a.yaml",
    "create ns team",
    "create ns team --dry-run=client -o yaml",
    "create ns",
    "create cm c --from-literal=x=y --from-literal=z=",
    "create cm c",
    "create cm d --from-env-file=values -o yaml",
    "create cm e --from-file=binary --from-file=k=text --dry-run=client -o yaml -n team",
    "create cm f --from-literal=x",
    "create cm f --from-literal=x=1 --from-literal=x=2",
    "create cm f '--from-literal=a b=c'",
    "create cm f --from-file=nope",
    "create cm f --from-file=text=text=text",
    "create cm f g",
    "create secret generic s --from-literal=a=b --from-file=text -o yaml",
    "create secret generic s",
    "create secret docker-registry reg --docker-username=u --docker-password=p --docker-email=e -o yaml",
    "create secret docker-registry reg2 --docker-username=u",
    "create secret tls t",
    "create secret tls t --cert=text --key=text",
    "create deployment web --image=reg:5000/web:1 --image=db@sha256:0 --replicas=3 --port=80 --dry-run=client -o yaml",
    "create deployment web --image=web:1 --replicas=3 --port=80",
    "create deployment web --image=web:1",
    "create deployment x --image=a --image=b -- sh",
    "create service clusterip one --tcp=80:8080 --tcp=443",
    "create service clusterip two",
    "create service clusterip two --clusterip=None",
    "create service nodeport three --tcp=80:http",
    "create service externalname four --external-name=a.b",
    "create service clusterip five --tcp=foo",
    "create sa robot",
    "create sa robot",
    "create token nope",
    "expose deploy web",
    "expose deploy web",
    "expose deploy web --port=80,81 --name=web2 --target-port=http --type=NodePort -o yaml --dry-run=client",
    "expose cm a",
    "expose deploy nope",
    "run p --image=p --env=A=b --labels=x=y --port=80 --dry-run=client -o yaml -- a b",
    "run p --image=p --command --restart=Never -- a b",
    "run p --image=p",
    "run q --image=p --restart=Foo",
    "run q '--image=a b'",
    "run q --image=p --expose",
    "run q --image=p --expose --port=80",
    "label cm a",
    "label cm a t=1",
    "label cm a t=1",
    "label cm a t=2",
    "label cm a t=2 --overwrite",
    "label cm a t-",
    "label cm a l=m",
    // With one label only: kubectl lists several in no order.
    "label cm a --list",
    "label cm --all all=1",
    "label cm a t=1 nope",
    "label cm a t=1 t-",
    "label cm nope t=1",
    "label cm a t=3 --dry-run=server",
    "annotate cm a",
    "annotate cm a t=1",
    "annotate cm a t=2",
    "annotate cm a t-",
    "patch cm a",
    "patch cm a -p '{\"data\":{\"x\":\"z\"}}'",
    "patch cm a -p '{\"data\":{\"x\":\"z\"}}'",
    "patch cm a -p 'data: {x: q}'",
    "patch cm a --type=merge -p '{\"data\":{\"x\":null}}'",
    "patch cm a --type=json -p '[{\"op\":\"add\",\"path\":\"/data/n\",\"value\":\"1\"}]'",
    "patch cm a --type=json -p '[{\"op\":\"remove\",\"path\":\"/data/nope\"}]'",
    "patch cm a --type=foo -p '{}'",
    "patch cm nope -p '{}'",
    "patch cm a -p '{\"data\":{\"x\":1}}'",
    "patch deploy web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":1}}'",
    "scale deploy web --replicas=2",
    "scale deploy nope --replicas=2",
    "scale deploy web --replicas=2 --current-replicas=7",
    "set image deploy/web web=web:2",
    "set image deploy/web nope=web:2",
    "set image deploy/web '*=web:3'",
    "rollout pause deploy web",
    "rollout pause deploy web",
    "rollout resume deploy web",
    "rollout restart deploy web -o name",
    "rollout history deploy web",
    "cordon nope",
    "cordon",
    "delete cm b",
    "delete cm b",
    "delete cm b --ignore-not-found",
    "delete cm/c cm/d",
    "delete cm -l all=1 --dry-run=client",
    "delete svc one -o name",
    "delete -f a.yaml --ignore-not-found",
    "delete cm",
    "delete nope x",
    "delete pod p --force --grace-period=0",
];

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_the_same_words() {
    if !has_kubectl() {
        return;
    }
    let mut pair = Pair::start().await;
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
    for (name, text) in [
        ("broken.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a: b\n".to_owned()),
        ("tab.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n".to_owned()),
        ("kindless.yaml", "apiVersion: v1\nmetadata:\n  name: a\n".to_owned()),
        ("versionless.yaml", "kind: ConfigMap\nmetadata:\n  name: a\n".to_owned()),
        ("unknown.yaml", "apiVersion: example.org/v1\nkind: Thing\nmetadata:\n  name: a\n".to_owned()),
        ("field.yaml", format!("{config}dat: {{a: b}}\n")),
        ("typed.yaml", format!("{config}data: {{a: 1}}\n")),
        ("name.yaml", config.replace("name: a", "name: A_b")),
        ("nameless.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n".to_owned()),
        ("elsewhere.yaml", config.replace("name: a", "name: a\n  namespace: other")),
        ("deploy.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {c: d}}\n    spec:\n      containers: [{name: c}]\n".to_owned()),
        ("empty.yaml", "---\n# nothing\n".to_owned()),
    ] {
        pair.file(name, &text);
        // kubectl asks for OpenAPI v2 when it does not know a group; kinds are what is tested here.
        let lenient = if name == "unknown.yaml" { " --validate=false" } else { "" };
        for verb in ["create", "apply"] {
            pair.both(&format!("{verb} -f {name}{lenient}"));
        }
    }
    for line in MISTAKES {
        pair.both(line);
    }
    pair.finish();
}

const MISTAKES: &[&str] = &[
    "get nope",
    "get nope x",
    "get cm nope",
    "get cm nope nada",
    "get cm/nope svc/nada",
    "get cm nope -o yaml",
    "get pods",
    "get pods -A",
    "get pods -o yaml",
    "get pods -o name",
    "get pods -n nowhere",
    "get cm -o 'jsonpath={.x'",
    "get cm a/b/c",
    "get cm cm/a",
    "get cm x -A",
    "get",
    "get cm -l 'a=='",
    "get cm --field-selector=data.x=y",
    "describe cm nope",
    "describe nope",
    "describe pods",
    "delete cm nope",
    "delete cm nope nada",
    "create -f nope.yaml",
    "apply -f nope.yaml",
    "apply",
    "create",
    "apply -f elsewhere.yaml -n third",
    "scale deploy nope --replicas=1",
    "scale deploy --replicas=1",
    "logs nope",
    "exec nope -- ls",
    "rollout status deploy nope",
    "rollout status cm nope",
    "rollout undo deploy nope",
    "wait --for=condition=Ready pod/nope --timeout=1s",
    "explain nope",
    "explain",
    "events",
    "cluster-info --context=nope",
    "config use-context nope",
    "config current-context",
    "config get-contexts -o name",
    "config get-contexts nope",
    "config set-context --current --namespace=team",
    "config get-contexts",
    "config use-context test",
    "get cm -o name",
];
