//! Runs one plugin: configuration in, result out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::config::Plugin;

/// How long a plugin may take; then it is killed.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What of its output is read.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// A plugin that failed, in libcni's words.
#[derive(Debug, thiserror::Error)]
#[error("plugin type={program:?} failed ({command}): {why}")]
pub struct PluginError {
    program: String,
    command: String,
    why: String,
}

impl PluginError {
    /// Whether this is about rules of a family in which the pod has no address: `portmap` (containernetworking-plugins
    /// 1.1) makes none there, but misses them when it is asked whether all is well.
    pub(super) fn misses_what_is_not_made(&self, addresses: &[IpAddr]) -> bool {
        let is_missed = |family: &str| self.why.starts_with(&format!("could not check {family} dnat:"));
        self.program == "portmap"
            && (is_missed("ipv6") && !addresses.iter().any(IpAddr::is_ipv6)
                || is_missed("ipv4") && !addresses.iter().any(IpAddr::is_ipv4))
    }
}

/// What a plugin is told in its environment.
pub(super) struct Call<'c> {
    pub(super) command: &'static str,
    pub(super) container: String,
    pub(super) netns: String,
    pub(super) interface: &'static str,
    pub(super) args: String,
    pub(super) bin_dirs: &'c [PathBuf],
}

/// Runs it; the result of an `ADD`, else nothing. `before` is what the plugins before it said.
pub(super) async fn run(
    call: &Call<'_>,
    plugin: &Plugin,
    capabilities: &BTreeMap<String, Value>,
    before: &Value,
) -> Result<Value, PluginError> {
    let fail = |why: String| PluginError { program: plugin.program.clone(), command: call.command.to_lowercase(), why };
    let program = call.bin_dirs.iter().map(|dir| dir.join(&plugin.program)).find(|path| path.is_file());
    let program = program.ok_or_else(|| {
        let dirs: Vec<String> = call.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        fail(format!("failed to find plugin {:?} in path [{}]", plugin.program, dirs.join(" ")))
    })?;
    let config = Value::Object(configuration(plugin, capabilities, before)).to_string();
    let output = tokio::time::timeout(TIME_MAX, execute(call, &program, config)).await;
    let (succeeded, stdout, stderr) = output
        .map_err(|_| fail(format!("it took longer than {} s", TIME_MAX.as_secs())))?
        .map_err(|error| fail(error.to_string()))?;
    let said: Option<Value> = serde_json::from_slice(&stdout).ok();
    if !succeeded {
        return Err(fail(failure(said.as_ref(), &stderr)));
    }
    match (call.command, said) {
        ("ADD", Some(result)) => Ok(result),
        ("ADD", None) => Err(fail("its result is no JSON".to_owned())),
        _ => Ok(Value::Null),
    }
}

/// What it reads: its own configuration, what it can do that this pod needs, and what was done before it.
fn configuration(plugin: &Plugin, capabilities: &BTreeMap<String, Value>, before: &Value) -> Map<String, Value> {
    let mut config = plugin.config.clone();
    let can = |name: &String| config.get("capabilities").and_then(|own| own.get(name)) == Some(&Value::Bool(true));
    let wanted = capabilities.iter().filter(|(name, _)| can(name));
    let runtime: Map<String, Value> = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
    config.remove("capabilities");
    if !runtime.is_empty() {
        config.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    if !before.is_null() {
        config.insert("prevResult".to_owned(), before.clone());
    }
    config
}

async fn execute(call: &Call<'_>, program: &PathBuf, config: String) -> std::io::Result<(bool, Vec<u8>, String)> {
    let dirs: Vec<&std::ffi::OsStr> = call.bin_dirs.iter().map(|dir| dir.as_os_str()).collect();
    let mut child = Command::new(program)
        .env("CNI_COMMAND", call.command)
        .env("CNI_CONTAINERID", &call.container)
        .env("CNI_NETNS", &call.netns)
        .env("CNI_IFNAME", call.interface)
        .env("CNI_ARGS", &call.args)
        .env("CNI_PATH", dirs.join(std::ffi::OsStr::new(":")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that does not read it says why on its output.
            let _ = stdin.write_all(config.as_bytes()).await;
        }
    };
    let read_out = async {
        match stdout {
            Some(stdout) => stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut out).await.map(drop),
            None => Ok(()),
        }
    };
    let read_err = async {
        match stderr {
            Some(stderr) => stderr.take(OUTPUT_BYTES_MAX).read_to_end(&mut err).await.map(drop),
            None => Ok(()),
        }
    };
    let ((), read, heard) = tokio::join!(feed, read_out, read_err);
    read.and(heard)?;
    let status = child.wait().await?;
    Ok((status.success(), out, String::from_utf8_lossy(&err).into_owned()))
}

fn failure(said: Option<&Value>, stderr: &str) -> String {
    let text = |name: &str| said.and_then(|said| said.get(name)).and_then(Value::as_str).unwrap_or_default();
    match (text("msg"), text("details")) {
        ("", _) => format!("netplugin failed: {:?}", stderr.trim()),
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}; {details}"),
    }
}

/// The pod's addresses in a result: those of interfaces inside, in all versions of the specification.
pub(super) fn addresses(result: &Value) -> Vec<IpAddr> {
    let inside = |ip: &Value| {
        let Some(index) = ip["interface"].as_u64().and_then(|index| usize::try_from(index).ok()) else { return true };
        let interface = &result["interfaces"][index];
        interface.is_null() || interface["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())
    };
    let newer = result["ips"].as_array().into_iter().flatten().filter(|ip| inside(ip)).map(|ip| &ip["address"]);
    let older = ["ip4", "ip6"].iter().map(|family| &result[*family]["ip"]);
    let texts = newer.chain(older).filter_map(Value::as_str);
    texts.filter_map(|text| text.split('/').next().unwrap_or(text).parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plugin_hears_only_of_what_it_can_do() {
        let config = json!({"type": "portmap", "capabilities": {"portMappings": true, "dns": false}});
        let plugin = Plugin { program: "portmap".to_owned(), config: config.as_object().unwrap().clone() };
        let ports = json!([{"hostPort": 80}]);
        let capabilities = [("portMappings", ports.clone()), ("dns", json!({})), ("bandwidth", json!({}))];
        let capabilities = capabilities.map(|(name, value)| (name.to_owned(), value)).into();
        let told = Value::Object(configuration(&plugin, &capabilities, &json!({"ips": []})));
        assert_eq!(
            told,
            json!({"type": "portmap", "runtimeConfig": {"portMappings": ports}, "prevResult": {"ips": []}})
        );
    }

    #[test]
    fn addresses_are_those_inside_the_pod() {
        let result = json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/ns"}],
            "ips": [{"address": "10.1.0.1/16", "interface": 0}, {"address": "10.1.0.5/16", "interface": 1},
                    {"address": "fd00::5/64"}],
        });
        let texts: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.1.0.5", "fd00::5"]);
        assert_eq!(addresses(&json!({"ip4": {"ip": "10.2.0.3/24"}})).len(), 1);
        assert!(addresses(&Value::Null).is_empty());
    }
}
