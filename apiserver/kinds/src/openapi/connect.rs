//! Subresources that are connected to: the methods they take, and their options as parameters.

/// A subresource that is connected to.
#[derive(Debug)]
pub(super) struct Connection {
    /// The kind that has it.
    pub(super) of: &'static str,
    /// Its name in the path.
    pub(super) name: &'static str,
    /// Kind of its options.
    pub(super) options: &'static str,
    /// The same as parameters of the query: name, type, what it says.
    pub(super) parameters: &'static [(&'static str, &'static str, &'static str)],
    pub(super) methods: &'static [&'static str],
    /// Whether the rest of the path is passed on.
    pub(super) has_path: bool,
}

const UPGRADES: &[&str] = &["get", "post"];
const ALL: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];

const TO_POD: &[(&str, &str, &str)] =
    &[("path", "string", "Path is the URL path to use for the current proxy request to pod.")];
const TO_NODE: &[(&str, &str, &str)] =
    &[("path", "string", "Path is the URL path to use for the current proxy request to node.")];
const TO_SERVICE: &[(&str, &str, &str)] = &[(
    "path",
    "string",
    "Path is the part of URLs that include service endpoints, suffixes, and parameters to use for the current proxy request to service. For example, the whole request URL is http://localhost/api/v1/namespaces/kube-system/services/elasticsearch-logging/_search?q=user:kimchy. Path is _search?q=user:kimchy.",
)];

const fn upgrade(
    name: &'static str,
    options: &'static str,
    parameters: &'static [(&'static str, &'static str, &'static str)],
) -> Connection {
    Connection { of: "Pod", name, options, parameters, methods: UPGRADES, has_path: false }
}

const fn proxy(
    of: &'static str,
    options: &'static str,
    parameters: &'static [(&'static str, &'static str, &'static str)],
) -> Connection {
    Connection { of, name: "proxy", options, parameters, methods: ALL, has_path: true }
}

/// All of them; the kinds are those of the core group.
pub(super) const CONNECTIONS: [Connection; 6] = [
    upgrade(
        "attach",
        "PodAttachOptions",
        &[
            (
                "container",
                "string",
                "The container in which to execute the command. Defaults to only container if there is only one container in the pod.",
            ),
            (
                "stderr",
                "boolean",
                "Stderr if true indicates that stderr is to be redirected for the attach call. Defaults to true.",
            ),
            (
                "stdin",
                "boolean",
                "Stdin if true, redirects the standard input stream of the pod for this call. Defaults to false.",
            ),
            (
                "stdout",
                "boolean",
                "Stdout if true indicates that stdout is to be redirected for the attach call. Defaults to true.",
            ),
            (
                "tty",
                "boolean",
                "TTY if true indicates that a tty will be allocated for the attach call. This is passed through the container runtime so the tty is allocated on the worker node by the container runtime. Defaults to false.",
            ),
        ],
    ),
    upgrade(
        "exec",
        "PodExecOptions",
        &[
            ("command", "string", "Command is the remote command to execute. argv array. Not executed within a shell."),
            (
                "container",
                "string",
                "Container in which to execute the command. Defaults to only container if there is only one container in the pod.",
            ),
            ("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
            ("stdin", "boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
            ("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
            (
                "tty",
                "boolean",
                "TTY if true indicates that a tty will be allocated for the exec call. Defaults to false.",
            ),
        ],
    ),
    upgrade(
        "portforward",
        "PodPortForwardOptions",
        &[("ports", "integer", "List of ports to forward Required when using WebSockets")],
    ),
    proxy("Pod", "PodProxyOptions", TO_POD),
    proxy("Service", "ServiceProxyOptions", TO_SERVICE),
    proxy("Node", "NodeProxyOptions", TO_NODE),
];
