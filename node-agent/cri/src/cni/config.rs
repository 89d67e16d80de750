//! Network configurations: from files to lists of plugins. The parsing is pure.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest configuration that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The first version of the specification with `CHECK`.
const CHECK_SINCE: (u32, u32) = (0, 4);

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid network configuration {}: {why}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// A network: plugins that are run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkList {
    /// Its name.
    pub name: String,
    /// Version of the specification that its plugins are spoken to in.
    #[serde(default)]
    pub cni_version: String,
    /// It has no `CHECK`.
    #[serde(default)]
    pub disable_check: bool,
    plugins: Vec<Map<String, Value>>,
}

/// One plugin with its whole configuration.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    /// Name of the program.
    pub(super) program: String,
    /// Name and version of its network are in it.
    pub(super) config: Map<String, Value>,
}

impl NetworkList {
    /// The plugins in the order in which they are added.
    pub(super) fn plugins(&self) -> impl Iterator<Item = Plugin> + '_ {
        self.plugins.iter().map(|own| {
            let mut config = own.clone();
            config.insert("name".to_owned(), self.name.clone().into());
            config.insert("cniVersion".to_owned(), self.cni_version.clone().into());
            let program = own.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
            Plugin { program, config }
        })
    }

    /// Whether its plugins can be asked if all is still well.
    pub(super) fn has_check(&self) -> bool {
        let mut parts = self.cni_version.split('.').map_while(|part| part.parse::<u32>().ok());
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        !self.disable_check && version >= CHECK_SINCE
    }

    /// Reads a list, or a single plugin's configuration as a list of one.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let value = match value.get("plugins") {
            Some(_) => value,
            None => serde_json::json!({
                "name": value["name"], "cniVersion": value["cniVersion"].as_str().unwrap_or_default(),
                "plugins": [value],
            }),
        };
        let list: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        list.check().map(|()| list)
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("it has no name".to_owned());
        }
        if self.plugins.is_empty() {
            return Err("it has no plugins".to_owned());
        }
        for plugin in &self.plugins {
            let program = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            // It becomes a file's name.
            if program.is_empty() || program.contains('/') || program.starts_with('.') {
                return Err(format!("plugin type {program:?} is no name of a program"));
            }
        }
        Ok(())
    }
}

/// The first configuration of a folder that can be used, by name; the error of the first when none can.
pub(super) fn load(dir: &Path) -> Result<Option<NetworkList>, ConfigError> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ["conf", "conflist", "json"].iter().any(|own| ext == *own)));
    paths.sort();
    let mut first = None;
    for path in paths {
        match read(&path).and_then(|text| NetworkList::parse(&text)) {
            Ok(list) => return Ok(Some(list)),
            Err(why) => {
                let error = ConfigError { path, why };
                tracing::debug!(%error, "passing over a network configuration");
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(None), Err)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(CONFIG_BYTES_MAX).read_to_end(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_that_can_be_used_is_the_network() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Ok(None));
        std::fs::write(dir.path().join("05-bad.conflist"), "{").unwrap();
        assert!(load(dir.path()).unwrap_err().path.ends_with("05-bad.conflist"));
        std::fs::write(dir.path().join("20-late.conf"), r#"{"name": "late", "type": "bridge"}"#).unwrap();
        let list = r#"{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#;
        std::fs::write(dir.path().join("10-net.conflist"), list).unwrap();
        std::fs::write(dir.path().join("00-readme.txt"), "no configuration").unwrap();
        let found = load(dir.path()).unwrap().unwrap();
        let plugins: Vec<String> = found.plugins().map(|plugin| plugin.program).collect();
        assert_eq!((found.name.as_str(), plugins), ("net", vec!["bridge".to_owned(), "portmap".to_owned()]));
        assert_eq!(found.plugins().next().unwrap().config["cniVersion"], "1.0.0");
    }

    #[test]
    fn a_single_plugin_is_a_list_of_one_and_no_plugin_lies_elsewhere() {
        let single = NetworkList::parse(br#"{"name": "n", "type": "loopback"}"#).unwrap();
        assert_eq!(single.plugins().count(), 1);
        assert!(!single.has_check(), "its version has none");
        for bad in [r#"{"name": "n", "type": "../sh"}"#, r#"{"type": "bridge"}"#, r#"{"name": "n", "plugins": []}"#] {
            assert!(NetworkList::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
