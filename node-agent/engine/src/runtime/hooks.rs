//! Hooks: programs of the node's owner that run while a container comes and goes. Which there are, and which of them a
//! container has.
//!
//! Source: oci-hooks(5) for the files, the OCI runtime specification ("POSIX-platform Hooks") for what they mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Where podman and CRI-O look for them; a file in a later folder takes the place of one of the same name.
pub const DIRS: [&str; 2] = ["/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"];
/// Longest file that is read, and how many.
const FILE_LEN_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 256;
/// The one version of the files that there is.
const VERSION: &str = "1.0.0";

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// As `createRuntime`, by an older name, and before it.
    Prestart,
    /// The container's namespaces and its root are there; on the node.
    CreateRuntime,
    /// The same, in the container's namespaces.
    CreateContainer,
    /// Its root is its own; in the container.
    StartContainer,
    /// Its command runs; on the node.
    Poststart,
    /// It is gone; on the node.
    Poststop,
}

impl Stage {
    /// As files and messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Hook {
    /// Absolute; of the node, but for `startContainer`.
    pub path: PathBuf,
    /// With its own name as the first; empty means the path.
    #[serde(default)]
    pub args: Vec<String>,
    /// `NAME=value`; nothing else is in its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds.
    #[serde(default)]
    pub timeout: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookFile {
    version: String,
    hook: Hook,
    when: When,
    stages: Vec<Stage>,
}

/// All that is said must hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct When {
    always: Option<bool>,
    annotations: Option<BTreeMap<String, String>>,
    commands: Option<Vec<String>>,
    has_bind_mounts: Option<bool>,
}

/// What files ask of a container.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The container's and its pod's.
    pub annotations: &'a BTreeMap<String, String>,
    /// The first word of its command.
    pub command: &'a str,
    /// Whether something of the node is shown inside.
    pub has_bind_mounts: bool,
}

/// A file that cannot be used: its owner's to mend.
#[derive(Debug, thiserror::Error)]
#[error("hook {path:?}: {reason}")]
pub struct HookError {
    path: PathBuf,
    reason: String,
}

/// The hooks of a container, in the order of the files' names. No folder means none.
///
/// # Errors
/// For a file that cannot be read, or says what it may not.
pub fn of(dirs: &[PathBuf], subject: &Subject<'_>) -> Result<Vec<(Stage, Hook)>, HookError> {
    let mut files = BTreeMap::new();
    for entry in dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") && files.len() < FILES_MAX {
            files.insert(entry.file_name(), entry.path());
        }
    }
    let mut hooks = Vec::new();
    for path in files.values() {
        let fail = |reason: String| HookError { path: path.clone(), reason };
        let file = read(path).map_err(fail)?;
        if file.when.holds(subject).map_err(fail)? {
            hooks.extend(file.stages.iter().map(|stage| (*stage, file.hook.clone())));
        }
    }
    Ok(hooks)
}

fn read(path: &Path) -> Result<HookFile, String> {
    if std::fs::metadata(path).map_err(|error| error.to_string())?.len() > FILE_LEN_MAX {
        return Err(format!("longer than {FILE_LEN_MAX} bytes"));
    }
    parse(&std::fs::read(path).map_err(|error| error.to_string())?)
}

fn parse(bytes: &[u8]) -> Result<HookFile, String> {
    let file: HookFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let When { always, annotations, commands, has_bind_mounts } = &file.when;
    let is_empty = always.is_none() && annotations.is_none() && commands.is_none() && has_bind_mounts.is_none();
    let wrong = if file.version != VERSION {
        format!("version {:?} is not {VERSION}", file.version)
    } else if !file.hook.path.is_absolute() {
        format!("path {} is not absolute", file.hook.path.display())
    } else if file.hook.timeout == Some(0) {
        "timeout must be greater than zero".to_owned()
    } else if file.stages.is_empty() {
        "at least one stage is required".to_owned()
    } else if is_empty {
        "at least one condition is required".to_owned()
    } else {
        return Ok(file);
    };
    Err(wrong)
}

