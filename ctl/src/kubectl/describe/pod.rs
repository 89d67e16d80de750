//! Pods and pod templates.

use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::text::{Text, at, date, flag, items, plain};
use super::volume::volumes;

/// A pod.
pub(super) fn pod(out: &mut Text, pod: &Value) {
    out.line(0, "Name", at(pod, "/metadata/name"));
    out.line(0, "Namespace", at(pod, "/metadata/namespace"));
    if let Some(priority) = pod.pointer("/spec/priority") {
        out.line(0, "Priority", &plain(priority));
    }
    out.line_if(0, "Priority Class Name", at(pod, "/spec/priorityClassName"));
    out.line_if(0, "Runtime Class Name", at(pod, "/spec/runtimeClassName"));
    out.line_if(0, "Service Account", at(pod, "/spec/serviceAccountName"));
    let node = at(pod, "/spec/nodeName");
    let node = if node.is_empty() { "<none>".to_owned() } else { format!("{node}/{}", at(pod, "/status/hostIP")) };
    out.line(0, "Node", &node);
    let start = at(pod, "/status/startTime");
    if !start.is_empty() {
        out.line(0, "Start Time", &date(start));
    }
    out.pairs(0, "Labels", pod.pointer("/metadata/labels"));
    out.annotations(0, pod);
    status(out, pod);
    seccomp(out, 0, pod.pointer("/spec/securityContext"));
    out.line(0, "IP", at(pod, "/status/podIP"));
    ips(out, pod);
    out.controller(pod);
    out.line_if(0, "NominatedNodeName", at(pod, "/status/nominatedNodeName"));
    if let Some(resources) = pod.pointer("/spec/resources") {
        out.title(0, "Resources");
        amounts(out, 1, resources);
    }
    let statuses = |field: &str| items(pod, &format!("/status/{field}"));
    let init = items(pod, "/spec/initContainers");
    if !init.is_empty() {
        containers(out, "Init Containers", init, statuses("initContainerStatuses"), Some(pod));
    }
    containers(out, "Containers", items(pod, "/spec/containers"), statuses("containerStatuses"), Some(pod));
    let ephemeral = items(pod, "/spec/ephemeralContainers");
    if !ephemeral.is_empty() {
        containers(out, "Ephemeral Containers", ephemeral, statuses("ephemeralContainerStatuses"), Some(pod));
    }
    conditions(out, pod);
    volumes(out, items(pod, "/spec/volumes"));
    out.line(0, "QoS Class", at(pod, "/status/qosClass"));
    out.pairs(0, "Node-Selectors", pod.pointer("/spec/nodeSelector"));
    tolerations(out, items(pod, "/spec/tolerations"));
    spread(out, items(pod, "/spec/topologySpreadConstraints"));
}

/// Readiness gates and conditions: two columns, and no rule under their heads.
fn conditions(out: &mut Text, pod: &Value) {
    let conditions = items(pod, "/status/conditions");
    let gates = items(pod, "/spec/readinessGates");
    if !gates.is_empty() {
        out.raw("Readiness Gates:\n  Type\tStatus\n");
    }
    for gate in gates.iter().map(|gate| at(gate, "/conditionType")) {
        let found = conditions.iter().find(|own| at(own, "/type") == gate).map_or("<none>", |own| at(own, "/status"));
        out.raw(&format!("  {gate} \t{found} \n"));
    }
    if !conditions.is_empty() {
        out.raw("Conditions:\n  Type\tStatus\n");
    }
    for own in conditions {
        out.raw(&format!("  {} \t{} \n", at(own, "/type"), at(own, "/status")));
    }
}

fn seccomp(out: &mut Text, level: usize, context: Option<&Value>) {
    let Some(profile) = context.and_then(|own| own.get("seccompProfile")) else { return };
    out.line(level, "SeccompProfile", at(profile, "/type"));
    if at(profile, "/type") == "Localhost" {
        out.line(if level == 0 { 0 } else { level + 1 }, "LocalhostProfile", at(profile, "/localhostProfile"));
    }
}

fn status(out: &mut Text, pod: &Value) {
    let phase = at(pod, "/status/phase");
    let deleted = at(pod, "/metadata/deletionTimestamp");
    if deleted.is_empty() || matches!(phase, "Failed" | "Succeeded") {
        out.line(0, "Status", phase);
    } else {
        out.line(0, "Status", &format!("Terminating (lasts {})", super::text::age(deleted)));
        let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").map(plain).unwrap_or_default();
        out.line(0, "Termination Grace Period", &format!("{grace}s"));
    }
    out.line_if(0, "Reason", at(pod, "/status/reason"));
    out.line_if(0, "Message", at(pod, "/status/message"));
}

