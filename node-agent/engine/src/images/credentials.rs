//! Who one is at which registry: Docker's configuration file, credential helpers, and what `imagePullSecrets` hold.
//!
//! Source: Docker's `config.json` (docs.docker.com/reference/cli/docker/login, "Credential stores"); which entry is
//! meant for an image is Kubernetes' rule (kubernetes.io/docs/concepts/containers/images, "config.json").

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::Deserialize;

use super::Reference;
use super::error::{ImageError, Step};
use crate::engine::RegistryAuth;

/// Largest configuration file, and largest answer of a helper.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The key under which Docker keeps who one is at its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The user that a helper names when it gives a token that is exchanged for others.
pub(super) const TOKEN_USER: &str = "<token>";

/// A configuration: who one is, by registry.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    /// The helper for all registries.
    #[serde(default, rename = "credsStore")]
    store: String,
    /// Helpers by registry.
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

/// Debug shows no secret.
#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: String,
    /// What is exchanged for tokens, instead of a password.
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl DockerConfig {
    /// `config.json` and `.dockerconfigjson`; `None` when it is neither.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// `.dockercfg`: the entries alone, the older form.
    #[must_use]
    pub fn parse_entries(json: &[u8]) -> Option<Self> {
        Some(Self { auths: serde_json::from_slice(json).ok()?, ..Self::default() })
    }

    /// The configuration of whoever runs this: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`. Empty when
    /// there is none.
    ///
    /// # Errors
    /// When the file cannot be read or is no configuration.
    pub fn of_user() -> Result<Self, ImageError> {
        let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
        match dir.or_else(home) {
            Some(dir) => Self::read(&dir.join("config.json")),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, ImageError> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
                return Err(ImageError::invalid(path.display().to_string(), "too large for a configuration"));
            }
            _ => {}
        }
        let bytes = std::fs::read(path).step("read", path)?;
        Self::parse(&bytes).ok_or_else(|| ImageError::invalid(path.display().to_string(), "no Docker configuration"))
    }

    /// What is written in the configuration for an image: the entry that says most of its name. Asks no helper.
    #[must_use]
    pub fn written_for(&self, image: &Reference) -> Option<RegistryAuth> {
        let fits = self.auths.iter().filter(|(key, entry)| fits(key, image) && !entry.is_empty());
        fits.max_by_key(|(key, _)| bare(key).len()).and_then(|(_, entry)| entry.auth())
    }

    /// Everything that is written for an image, each with the entry it stands under.
    #[must_use]
    pub fn all_written_for(&self, image: &Reference) -> Vec<(String, RegistryAuth)> {
        let fitting = self.auths.iter().filter(|(key, entry)| fits(key, image) && !entry.is_empty());
        fitting.filter_map(|(key, entry)| Some((bare(key).to_owned(), entry.auth()?))).collect()
    }

    /// A configuration of these registries, users and passwords.
    #[must_use]
    pub fn of_entries(entries: impl Iterator<Item = (String, String, String)>) -> Self {
        let entry = |(key, username, password)| (key, Entry { username, password, ..Entry::default() });
        Self { auths: entries.map(entry).collect(), ..Self::default() }
    }

    /// Who one is for an image: what its registry's helper says, else what is written. Blocks while a helper runs.
    ///
    /// # Errors
    /// When the helper cannot be run or gives what cannot be used.
    pub fn for_image(&self, image: &Reference) -> Result<Option<RegistryAuth>, ImageError> {
        let server = if image.domain() == "docker.io" { DOCKER_HUB } else { image.domain() };
        let own = self.helpers.iter().find(|(key, _)| *key == server || bare(key) == image.domain());
        let helper =
            own.map(|(_, helper)| helper.as_str()).or(Some(self.store.as_str()).filter(|name| !name.is_empty()));
        match helper.map(|helper| ask(helper, server)).transpose()?.flatten() {
            Some(auth) => Ok(Some(auth)),
            None => Ok(self.written_for(image)),
        }
    }
}

impl Entry {
    /// Where a helper keeps the secret, only the registry's name is here.
    fn is_empty(&self) -> bool {
        self.username.is_empty() && self.auth.is_empty() && self.identity_token.is_empty()
    }

    fn auth(&self) -> Option<RegistryAuth> {
        if !self.identity_token.is_empty() {
            return Some(RegistryAuth { username: TOKEN_USER.to_owned(), password: self.identity_token.clone() });
        }
        if !self.username.is_empty() {
            return Some(RegistryAuth { username: self.username.clone(), password: self.password.clone() });
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(RegistryAuth { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
    }
}

/// Images by the beginning of their names: `*.registry.io/path`. Source: Kubernetes' `matchImages` (`URLsMatch`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    /// The host's parts; `*` within one stands for any characters.
    host: Vec<String>,
    port: String,
    path: String,
}

impl ImagePattern {
    /// `None` when it is no host with port and path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
        let is_plain = |text: &str| !text.contains([' ', '?', '#', '\\', '%']) && !text.chars().any(char::is_control);
        let fine = !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) && is_plain(host) && is_plain(path);
        let host = host.split('.').map(str::to_owned).collect();
        fine.then(|| Self { host, port: port.to_owned(), path: path.to_owned() })
    }

    /// Whether an image is one of them.
    #[must_use]
    pub fn matches(&self, image: &Reference) -> bool {
        let (host, port) = image.domain().rsplit_once(':').unwrap_or((image.domain(), ""));
        let parts: Vec<&str> = host.split('.').collect();
        let same = |(pattern, part): (&String, &&str)| glob(pattern, part);
        port == self.port
            && parts.len() == self.host.len()
            && self.host.iter().zip(&parts).all(same)
            && format!("/{}", image.path()).starts_with(&self.path)
    }
}