impl When {
    fn holds(&self, subject: &Subject<'_>) -> Result<bool, String> {
        let regex = |text: &String| Regex::new(text).map_err(|error| error.to_string());
        if self.always.is_some_and(|always| !always)
            || self.has_bind_mounts.is_some_and(|wanted| wanted != subject.has_bind_mounts)
        {
            return Ok(false);
        }
        for (key, value) in self.annotations.iter().flatten() {
            let (key, value) = (regex(key)?, regex(value)?);
            if !subject.annotations.iter().any(|(own, text)| key.is_match(own) && value.is_match(text)) {
                return Ok(false);
            }
        }
        let Some(commands) = &self.commands else { return Ok(true) };
        let mut any = false;
        for command in commands {
            any |= regex(command)?.is_match(subject.command);
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(when: &str) -> String {
        format!(
            r#"{{"version": "1.0.0", "hook": {{"path": "/bin/hook", "args": ["hook", "x"], "timeout": 3}},
            "when": {when}, "stages": ["createRuntime", "poststop"]}}"#
        )
    }

    #[test]
    fn a_hook_is_a_containers_if_all_that_its_file_says_holds() {
        let annotations = BTreeMap::from([("io.example.gpu".to_owned(), "all".to_owned())]);
        let subject = Subject { annotations: &annotations, command: "/bin/sh", has_bind_mounts: false };
        for (when, holds) in [
            (r#"{"always": true}"#, true),
            (r#"{"always": false}"#, false),
            (r#"{"annotations": {"^io\\.example\\.gpu$": "^(all|[0-9]+)$"}}"#, true),
            (r#"{"annotations": {"^io\\.example\\.gpu$": "^none$"}}"#, false),
            (r#"{"commands": ["^/usr/", "^/bin/"]}"#, true),
            (r#"{"commands": ["^/usr/"]}"#, false),
            (r#"{"hasBindMounts": true}"#, false),
            (r#"{"always": true, "commands": ["^/usr/"]}"#, false),
        ] {
            let parsed = parse(file(when).as_bytes()).unwrap();
            assert_eq!(parsed.when.holds(&subject), Ok(holds), "{when}");
        }
    }

    #[test]
    fn a_file_that_says_what_it_may_not_is_refused_by_name() {
        let refused = |text: &str| parse(text.as_bytes()).unwrap_err();
        let good = file(r#"{"always": true}"#);
        assert!(refused(&good.replace("1.0.0", "0.1.0")).contains("is not 1.0.0"));
        assert!(refused(&good.replace("/bin/hook", "hook")).contains("not absolute"));
        assert!(refused(&good.replace("createRuntime", "whenever")).contains("whenever"));
        assert!(refused(&file("{}")).contains("at least one condition"));
        assert!(refused(&file(r#"{"allways": true}"#)).contains("allways"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.json"), "{").unwrap();
        let annotations = BTreeMap::new();
        let subject = Subject { annotations: &annotations, command: "", has_bind_mounts: false };
        let error = of(&[dir.path().to_owned()], &subject).unwrap_err().to_string();
        assert!(error.contains("bad.json"), "{error}");
    }

    #[test]
    fn a_later_folder_replaces_a_file_and_a_folder_that_is_not_there_has_none() {
        let (usr, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(usr.path().join("a.json"), file(r#"{"always": true}"#)).unwrap();
        let annotations = BTreeMap::new();
        let subject = Subject { annotations: &annotations, command: "", has_bind_mounts: false };
        let dirs = [usr.path().to_owned(), PathBuf::from("/no/such/folder"), etc.path().to_owned()];
        let stages: Vec<Stage> = of(&dirs, &subject).unwrap().into_iter().map(|(stage, _)| stage).collect();
        assert_eq!(stages, [Stage::CreateRuntime, Stage::Poststop]);
        std::fs::write(etc.path().join("a.json"), file(r#"{"always": false}"#)).unwrap();
        assert_eq!(of(&dirs, &subject).unwrap(), []);
    }
}