fn ips(out: &mut Text, pod: &Value) {
    let ips = items(pod, "/status/podIPs");
    if ips.is_empty() {
        return out.line(0, "IPs", "<none>");
    }
    out.title(0, "IPs");
    ips.iter().for_each(|ip| out.line(1, "IP", at(ip, "/ip")));
}

/// A pod template, as Deployments show it.
pub(super) fn template(out: &mut Text, template: &Value) {
    out.title(0, "Pod Template");
    let mut inner = Text::default();
    inner.pairs(0, "Labels", template.pointer("/metadata/labels"));
    if template.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(|own| !own.is_empty()) {
        inner.annotations(0, template);
    }
    inner.line_if(0, "Service Account", at(template, "/spec/serviceAccountName"));
    let init = items(template, "/spec/initContainers");
    if !init.is_empty() {
        containers(&mut inner, "Init Containers", init, &[], None);
    }
    containers(&mut inner, "Containers", items(template, "/spec/containers"), &[], None);
    volumes(&mut inner, items(template, "/spec/volumes"));
    spread(&mut inner, items(template, "/spec/topologySpreadConstraints"));
    inner.line_if(0, "Priority Class Name", at(template, "/spec/priorityClassName"));
    inner.pairs(0, "Node-Selectors", template.pointer("/spec/nodeSelector"));
    tolerations(&mut inner, items(template, "/spec/tolerations"));
    // kubectl indents what is inside a template by one space and two, not by two and four.
    inner.finish().lines().for_each(|line| match (line.starts_with("    "), line.starts_with("  ")) {
        (true, _) => out.raw(&format!("{line}\n")),
        (_, true) => out.raw(&format!(" {line}\n")),
        _ => out.raw(&format!("  {line}\n")),
    });
}

/// Containers with their statuses. `pod` is where their variables' fields are looked up; templates have none.
fn containers(out: &mut Text, title: &str, containers: &[Value], statuses: &[Value], pod: Option<&Value>) {
    out.title(0, title);
    for container in containers {
        let name = at(container, "/name");
        let status = statuses.iter().find(|own| at(own, "/name") == name);
        out.title(1, name);
        if let Some(status) = status {
            out.line(2, "Container ID", at(status, "/containerID"));
        }
        out.line(2, "Image", at(container, "/image"));
        if let Some(status) = status {
            out.line(2, "Image ID", at(status, "/imageID"));
        }
        ports(out, container);
        seccomp(out, 2, container.get("securityContext"));
        words(out, "Command", items(container, "/command"));
        words(out, "Args", items(container, "/args"));
        if let Some(status) = status {
            container_status(out, status);
        }
        amounts(out, 2, container.get("resources").unwrap_or(&Value::Null));
        for (title, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if let Some(probe) = container.get(field) {
                out.line(2, title, &probe_text(probe));
            }
        }
        environment(out, container, pod);
        mounts(out, container);
    }
}

fn ports(out: &mut Text, container: &Value) {
    let text = |field: &str| {
        let shown = |port: &Value| {
            let number = port.get(field).map_or_else(|| "0".to_owned(), plain);
            let name = at(port, "/name");
            let label = if name.is_empty() { String::new() } else { format!(" ({name})") };
            format!("{number}/{}{label}", at(port, "/protocol"))
        };
        let all: Vec<String> = items(container, "/ports").iter().map(shown).collect();
        if all.is_empty() { "<none>".to_owned() } else { all.join(", ") }
    };
    let many = items(container, "/ports").len() > 1;
    out.line(2, if many { "Ports" } else { "Port" }, &text("containerPort"));
    out.line(2, if many { "Host Ports" } else { "Host Port" }, &text("hostPort"));
}

fn words(out: &mut Text, title: &str, words: &[Value]) {
    if words.is_empty() {
        return;
    }
    out.title(2, title);
    words.iter().for_each(|word| out.raw(&format!("      {}\n", plain(word).replace('\n', "\n      "))));
}

/// Limits and requests.
fn amounts(out: &mut Text, level: usize, resources: &Value) {
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let all = resources.get(field).and_then(Value::as_object).filter(|all| !all.is_empty());
        if let Some(all) = all {
            out.title(level, title);
            all.iter().for_each(|(name, amount)| out.line(level + 1, name, &plain(amount)));
        }
    }
}

fn container_status(out: &mut Text, status: &Value) {
    state(out, "State", status.get("state"));
    if status.pointer("/lastState/terminated").is_some() {
        state(out, "Last State", status.get("lastState"));
    }
    out.line(2, "Ready", if flag(status, "/ready") { "True" } else { "False" });
    out.line(2, "Restart Count", &status.get("restartCount").map_or_else(|| "0".to_owned(), plain));
}

