//! `config`: shows the kubeconfig, and changes which context and namespace are used.
//!
//! Works on the files' trees, so that what is not known here survives. Writing (lock, atomic replace, mode) is
//! [`crate::cluster::kubeconfig`]'s.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::args::GlobalArgs;
use super::error::CliError;
use super::get::write;
use super::output::{Output, table};
use crate::cluster::kubeconfig::{self, Owner};

const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// `config`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings, secrets left out
    View(ViewArgs),
    /// Show the current context's name
    CurrentContext,
    /// List contexts
    GetContexts(GetContextsArgs),
    /// Make a context the current one
    #[command(alias = "use")]
    UseContext(UseContextArgs),
    /// Change a context's cluster, user or namespace
    SetContext(SetContextArgs),
}

/// `config view`
#[derive(Debug, Clone, Args)]
pub(crate) struct ViewArgs {
    /// Only what the current context needs
    #[arg(long)]
    pub minify: bool,
    /// Show secrets, too
    #[arg(long)]
    pub raw: bool,
    /// Form of the output
    #[arg(short, long, default_value = "yaml")]
    pub output: String,
}

/// `config get-contexts`
#[derive(Debug, Clone, Args)]
pub(crate) struct GetContextsArgs {
    /// Only these
    pub names: Vec<String>,
    /// Leave the headings out
    #[arg(long)]
    pub no_headers: bool,
    /// Form of the output: name
    #[arg(short, long, default_value = "", value_parser = ["", "name"])]
    pub output: String,
}

/// `config use-context`
#[derive(Debug, Clone, Args)]
pub(crate) struct UseContextArgs {
    /// Name of the context
    #[arg(value_name = "NAME")]
    pub wanted: String,
}

/// `config set-context`; cluster, user and namespace are the flags that every verb has
#[derive(Debug, Clone, Args)]
pub(crate) struct SetContextArgs {
    /// Name of the context
    #[arg(value_name = "NAME")]
    pub wanted: Option<String>,
    /// Change the current context
    #[arg(long)]
    pub current: bool,
}

/// Runs `config`.
pub(crate) fn run(command: &ConfigCommand, global: &GlobalArgs) -> Result<(), CliError> {
    let files = files(global);
    let config = merged(&files)?;
    match command {
        ConfigCommand::View(args) => view(args, global, config),
        ConfigCommand::CurrentContext => write(&format!("{}\n", current(&config)?)),
        ConfigCommand::GetContexts(args) => get_contexts(args, &config),
        ConfigCommand::UseContext(args) => use_context(&args.wanted, &config, &files),
        ConfigCommand::SetContext(args) => set_context(args, global, &config, &files),
    }
}

/// The files, the first one first. They need not exist.
fn files(global: &GlobalArgs) -> Vec<PathBuf> {
    if let Some(file) = &global.kubeconfig {
        return vec![file.clone()];
    }
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if listed.is_empty() { vec![kubeconfig::file_to_write(None, &Owner::current())] } else { listed }
}

fn read(path: &Path) -> Result<Value, CliError> {
    let failed = |reason: String| CliError::plain(format!("error loading config file {:?}: {reason}", path.display()));
    match std::fs::read(path) {
        Ok(bytes) => super::manifest::value(&bytes).map_err(failed),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(err) => Err(failed(err.to_string())),
    }
}

/// All files as one: whatever stands first, wins.
fn merged(files: &[PathBuf]) -> Result<Value, CliError> {
    let mut all = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": "",
        "clusters": null, "contexts": null, "users": null,
    });
    for file in files {
        let own = read(file)?;
        for list in LISTS {
            for entry in entries(&own, list) {
                if find(&all, list, text(entry, "/name")).is_none() {
                    match &mut all[list] {
                        Value::Array(known) => known.push(entry.clone()),
                        other => *other = json!([entry]),
                    }
                }
            }
        }
        if text(&all, "/current-context").is_empty() {
            all["current-context"] = json!(text(&own, "/current-context"));
        }
    }
    for list in LISTS {
        if let Value::Array(known) = &mut all[list] {
            known.sort_by(|a, b| text(a, "/name").cmp(text(b, "/name")));
        }
    }
    Ok(all)
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn entries<'v>(config: &'v Value, list: &str) -> &'v [Value] {
    config.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn find<'v>(config: &'v Value, list: &str, name: &str) -> Option<&'v Value> {
    entries(config, list).iter().find(|own| text(own, "/name") == name)
}

