//! Pods and pod templates.

use serde_json::Value;

use super::text::{Text, at, date, items, pairs, plain};

/// A pod.
pub(super) fn pod(out: &mut Text, pod: &Value) {
    out.line(0, "Name", at(pod, "/metadata/name"));
    out.line(0, "Namespace", at(pod, "/metadata/namespace"));
    out.line(0, "Priority", &pod.pointer("/spec/priority").map_or_else(|| "0".to_owned(), plain));
    out.line_if(0, "Service Account", at(pod, "/spec/serviceAccountName"));
    let node = at(pod, "/spec/nodeName");
    let node = if node.is_empty() { "<none>".to_owned() } else { format!("{node}/{}", at(pod, "/status/hostIP")) };
    out.line(0, "Node", &node);
    let start = at(pod, "/status/startTime");
    if !start.is_empty() {
        out.line(0, "Start Time", &date(start));
    }
    out.pairs(0, "Labels", pod.pointer("/metadata/labels"), "=");
    out.annotations(pod);
    status(out, pod);
    out.line(0, "IP", at(pod, "/status/podIP"));
    ips(out, pod);
    let owner = items(pod, "/metadata/ownerReferences").iter().find(|own| own.get("controller") == Some(&true.into()));
    if let Some(owner) = owner {
        out.line(0, "Controlled By", &format!("{}/{}", at(owner, "/kind"), at(owner, "/name")));
    }
    containers(out, "Init Containers", items(pod, "/spec/initContainers"), items(pod, "/status/initContainerStatuses"));
    containers(out, "Containers", items(pod, "/spec/containers"), items(pod, "/status/containerStatuses"));
    out.conditions(pod, &["type", "status"]);
    volumes(out, items(pod, "/spec/volumes"));
    out.line_if(0, "QoS Class", at(pod, "/status/qosClass"));
    out.pairs(0, "Node-Selectors", pod.pointer("/spec/nodeSelector"), "=");
    tolerations(out, items(pod, "/spec/tolerations"));
}