/// A key without scheme, and without the path that Docker gives its own registry.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// Whether an entry is meant for an image: `*.example.com`, a host with its port, a host with the beginning of a path.
fn fits(key: &str, image: &Reference) -> bool {
    let key = bare(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = if host == "index.docker.io" || host == "registry-1.docker.io" { "docker.io" } else { host };
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (host.split('.').collect(), image.domain().split('.').collect());
    let same = |(pattern, part): (&&str, &&str)| pattern == part || glob(pattern, part);
    patterns.len() == parts.len() && patterns.iter().zip(&parts).all(same) && image.path().starts_with(path)
}

/// `*` stands for any number of characters, within one part of a host's name.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| glob(after, rest)))
}

/// Asks `docker-credential-NAME`. It says so when it knows nothing.
fn ask(helper: &str, server: &str) -> Result<Option<RegistryAuth>, ImageError> {
    let program = format!("docker-credential-{helper}");
    if helper.contains('/') {
        return Err(ImageError::invalid(program, "a helper's name is no path"));
    }
    ask_at(Path::new(&program), server)
}

fn ask_at(program: &Path, server: &str) -> Result<Option<RegistryAuth>, ImageError> {
    let failed = |reason: String| ImageError::invalid(program.display().to_string(), reason);
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not want to know says so by its answer.
        let _ = input.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(format!("{server}: {}", text.trim()))),
        };
    }
    let answer: Answer = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Some(RegistryAuth { username: answer.username, password: answer.secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &serde_json::Value) -> DockerConfig {
        DockerConfig::parse(json.to_string().as_bytes()).unwrap()
    }

    fn user(config: &DockerConfig, image: &str) -> Option<String> {
        config.written_for(&Reference::parse(image).unwrap()).map(|auth| auth.username)
    }

    #[test]
    fn the_entry_that_says_most_of_an_images_name_is_meant() {
        let hub = base64::engine::general_purpose::STANDARD.encode("hub:a:b");
        let config = config(&serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": hub },
            "registry.example:5000": { "username": "host", "password": "p" },
            "registry.example:5000/team/": { "username": "team", "password": "p" },
            "*.cloud.example": { "username": "glob", "password": "p" },
            "helped.example": {},
            "token.example": { "auth": hub, "identitytoken": "t" },
        }}));
        for (image, expected) in [
            ("nginx", Some("hub")),
            ("registry.example:5000/a", Some("host")),
            ("registry.example:5000/team/a:1", Some("team")),
            ("registry.example/a", None),
            ("eu.cloud.example/a", Some("glob")),
            ("a.eu.cloud.example/a", None),
            ("helped.example/a", None),
            ("token.example/a", Some(TOKEN_USER)),
        ] {
            assert_eq!(user(&config, image).as_deref(), expected, "{image}");
        }
        let auth = config.written_for(&Reference::parse("nginx").unwrap()).unwrap();
        assert_eq!(auth.password, "a:b");
        let old = DockerConfig::parse_entries(br#"{"old.example":{"username":"u","password":"p"}}"#).unwrap();
        assert_eq!(user(&old, "old.example/x").as_deref(), Some("u"));
        assert!(DockerConfig::parse(b"[").is_none());
    }

    #[test]
    fn patterns_match_images_as_the_kubelets_do() {
        for (pattern, image, matches) in [
            ("a.lan", "a.lan/x:1", true),
            ("a.lan", "b.a.lan/x", false),
            ("*.lan", "a.lan/x", true),
            ("*.lan", "a.b.lan/x", false),
            ("a*.*.lan", "ab.c.lan/x", true),
            ("a.lan:5000", "a.lan:5000/x", true),
            ("a.lan", "a.lan:5000/x", false),
            ("a.lan/team", "a.lan/team/x", true),
            ("a.lan/team", "a.lan/teams", true),
            ("a.lan/team", "a.lan/other", false),
            ("docker.io", "nginx", true),
            ("docker.io/library", "nginx", true),
            ("*", "nginx", false),
        ] {
            let pattern = ImagePattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(&Reference::parse(image).unwrap()), matches, "{pattern:?} {image}");
        }
        for bad in ["a b", "a.lan:x", "a:1:2", "a.lan/?"] {
            assert_eq!(ImagePattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_helper_is_asked_before_what_is_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-reeve-test");
        let script = "#!/bin/sh\nread server\ncase $server in known.example) \
            echo '{\"ServerURL\":\"x\",\"Username\":\"helped\",\"Secret\":\"s\"}';; \
            token.example) echo '{\"Username\":\"<token>\",\"Secret\":\"s\"}';; broken.example) echo oh; exit 1;; \
            *) echo credentials not found in native keychain; exit 1;; esac\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let answer = |server: &str| ask_at(&program, server);
        assert_eq!(answer("known.example").unwrap().unwrap().username, "helped");
        assert!(answer("other.example").unwrap().is_none());
        assert!(answer("broken.example").unwrap_err().to_string().contains("broken.example: oh"));
        assert_eq!(answer("token.example").unwrap().unwrap().username, TOKEN_USER, "to be exchanged for others");
        let none = config(&serde_json::json!({ "credsStore": "reeve-no-such-helper" }));
        let error = none.for_image(&Reference::parse("nginx").unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("docker-credential-reeve-no-such-helper: "), "{error}");
        assert!(ask("../x", "a").is_err());
    }
}