fn state(out: &mut Text, title: &str, state: Option<&Value>) {
    let own = |name: &str| state.and_then(|state| state.get(name));
    if let Some(running) = own("running") {
        out.line(2, title, "Running");
        out.line(3, "Started", &date(at(running, "/startedAt")));
    } else if let Some(ended) = own("terminated") {
        out.line(2, title, "Terminated");
        out.line_if(3, "Reason", at(ended, "/reason"));
        out.line_if(3, "Message", at(ended, "/message"));
        out.line(3, "Exit Code", &ended.get("exitCode").map_or_else(|| "0".to_owned(), plain));
        if let Some(signal) = ended.get("signal").filter(|signal| signal.as_i64().is_some_and(|signal| signal > 0)) {
            out.line(3, "Signal", &plain(signal));
        }
        out.line(3, "Started", &date(at(ended, "/startedAt")));
        out.line(3, "Finished", &date(at(ended, "/finishedAt")));
    } else {
        out.line(2, title, "Waiting");
        out.line_if(3, "Reason", own("waiting").map_or("", |waiting| at(waiting, "/reason")));
    }
}

fn probe_text(probe: &Value) -> String {
    let number = |field: &str, default: i64| probe.get(field).and_then(Value::as_i64).unwrap_or(default);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    if let Some(exec) = probe.get("exec") {
        let words: Vec<String> = items(exec, "/command").iter().map(plain).collect();
        return format!("exec [{}] {attributes}", words.join(" "));
    }
    if let Some(get) = probe.get("httpGet") {
        let scheme = at(get, "/scheme").to_ascii_lowercase();
        let port = get.get("port").map(plain).unwrap_or_default();
        return format!("http-get {scheme}://{}:{port}{} {attributes}", at(get, "/host"), at(get, "/path"));
    }
    if let Some(socket) = probe.get("tcpSocket") {
        let port = socket.get("port").map(plain).unwrap_or_default();
        return format!("tcp-socket {}:{port} {attributes}", at(socket, "/host"));
    }
    if let Some(grpc) = probe.get("grpc") {
        let port = grpc.get("port").map(plain).unwrap_or_default();
        return format!("grpc <pod>:{port} {} {attributes}", at(grpc, "/service"));
    }
    format!("unknown {attributes}")
}

fn environment(out: &mut Text, container: &Value, pod: Option<&Value>) {
    let from = items(container, "/envFrom");
    if !from.is_empty() {
        out.title(2, "Environment Variables from");
    }
    for own in from {
        let kinds = [("ConfigMap", "configMapRef"), ("Secret", "secretRef")];
        let found = kinds.iter().find_map(|(kind, field)| own.get(field).map(|source| (*kind, source)));
        let (kind, source) = found.unwrap_or(("", &Value::Null));
        let prefix = at(own, "/prefix");
        let prefix = if prefix.is_empty() { String::new() } else { format!(" with prefix '{prefix}'") };
        out.raw(&format!("      {}\t{kind}{prefix}\tOptional: {}\n", at(source, "/name"), flag(source, "/optional")));
    }
    let variables = items(container, "/env");
    if variables.is_empty() {
        return out.line(2, "Environment", "<none>");
    }
    out.title(2, "Environment");
    for variable in variables {
        let name = at(variable, "/name");
        match variable.get("valueFrom") {
            Some(source) => out.line_if(3, name, &source_text(source, container, pod)),
            None => {
                let mut lines = at(variable, "/value").split('\n');
                out.line(3, name, lines.next().unwrap_or_default());
                lines.for_each(|line| out.raw(&format!("      \t{line}\n")));
            }
        }
    }
}

/// Where a variable has its value from, and the value where it is known here.
fn source_text(source: &Value, container: &Value, pod: Option<&Value>) -> String {
    let keyed = |own: &Value, what: &str| {
        let optional = flag(own, "/optional");
        format!("<set to the key '{}' {what} '{}'>\tOptional: {optional}", at(own, "/key"), at(own, "/name"))
    };
    if let Some(own) = source.get("fieldRef") {
        let path = at(own, "/fieldPath");
        // kubectl knows no other fields of a pod.
        let known = matches!(path, "metadata.name" | "metadata.namespace");
        let value = pod.filter(|_| known).map_or("", |pod| at(pod, &format!("/{}", path.replace('.', "/"))));
        return format!("{value} ({}:{path})", at(own, "/apiVersion"));
    }
    if let Some(own) = source.get("resourceFieldRef") {
        let resource = at(own, "/resource");
        let value = match amount_of(own, container) {
            Some(0) if matches!(resource, "limits.cpu" | "limits.memory") => "node allocatable".to_owned(),
            Some(amount) => amount.to_string(),
            None => String::new(),
        };
        return format!("{value} ({resource})");
    }
    if let Some(own) = source.get("secretKeyRef") {
        return keyed(own, "in secret");
    }
    if let Some(own) = source.get("configMapKeyRef") {
        return keyed(own, "of config map");
    }
    String::new()
}

