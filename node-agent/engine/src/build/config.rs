//! The configuration of the image being built. Pure. It is edited as JSON, so that what a base image has and we do
//! not know stays in it.
//!
//! Source: OCI image specification 1.1, "Image Configuration"; Docker's for `Healthcheck` and `Shell`.

use serde_json::{Map, Value, json};

use super::dockerfile::{Command, Health};
use crate::images::manifest::architecture;

/// What Docker gives programs of images that say nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A configuration under construction.
#[derive(Debug, Clone, Default)]
pub(super) struct Config {
    /// The document but for the two below.
    top: Map<String, Value>,
    /// What containers are started with.
    config: Map<String, Value>,
    history: Vec<Value>,
    /// CMD was given in this stage: a later ENTRYPOINT leaves it.
    cmd_set: bool,
}

impl Config {
    /// Of `FROM scratch`.
    pub(super) fn scratch() -> Self {
        let mut config = Self::default();
        config.top.insert("architecture".to_owned(), architecture().into());
        config.top.insert("os".to_owned(), "linux".into());
        config.set_env("PATH", DEFAULT_PATH);
        config.set("WorkingDir", "/");
        config
    }

    /// Of an image; `None` when it is no object.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let Ok(Value::Object(mut top)) = serde_json::from_slice(bytes) else { return None };
        let config = match top.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        let history = match top.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        Some(Self { top, config, history, cmd_set: false })
    }

    /// A stage on top of this one begins.
    pub(super) fn as_base(&self) -> Self {
        Self { cmd_set: false, ..self.clone() }
    }

    /// The document, with these layers and this time.
    pub(super) fn render(&self, diff_ids: &[String], created: &str) -> Vec<u8> {
        let mut document = self.top.clone();
        let mut history = self.history.clone();
        // Our own steps carry no time until now; those of the base keep theirs.
        for step in history.iter_mut().filter_map(Value::as_object_mut) {
            step.entry("created").or_insert_with(|| created.into());
        }
        document.insert("config".to_owned(), self.config.clone().into());
        document.insert("created".to_owned(), created.into());
        document.insert("history".to_owned(), history.into());
        document.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        Value::Object(document).to_string().into_bytes()
    }

    /// Notes a step for `docker history`; `layer` tells whether it made one.
    pub(super) fn note(&mut self, text: &str, layer: bool) {
        let mut step = json!({"created_by": text, "comment": "reeve build"});
        if let (false, Some(step)) = (layer, step.as_object_mut()) {
            step.insert("empty_layer".to_owned(), true.into());
        }
        self.history.push(step);
    }

    /// The last `layers` layers have become one, or none if nothing is in it: their steps stay, without layers.
    pub(super) fn squash(&mut self, layers: usize, left: bool) {
        let with_layer = |step: &&mut Value| step.get("empty_layer").and_then(Value::as_bool) != Some(true);
        for step in self.history.iter_mut().rev().filter(with_layer).take(layers) {
            if let Some(step) = step.as_object_mut() {
                step.insert("empty_layer".to_owned(), true.into());
            }
        }
        if left {
            self.note(&format!("squash of {layers} layers"), true);
        }
    }

    /// Variables, in order.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let env = self.config.get("Env").and_then(Value::as_array);
        let pairs = env.into_iter().flatten().filter_map(|pair| pair.as_str()?.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Sets a variable, in its old place if it has one.
    pub(super) fn set_env(&mut self, key: &str, value: &str) {
        let pair = Value::from(format!("{key}={value}"));
        let Some(env) = self.array("Env") else { return };
        let prefix = format!("{key}=");
        match env.iter_mut().find(|old| old.as_str().is_some_and(|old| old.starts_with(&prefix))) {
            Some(old) => *old = pair,
            None => env.push(pair),
        }
    }

    /// Gives a base image that has no PATH the one that programs need.
    pub(super) fn ensure_path(&mut self) {
        if !self.env().iter().any(|(key, _)| key == "PATH") {
            self.set_env("PATH", DEFAULT_PATH);
        }
    }

    /// `/` when unset.
    pub(super) fn workdir(&self) -> String {
        let dir = self.config.get("WorkingDir").and_then(Value::as_str);
        dir.filter(|dir| !dir.is_empty()).unwrap_or("/").to_owned()
    }

    /// Sets a text: `User`, `WorkingDir`, `StopSignal`.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.to_owned(), value.into());
    }

    /// Adds a key to a set: `ExposedPorts`, `Volumes`.
    pub(super) fn add(&mut self, set: &str, key: &str) {
        if let Some(object) = self.object(set) {
            object.insert(key.to_owned(), json!({}));
        }
    }

    /// Sets a label.
    pub(super) fn set_label(&mut self, key: &str, value: &str) {
        if let Some(labels) = self.object("Labels") {
            labels.insert(key.to_owned(), value.into());
        }
    }

    /// Sets the author, as MAINTAINER does.
    pub(super) fn set_author(&mut self, author: &str) {
        self.top.insert("author".to_owned(), author.into());
    }

    /// CMD.
    pub(super) fn set_cmd(&mut self, command: &Command) {
        let words = self.command(command);
        self.set("Cmd", words);
        self.cmd_set = true;
    }

    /// ENTRYPOINT; it drops a CMD that came from the base image.
    pub(super) fn set_entrypoint(&mut self, command: &Command) {
        let words = self.command(command);
        self.set("Entrypoint", words);
        if !self.cmd_set {
            self.config.remove("Cmd");
        }
    }

    /// HEALTHCHECK. Kubernetes ignores it; other users of the image do not.
    pub(super) fn set_healthcheck(&mut self, health: &Health) -> Result<(), String> {
        let test = match &health.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(words)) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
            Some(Command::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        let mut check = Map::new();
        check.insert("Test".to_owned(), test.into());
        for (flag, value) in &health.flags {
            let (key, value) = match flag.as_str() {
                "interval" => ("Interval", duration_ns(value)),
                "timeout" => ("Timeout", duration_ns(value)),
                "start-period" => ("StartPeriod", duration_ns(value)),
                "start-interval" => ("StartInterval", duration_ns(value)),
                _ => ("Retries", value.parse().ok()),
            };
            let value: u64 = value.ok_or_else(|| format!("invalid value of --{flag} of HEALTHCHECK"))?;
            check.insert(key.to_owned(), value.into());
        }
        self.set("Healthcheck", check);
        Ok(())
    }

    /// As whom programs run; nothing when unset.
    pub(super) fn user(&self) -> Option<String> {
        let user = self.config.get("User").and_then(Value::as_str);
        user.filter(|user| !user.is_empty()).map(str::to_owned)
    }

    /// Adds an instruction for those who build on this image.
    pub(super) fn add_trigger(&mut self, text: &str) {
        if let Some(triggers) = self.array("OnBuild") {
            triggers.push(text.into());
        }
    }

    /// The instructions for those who build on the base image: they are carried out once.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        let Some(Value::Array(triggers)) = self.config.remove("OnBuild") else { return Vec::new() };
        triggers.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
    }

    /// The words that run a command: the shell form goes through SHELL.
    pub(super) fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let shell = self.config.get("Shell").and_then(Value::as_array);
                let shell: Vec<String> = match shell {
                    Some(words) => words.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect(),
                    None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                };
                shell.into_iter().chain([line.clone()]).collect()
            }
        }
    }

    fn object(&mut self, key: &str) -> Option<&mut Map<String, Value>> {
        let value = self.config.entry(key).or_insert_with(|| json!({}));
        if value.is_null() {
            *value = json!({});
        }
        value.as_object_mut()
    }

    fn array(&mut self, key: &str) -> Option<&mut Vec<Value>> {
        let value = self.config.entry(key).or_insert_with(|| json!([]));
        if value.is_null() {
            *value = json!([]);
        }
        value.as_array_mut()
    }
}

/// Go's durations as far as HEALTHCHECK needs them: `1m30s`, `500ms`, `1.5s`.
fn duration_ns(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let units = [("ms", 1_000_000), ("us", 1_000), ("ns", 1), ("h", 3_600_000_000_000), ("m", 60_000_000_000)];
        let (unit, ns) = units.into_iter().chain([("s", 1_000_000_000)]).find(|(unit, _)| after.starts_with(unit))?;
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // What lies behind the ninth digit is less than a nanosecond, of seconds.
        let part: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
        let part = u128::from(part.parse::<u64>().ok()?) * u128::from(ns) / 1_000_000_000;
        total = total.checked_add(whole.checked_mul(ns)?)?.checked_add(u64::try_from(part).ok()?)?;
        rest = after.strip_prefix(unit)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ns) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1h", Some(3_600_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5m", Some(30_000_000_000)),
            (".s", None),
            ("1.2.3s", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration_ns(text), ns, "{text}");
        }
    }
}