fn status(out: &mut Text, pod: &Value) {
    if at(pod, "/metadata/deletionTimestamp").is_empty() {
        out.line(0, "Status", at(pod, "/status/phase"));
    } else {
        out.line(
            0,
            "Status",
            &format!("Terminating (lasts {})", super::text::age(at(pod, "/metadata/deletionTimestamp"))),
        );
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
    out.pairs(1, "Labels", template.pointer("/metadata/labels"), "=");
    if template.pointer("/metadata/annotations").is_some() {
        out.pairs(1, "Annotations", template.pointer("/metadata/annotations"), ": ");
    }
    out.line_if(1, "Service Account", at(template, "/spec/serviceAccountName"));
    let mut inner = Text::default();
    containers(&mut inner, "Init Containers", items(template, "/spec/initContainers"), &[]);
    containers(&mut inner, "Containers", items(template, "/spec/containers"), &[]);
    volumes(&mut inner, items(template, "/spec/volumes"));
    inner.pairs(0, "Node-Selectors", template.pointer("/spec/nodeSelector"), "=");
    tolerations(&mut inner, items(template, "/spec/tolerations"));
    // kubectl indents what is inside a template by one space and two, not by two and four.
    inner.finish().lines().for_each(|line| match (line.starts_with("    "), line.starts_with("  ")) {
        (true, _) => out.raw(&format!("{line}\n")),
        (_, true) => out.raw(&format!(" {line}\n")),
        _ => out.raw(&format!("  {line}\n")),
    });
}

fn containers(out: &mut Text, title: &str, containers: &[Value], statuses: &[Value]) {
    if containers.is_empty() {
        return;
    }
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
        words(out, "Command", items(container, "/command"));
        words(out, "Args", items(container, "/args"));
        if let Some(status) = status {
            container_status(out, status);
        }
        amounts(out, "Limits", container.pointer("/resources/limits"));
        amounts(out, "Requests", container.pointer("/resources/requests"));
        for (title, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if let Some(probe) = container.get(field) {
                out.line(2, title, &probe_text(probe));
            }
        }
        environment(out, container);
        mounts(out, items(container, "/volumeMounts"));
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

fn amounts(out: &mut Text, title: &str, amounts: Option<&Value>) {
    let Some(map) = amounts.and_then(Value::as_object).filter(|map| !map.is_empty()) else { return };
    out.title(2, title);
    map.iter().for_each(|(name, amount)| out.line(3, name, &plain(amount)));
}

fn container_status(out: &mut Text, status: &Value) {
    state(out, "State", status.get("state"));
    if status.get("lastState").and_then(Value::as_object).is_some_and(|own| !own.is_empty()) {
        state(out, "Last State", status.get("lastState"));
    }
    let ready = status.get("ready").and_then(Value::as_bool).unwrap_or(false);
    out.line(2, "Ready", if ready { "True" } else { "False" });
    out.line(2, "Restart Count", &status.get("restartCount").map_or_else(|| "0".to_owned(), plain));
}

fn state(out: &mut Text, title: &str, state: Option<&Value>) {
    let (name, own) = match state.and_then(Value::as_object).and_then(|own| own.iter().next()) {
        Some((name, own)) => (name.as_str(), own.clone()),
        None => ("waiting", Value::Null),
    };
    let mut chars = name.chars();
    let capital: String = chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect());
    out.line(2, title, &capital);
    out.line_if(3, "Reason", at(&own, "/reason"));
    out.line_if(3, "Message", at(&own, "/message"));
    if name == "terminated" {
        out.line(3, "Exit Code", &own.get("exitCode").map_or_else(|| "0".to_owned(), plain));
    }
    for (title, field) in [("Started", "/startedAt"), ("Finished", "/finishedAt")] {
        let time = at(&own, field);
        if !time.is_empty() {
            out.line(3, title, &date(time));
        }
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

fn environment(out: &mut Text, container: &Value) {
    let from = items(container, "/envFrom");
    if !from.is_empty() {
        out.title(2, "Environment Variables from");
        for own in from {
            let source = [("ConfigMap", "configMapRef"), ("Secret", "secretRef")];
            for (kind, field) in source.iter().filter(|(_, field)| own.get(field).is_some()) {
                let optional = own.pointer(&format!("/{field}/optional")).and_then(Value::as_bool).unwrap_or(false);
                out.raw(&format!("      {}\t{kind}\tOptional: {optional}\n", at(own, &format!("/{field}/name"))));
            }
        }
    }
    let variables = items(container, "/env");
    if variables.is_empty() {
        return out.line(2, "Environment", "<none>");
    }
    out.title(2, "Environment");
    for variable in variables {
        out.line(3, at(variable, "/name"), &variable_text(variable));
    }
}

fn variable_text(variable: &Value) -> String {
    let source = |field: &str| variable.pointer(&format!("/valueFrom/{field}"));
    let keyed = |own: &Value, what: &str| {
        let optional = own.get("optional").and_then(Value::as_bool).unwrap_or(false);
        format!("<set to the key '{}' {what} '{}'>\tOptional: {optional}", at(own, "/key"), at(own, "/name"))
    };
    if let Some(own) = source("fieldRef") {
        return format!(" ({}:{})", at(own, "/apiVersion"), at(own, "/fieldPath"));
    }
    if let Some(own) = source("resourceFieldRef") {
        return format!(" ({})", at(own, "/resource"));
    }
    if let Some(own) = source("secretKeyRef") {
        return keyed(own, "in secret");
    }
    if let Some(own) = source("configMapKeyRef") {
        return keyed(own, "of config map");
    }
    at(variable, "/value").to_owned()
}

fn mounts(out: &mut Text, mounts: &[Value]) {
    if mounts.is_empty() {
        return out.line(2, "Mounts", "<none>");
    }
    out.title(2, "Mounts");
    for mount in mounts {
        let mode = if mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false) { "ro" } else { "rw" };
        let sub = at(mount, "/subPath");
        let flags = if sub.is_empty() { mode.to_owned() } else { format!("{mode},path=\"{sub}\"") };
        out.raw(&format!("      {} from {} ({flags})\n", at(mount, "/mountPath"), at(mount, "/name")));
    }
}

fn volumes(out: &mut Text, volumes: &[Value]) {
    if volumes.is_empty() {
        return out.line(0, "Volumes", "<none>");
    }
    out.title(0, "Volumes");
    for volume in volumes {
        out.title(1, at(volume, "/name"));
        let source = volume.as_object().into_iter().flatten().find(|(field, _)| *field != "name");
        let Some((kind, own)) = source else { continue };
        match kind.as_str() {
            "configMap" => {
                volume_lines(out, "ConfigMap (a volume populated by a ConfigMap)", &[("Name", at(own, "/name"))])
            }
            "secret" => {
                volume_lines(out, "Secret (a volume populated by a Secret)", &[("SecretName", at(own, "/secretName"))]);
            }
            "emptyDir" => {
                let text = "EmptyDir (a temporary directory that shares a pod's lifetime)";
                volume_lines(out, text, &[("Medium", at(own, "/medium")), ("SizeLimit", size_limit(own))]);
            }
            "hostPath" => {
                let text = "HostPath (bare host directory volume)";
                volume_lines(out, text, &[("Path", at(own, "/path")), ("HostPathType", at(own, "/type"))]);
            }
            "projected" => projected(out, own),
            "downwardAPI" => volume_lines(out, "DownwardAPI (a volume populated by information about the pod)", &[]),
            other => volume_lines(out, other, &[]),
        }
    }
}

fn size_limit(own: &Value) -> &str {
    let limit = at(own, "/sizeLimit");
    if limit.is_empty() { "<unset>" } else { limit }
}

fn volume_lines(out: &mut Text, kind: &str, lines: &[(&str, &str)]) {
    out.line(2, "Type", kind);
    lines.iter().for_each(|(title, value)| out.line(2, title, value));
}

fn projected(out: &mut Text, volume: &Value) {
    out.line(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
    for source in items(volume, "/sources") {
        if let Some(token) = source.get("serviceAccountToken") {
            out.line(2, "TokenExpirationSeconds", &token.get("expirationSeconds").map(plain).unwrap_or_default());
        }
        out.line_if(2, "ConfigMapName", at(source, "/configMap/name"));
        out.line_if(2, "SecretName", at(source, "/secret/name"));
        if source.get("downwardAPI").is_some() {
            out.line(2, "DownwardAPI", "true");
        }
    }
}

fn tolerations(out: &mut Text, tolerations: &[Value]) {
    if tolerations.is_empty() {
        return out.line(0, "Tolerations", "<none>");
    }
    for (index, own) in tolerations.iter().enumerate() {
        let title = if index == 0 { "Tolerations:" } else { "" };
        let (key, value, effect) = (at(own, "/key"), at(own, "/value"), at(own, "/effect"));
        let mut text = key.to_owned();
        if !value.is_empty() {
            text = format!("{text}={value}");
        }
        if !effect.is_empty() {
            text = format!("{text}:{effect}");
        }
        if at(own, "/operator") == "Exists" && value.is_empty() {
            text =
                if key.is_empty() && effect.is_empty() { "op=Exists".to_owned() } else { format!("{text} op=Exists") };
        }
        if let Some(seconds) = own.get("tolerationSeconds") {
            text = format!("{text} for {}s", plain(seconds));
        }
        out.raw(&format!("{title}\t{text}\n"));
    }
}

/// `app=web`, for the selector of a workload.
pub(super) fn selector(object: &Value) -> String {
    super::super::logs::selector_of(object).unwrap_or_else(|| pairs(None, ","))
}
