//! What ConfigMaps and Secrets are filled from: `--from-literal`, `--from-file`, `--from-env-file`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use clap::Args;

use crate::kubectl::error::CliError;

/// A ConfigMap or Secret may not be larger than 1 MiB; more is not even read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The sources of a ConfigMap or Secret.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArgs {
    /// KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub from_literal: Vec<String>,
    /// [KEY=]FILE or a folder; may be repeated
    #[arg(long, value_name = "[KEY=]FILE", value_delimiter = ',')]
    pub from_file: Vec<String>,
    /// A file with a line KEY=VALUE per key; a KEY alone is taken from the environment
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub from_env_file: Vec<String>,
}

/// Values by key.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

impl SourceArgs {
    /// Reads all sources. `owner` is what they are for, as in `ConfigMap "settings"`.
    pub(super) fn read(&self, kind: &str, name: &str) -> Result<Data, CliError> {
        let others = !self.from_file.is_empty() || !self.from_literal.is_empty();
        if others && !self.from_env_file.is_empty() {
            return Err(CliError::plain("from-env-file cannot be combined with from-file or from-literal"));
        }
        let mut filling = Filling { kind, name, data: Data::new() };
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| CliError::plain(format!("invalid literal source {literal}, expected key=value")))?;
            filling.add(key, value.as_bytes().to_vec())?;
        }
        for source in &self.from_file {
            filling.add_file(source)?;
        }
        for file in &self.from_env_file {
            let text = String::from_utf8_lossy(&read(Path::new(file))?).into_owned();
            for (key, value) in variables(&text, |name| std::env::var(name).ok())? {
                filling.add(&key, value.into_bytes())?;
            }
        }
        Ok(filling.data)
    }
}

struct Filling<'a> {
    kind: &'a str,
    name: &'a str,
    data: Data,
}

impl Filling<'_> {
    fn add(&mut self, key: &str, value: Vec<u8>) -> Result<(), CliError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if key.is_empty() || key.len() > 253 || !key.chars().all(valid) || matches!(key, "." | "..") {
            return Err(CliError::plain(format!(
                "{key:?} is not a valid key name for a {}: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                self.kind
            )));
        }
        if self.data.contains_key(key) {
            return Err(CliError::plain(format!(
                "cannot add key {key:?}, another key by that name already exists in Data for {} {:?}",
                self.kind, self.name
            )));
        }
        self.data.insert(key.to_owned(), value);
        Ok(())
    }

    fn add_file(&mut self, source: &str) -> Result<(), CliError> {
        let (key, path) = file_source(source)?;
        let path = Path::new(path);
        let failed =
            |err: &std::io::Error| CliError::plain(format!("error reading {}: {}", path.display(), words(err)));
        if !std::fs::metadata(path).map_err(|err| failed(&err))?.is_dir() {
            let base = path.file_name().unwrap_or_default().to_string_lossy();
            return self.add(key.unwrap_or(&base), read(path)?);
        }
        if key.is_some() {
            return Err(CliError::plain("cannot give a key name for a directory path"));
        }
        let mut entries: Vec<_> = std::fs::read_dir(path).map_err(|err| failed(&err))?.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| entry.file_type().is_ok_and(|own| own.is_file())) {
            self.add(&entry.file_name().to_string_lossy(), read(&entry.path())?)?;
        }
        Ok(())
    }
}

/// `KEY=FILE` or `FILE`.
fn file_source(source: &str) -> Result<(Option<&str>, &str), CliError> {
    match source.split_once('=') {
        None => Ok((None, source)),
        Some((_, path)) if path.contains('=') => Err(CliError::plain("key names or file paths cannot contain '='")),
        Some(("", path)) => Err(CliError::plain(format!("key name for file path {path} missing"))),
        Some((key, "")) => Err(CliError::plain(format!("file path for key name {key} missing"))),
        Some((key, path)) => Ok((Some(key), path)),
    }
}

/// What the system says, without Rust's addition.
pub(super) fn words(err: &std::io::Error) -> String {
    match err.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => err.to_string(),
    }
}

/// A whole file, within limits.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |err: std::io::Error| CliError::plain(format!("open {}: {}", path.display(), words(&err)));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CliError::plain(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

/// The lines of an environment file.
fn variables(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, CliError> {
    let mut found = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (line, environment(line)),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if key.is_empty() || !key.chars().all(valid) || key.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(CliError::plain(format!(
                "{key:?} is not a valid key name: a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')"
            )));
        }
        found.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_line_by_line() {
        let text = "\u{feff}A=1\n  # comment\n\n  B=x=y \nHERE\nABSENT\n";
        let found = variables(text, |name| (name == "HERE").then(|| "yes".to_owned())).expect("read");
        let expected = [("A", "1"), ("B", "x=y "), ("HERE", "yes")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(found, expected);
        assert!(variables("1A=x\n", |_| None).is_err());
    }

    #[test]
    fn a_key_may_stand_once_and_must_be_one() {
        let read = |literals: &[&str]| {
            let from_literal = literals.iter().map(|own| (*own).to_owned()).collect();
            SourceArgs { from_literal, ..SourceArgs::default() }.read("ConfigMap", "x").map_err(|err| err.to_string())
        };
        assert_eq!(read(&["a=1", "b="]).expect("read").len(), 2);
        assert!(read(&["a=1", "a=2"]).expect_err("refused").contains("another key by that name already exists"));
        assert!(read(&["a b=1"]).expect_err("refused").contains("is not a valid key name for a ConfigMap"));
        assert!(read(&["=1"]).expect_err("refused").contains("invalid literal source"));
    }
}
