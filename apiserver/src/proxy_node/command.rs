//! What `exec` and `attach` ask for: options of the API, and the kubelet's names for them. Pure.
//!
//! Whether they make sense together is the kubelet's to say, as in Kubernetes.

use serde_json::{Value, json};

use crate::http::Query;

/// What the query asks for.
pub(super) struct Asked<'q> {
    verb: &'q str,
    container: &'q str,
    command: Vec<&'q str>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl<'q> Asked<'q> {
    /// `verb` is the subresource.
    pub(super) fn parse(verb: &'q str, query: &'q Query) -> Self {
        Self {
            verb,
            container: query.get("container").unwrap_or_default(),
            command: query.all("command").collect(),
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            tty: query.flag("tty"),
        }
    }

    /// Empty: the pod's only one.
    pub(super) fn container(&self) -> &'q str {
        self.container
    }

    /// Of the options.
    pub(super) fn kind(&self) -> &'static str {
        if self.verb == "exec" { "PodExecOptions" } else { "PodAttachOptions" }
    }

    /// As admission sees them.
    pub(super) fn options(&self) -> Value {
        let mut options = json!({ "kind": self.kind(), "apiVersion": "v1" });
        let flags = [("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr), ("tty", self.tty)];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            options[name] = true.into();
        }
        if !self.container.is_empty() {
            options["container"] = self.container.into();
        }
        if self.verb == "exec" {
            options["command"] = json!(self.command);
        }
        options
    }

    /// What is asked of the kubelet; `place` is `NAMESPACE/POD/CONTAINER`.
    pub(super) fn uri(&self, place: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for command in &self.command {
            query.append_pair("command", command);
        }
        let flags = [("input", self.stdin), ("output", self.stdout), ("error", self.stderr), ("tty", self.tty)];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            query.append_pair(name, "1");
        }
        format!("/{}/{place}?{}", self.verb, query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_kubelet_under_its_own_names() {
        let query = "container=c&command=sh&command=-c&command=a%26b&stdin=true&stdout=true&stderr=true&tty=true";
        let query = Query::parse(query).unwrap();
        let asked = Asked::parse("exec", &query);
        let wanted = "/exec/n/p/c?command=sh&command=-c&command=a%26b&input=1&output=1&error=1&tty=1";
        assert_eq!(asked.uri("n/p/c"), wanted);
        assert_eq!(asked.options()["command"], json!(["sh", "-c", "a&b"]));
        assert_eq!(Asked::parse("attach", &query).kind(), "PodAttachOptions");
    }
}