fn current(config: &Value) -> Result<&str, CliError> {
    match text(config, "/current-context") {
        "" => Err(CliError::plain("current-context is not set")),
        name => Ok(name),
    }
}

fn view(args: &ViewArgs, global: &GlobalArgs, mut config: Value) -> Result<(), CliError> {
    let output = Output::parse(&args.output)?;
    if args.minify {
        let context = global.context.clone().unwrap_or_else(|| text(&config, "/current-context").to_owned());
        minify(&mut config, &context)?;
    }
    if !args.raw {
        redact(&mut config);
    }
    for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
        if let Some(own) = cluster.get_mut("cluster").and_then(Value::as_object_mut) {
            own.retain(|_, value| *value != json!(false));
        }
    }
    write(&output.print(&config, None)?)
}

/// Leaves the context, its cluster and its user.
fn minify(config: &mut Value, name: &str) -> Result<(), CliError> {
    let missing = || CliError::plain(format!("cannot locate context {name}"));
    let context = find(config, "contexts", name).ok_or_else(missing)?.clone();
    for (list, wanted) in [
        ("contexts", name),
        ("clusters", text(&context, "/context/cluster")),
        ("users", text(&context, "/context/user")),
    ] {
        config[list] = json!(find(config, list, wanted).into_iter().collect::<Vec<_>>());
    }
    config["current-context"] = json!(name);
    Ok(())
}

fn redact(config: &mut Value) {
    const OMITTED: [&str; 3] = ["certificate-authority-data", "client-certificate-data", "client-key-data"];
    const REDACTED: [&str; 2] = ["password", "token"];
    for (list, inner) in [("clusters", "cluster"), ("users", "user")] {
        for entry in config[list].as_array_mut().into_iter().flatten() {
            let Some(own) = entry.get_mut(inner).and_then(Value::as_object_mut) else { continue };
            for (name, value) in own {
                if OMITTED.contains(&name.as_str()) {
                    *value = json!("DATA+OMITTED");
                } else if REDACTED.contains(&name.as_str()) {
                    *value = json!("REDACTED");
                }
            }
        }
    }
}

fn get_contexts(args: &GetContextsArgs, config: &Value) -> Result<(), CliError> {
    let chosen = |name: &str| args.names.is_empty() || args.names.iter().any(|own| own == name);
    let contexts: Vec<&Value> = entries(config, "contexts").iter().filter(|own| chosen(text(own, "/name"))).collect();
    if args.output == "name" {
        let names: String = contexts.iter().map(|own| format!("{}\n", text(own, "/name"))).collect();
        write(&names)?;
    } else {
        let mut lines = Vec::new();
        if !args.no_headers {
            lines.push(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned).to_vec());
        }
        for own in contexts {
            let mark = if text(own, "/name") == text(config, "/current-context") { "*" } else { "" };
            let cells = ["/name", "/context/cluster", "/context/user", "/context/namespace"].map(|at| text(own, at));
            lines.push(std::iter::once(mark).chain(cells).map(str::to_owned).collect());
        }
        write(&table::align(&lines.iter().collect::<Vec<_>>(), &mut Vec::new()))?;
    }
    let missing = args.names.iter().filter(|name| find(config, "contexts", name).is_none());
    CliError::all(missing.map(|name| CliError::plain(format!("context {name} not found"))).collect())
}

/// The first of the files for which this holds, else the one that is written by default.
fn file_of(files: &[PathBuf], holds: impl Fn(&Value) -> bool) -> Result<PathBuf, CliError> {
    for file in files {
        if holds(&read(file)?) {
            return Ok(file.clone());
        }
    }
    let existing = files.iter().find(|file| file.exists()).or_else(|| files.last());
    existing.cloned().ok_or_else(|| CliError::plain("there is no kubeconfig to write to"))
}