/// A container's amount in units of the divisor, rounded up; `None` for what is not an amount of a container.
fn amount_of(source: &Value, container: &Value) -> Option<i64> {
    let (kind, name) = at(source, "/resource").split_once('.')?;
    let read = |value: Option<&Value>| Quantity::from_value(value.unwrap_or(&Value::Null)).ok();
    let own = read(container.get("resources").and_then(|own| own.get(kind)).and_then(|own| own.get(name)))?;
    let divisor = read(source.get("divisor")).filter(|divisor| !divisor.is_zero());
    let (own, divisor) = match name {
        "cpu" => (own.milli_value(), divisor.map_or(1000, |divisor| divisor.milli_value())),
        _ => (own.value(), divisor.map_or(1, |divisor| divisor.value())),
    };
    Some(own.checked_add(divisor - 1)? / divisor.max(1))
}

fn mounts(out: &mut Text, container: &Value) {
    let mut all: Vec<&Value> = items(container, "/volumeMounts").iter().collect();
    all.sort_by_key(|mount| at(mount, "/mountPath"));
    if all.is_empty() {
        out.line(2, "Mounts", "<none>");
    } else {
        out.title(2, "Mounts");
    }
    for mount in all {
        let mode = if flag(mount, "/readOnly") { "ro" } else { "rw" };
        let sub = at(mount, "/subPath");
        let flags = if sub.is_empty() { mode.to_owned() } else { format!("{mode},path={sub:?}") };
        out.raw(&format!("      {} from {} ({flags})\n", at(mount, "/mountPath"), at(mount, "/name")));
    }
    let mut devices: Vec<&Value> = items(container, "/volumeDevices").iter().collect();
    devices.sort_by_key(|device| at(device, "/devicePath"));
    if !devices.is_empty() {
        out.title(2, "Devices");
    }
    devices.iter().for_each(|own| out.raw(&format!("      {} from {}\n", at(own, "/devicePath"), at(own, "/name"))));
}

fn spread(out: &mut Text, constraints: &[Value]) {
    let mut all: Vec<&Value> = constraints.iter().collect();
    all.sort_by_key(|own| at(own, "/topologyKey"));
    let text = |own: &&Value| {
        let selector = own.get("labelSelector").map(|own| {
            let selector = super::super::logs::selector_of(&serde_json::json!({"spec": {"selector": own}}));
            format!(" for selector {}", selector.unwrap_or_else(|| "<none>".to_owned()))
        });
        let (key, when) = (at(own, "/topologyKey"), at(own, "/whenUnsatisfiable"));
        let skew = own.get("maxSkew").map(plain).unwrap_or_default();
        format!("{key}:{when} when max skew {skew} is exceeded{}", selector.unwrap_or_default())
    };
    if !all.is_empty() {
        out.list(0, "Topology Spread Constraints", &all.iter().map(text).collect::<Vec<_>>());
    }
}

fn tolerations(out: &mut Text, tolerations: &[Value]) {
    let text = |own: &Value| {
        let (key, value, effect) = (at(own, "/key"), at(own, "/value"), at(own, "/effect"));
        let mut text = key.to_owned();
        if !value.is_empty() {
            text = format!("{text}={value}");
        }
        if !effect.is_empty() {
            text = format!("{text}:{effect}");
        }
        if at(own, "/operator") == "Exists" && value.is_empty() {
            text = if text.is_empty() { "op=Exists".to_owned() } else { format!("{text} op=Exists") };
        }
        match own.get("tolerationSeconds") {
            Some(seconds) => format!("{text} for {}s", plain(seconds)),
            None => text,
        }
    };
    out.list(0, "Tolerations", &tolerations.iter().map(text).collect::<Vec<_>>());
}

/// `app=web`, for the selector of a workload.
pub(super) fn selector(object: &Value) -> String {
    super::super::logs::selector_of(object).unwrap_or_else(|| "<none>".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_variable_tells_its_source_and_the_value_where_it_is_known() {
        let container = json!({"resources": {"limits": {"cpu": "1500m"}}});
        let pod = json!({"metadata": {"name": "web", "uid": "u"}});
        let text = |source: Value| source_text(&source, &container, Some(&pod));
        let field = |path: &str| text(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}}));
        assert_eq!(field("metadata.name"), "web (v1:metadata.name)");
        assert_eq!(field("metadata.uid"), " (v1:metadata.uid)");
        let resource =
            |name: &str, divisor: &str| text(json!({"resourceFieldRef": {"resource": name, "divisor": divisor}}));
        assert_eq!(resource("limits.cpu", "0"), "2 (limits.cpu)");
        assert_eq!(resource("limits.cpu", "1m"), "1500 (limits.cpu)");
        assert_eq!(resource("limits.memory", "1Mi"), "node allocatable (limits.memory)");
        assert_eq!(resource("requests.memory", "1Mi"), "0 (requests.memory)");
    }
}