fn edit(file: &Path, change: impl FnOnce(&mut serde_yaml::Value)) -> Result<(), CliError> {
    kubeconfig::edit(file, &Owner::current(), change).map_err(|err| CliError::plain(err.to_string()))
}

fn use_context(name: &str, config: &Value, files: &[PathBuf]) -> Result<(), CliError> {
    if find(config, "contexts", name).is_none() {
        return Err(CliError::plain(format!("no context exists with the name: {name:?}")));
    }
    let file = file_of(files, |own| !text(own, "/current-context").is_empty())?;
    edit(&file, |tree| tree["current-context"] = name.into())?;
    write(&format!("Switched to context {name:?}.\n"))
}

fn set_context(args: &SetContextArgs, global: &GlobalArgs, config: &Value, files: &[PathBuf]) -> Result<(), CliError> {
    let name = match (&args.wanted, args.current) {
        (Some(_), true) => return Err(CliError::plain("you cannot specify both a context name and --current")),
        (Some(name), false) => name.as_str(),
        (None, true) => current(config).map_err(|_| CliError::plain("no current context is set"))?,
        (None, false) => return Err(CliError::plain("you must specify a non-empty context name or --current")),
    };
    let mut set = Map::new();
    for (field, value) in [("cluster", &global.cluster), ("user", &global.user), ("namespace", &global.namespace)] {
        if let Some(value) = value {
            set.insert(field.to_owned(), json!(value));
        }
    }
    let known = find(config, "contexts", name).is_some();
    let file = file_of(files, |own| find(own, "contexts", name).is_some())?;
    edit(&file, |tree| put_context(tree, name, &set))?;
    write(&format!("Context {name:?} {}.\n", if known { "modified" } else { "created" }))
}

fn put_context(tree: &mut serde_yaml::Value, name: &str, set: &Map<String, Value>) {
    use serde_yaml::{Mapping, Value as Yaml};
    if !tree["contexts"].is_sequence() {
        tree["contexts"] = Yaml::Sequence(Vec::new());
    }
    let Some(contexts) = tree["contexts"].as_sequence_mut() else { return };
    let at = contexts.iter().position(|own| own.get("name").and_then(Yaml::as_str) == Some(name));
    let at = at.unwrap_or_else(|| {
        let mut entry = Mapping::new();
        entry.insert("context".into(), Yaml::Mapping(Mapping::new()));
        entry.insert("name".into(), name.into());
        contexts.push(Yaml::Mapping(entry));
        contexts.len() - 1
    });
    let Some(entry) = contexts.get_mut(at).and_then(Yaml::as_mapping_mut) else { return };
    if !entry.get("context").is_some_and(Yaml::is_mapping) {
        entry.insert("context".into(), Yaml::Mapping(Mapping::new()));
    }
    let Some(context) = entry.get_mut("context").and_then(Yaml::as_mapping_mut) else { return };
    for (field, value) in set {
        context.insert(field.as_str().into(), value.as_str().unwrap_or_default().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_first_wins_and_contexts_are_sorted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let one = file("1", "contexts: [{name: b, context: {cluster: x}}]\n");
        let two =
            file("2", "current-context: a\ncontexts: [{name: b, context: {cluster: y}}, {name: a, context: {}}]\n");
        let config = merged(&[one, two, folder.path().join("absent")]).expect("merged");
        let names: Vec<&str> = entries(&config, "contexts").iter().map(|own| text(own, "/name")).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(text(&config, "/current-context"), "a");
        assert_eq!(text(find(&config, "contexts", "b").expect("b"), "/context/cluster"), "x");
    }

    #[test]
    fn a_view_shows_no_secret() {
        let mut config = json!({"users": [{"name": "u", "user": {"token": "t", "client-key-data": "k", "x": "y"}}]});
        redact(&mut config);
        assert_eq!(
            config["users"][0]["user"],
            json!({"token": "REDACTED", "client-key-data": "DATA+OMITTED", "x": "y"})
        );
    }
}
