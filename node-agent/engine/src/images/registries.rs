//! Where images of a registry come from: its mirrors, what is spoken in the clear, certificates and passwords.
//!
//! Read from one file whenever something is fetched, so that it takes effect at once: `/etc/reeve/registries.yaml`, in
//! the format that users of k3s have ("Private Registry Configuration" in its documentation). Pure but for reading
//! files; what travels is [`super::pull`]'s.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

use super::error::{ImageError, Step as _};
use super::reference::Reference;
use crate::engine::RegistryAuth;

/// Where the file lies on a node.
pub const REGISTRIES_FILE: &str = "/etc/reeve/registries.yaml";
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The key of mirrors for every registry that has none of its own.
const EVERY_REGISTRY: &str = "*";

/// The file. A missing one is an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registries {
    /// By registry, as image names have it (`docker.io`, `registry.lan:5000`), or `*`.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By the host that is spoken to.
    pub configs: BTreeMap<String, HostConfig>,
    /// Whether images that were built or loaded on one node of the cluster are given to the others; yes unless it says
    /// no. Ours: k3s has no such field.
    pub peers: Option<bool>,
}

/// Where a registry's images are looked for before it is asked itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// `http://HOST[:PORT]` or `https://…`, in the order in which they are asked; `/v2/PREFIX` behind it stands before
    /// the repository's name.
    pub endpoint: Vec<String>,
    /// Regular expressions over the repository's name, and what takes the place of what matches. The first that matches
    /// counts.
    pub rewrite: BTreeMap<String, String>,
}

/// How a host is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Who we are there, unless the pull itself brings a secret for the registry.
    pub auth: Option<HostAuth>,
    /// Its certificate.
    pub tls: HostTls,
}

/// A name and a password.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostAuth {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How a host proves who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostTls {
    /// PEM file of the authority behind its certificate, besides those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Any certificate will do.
    pub insecure_skip_verify: bool,
}

/// One place to ask for an image.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The host, with the port if it says one.
    pub(crate) host: String,
    /// The repository there.
    pub(crate) repository: String,
    /// Over HTTP, not HTTPS.
    pub(crate) plain: bool,
    /// Besides those that the system trusts: the PEM text.
    pub(crate) ca: Option<Vec<u8>>,
    /// Any certificate will do.
    pub(crate) skip_verify: bool,
    /// Who we are there.
    pub(crate) auth: Option<RegistryAuth>,
    /// Whether others are asked when it fails.
    pub(crate) is_mirror: bool,
}

impl Registries {
    /// Whether nodes give images to each other.
    pub(crate) fn gives_to_peers(&self) -> bool {
        self.peers.unwrap_or(true)
    }

    /// Reads the file; nothing is configured when there is none.
    pub(crate) fn read(path: &Path) -> Result<Self, ImageError> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            found => {
                if found.step("look at", path)?.len() > FILE_BYTES_MAX {
                    return Err(ImageError::invalid(path.display().to_string(), "larger than 1 MiB"));
                }
            }
        }
        Self::parse(&fs::read_to_string(path).step("read", path)?)
            .map_err(|reason| ImageError::invalid(path.display().to_string(), reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let all: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        for (registry, mirror) in &all.mirrors {
            let said = |why: String| format!("mirrors[{registry:?}].{why}");
            for endpoint in &mirror.endpoint {
                address(endpoint).map_err(|why| said(format!("endpoint: Invalid value: {endpoint:?}: {why}")))?;
            }
            for pattern in mirror.rewrite.keys() {
                Regex::new(pattern).map_err(|why| said(format!("rewrite: Invalid value: {pattern:?}: {why}")))?;
            }
        }
        Ok(all)
    }

    /// Where an image is asked for, in this order; the last one is the registry itself. `auth` is what the pull brings
    /// for it.
    pub(crate) fn endpoints(&self, image: &Reference, auth: Option<RegistryAuth>) -> Result<Vec<Endpoint>, ImageError> {
        let mirror = self.mirrors.get(image.domain()).or_else(|| self.mirrors.get(EVERY_REGISTRY));
        let mut all = Vec::new();
        for endpoint in mirror.map(|mirror| mirror.endpoint.as_slice()).unwrap_or_default() {
            // Checked when the file was read.
            let Ok((plain, host, prefix)) = address(endpoint) else { continue };
            let repository = mirror.map_or_else(|| image.path().to_owned(), |mirror| mirror.rewritten(image.path()));
            let repository = if prefix.is_empty() { repository } else { format!("{prefix}/{repository}") };
            let mut one = self.endpoint(host, repository, plain)?;
            if one.is_of(image) {
                one.auth = auth.clone().or(one.auth);
            }
            all.push(one);
        }
        if !all.iter().any(|one| one.is_of(image)) {
            let domain = image.domain();
            let mut own = self.endpoint(domain, image.path().to_owned(), super::pull::is_local(domain))?;
            own.auth = auth.or(own.auth);
            all.push(own);
        }
        let last = all.len() - 1;
        all.iter_mut().enumerate().for_each(|(at, one)| one.is_mirror = at < last);
        Ok(all)
    }

    /// The registry itself: where images are sent.
    pub(crate) fn origin(&self, image: &Reference, auth: Option<RegistryAuth>) -> Result<Endpoint, ImageError> {
        let own = self.endpoints(image, auth)?.into_iter().find(|one| one.is_of(image));
        own.ok_or_else(|| ImageError::invalid(image.to_string(), "its registry is not among its endpoints"))
    }

    fn endpoint(&self, host: &str, repository: String, plain: bool) -> Result<Endpoint, ImageError> {
        let config = self.configs.get(host);
        let tls = config.map(|config| &config.tls);
        let ca = match tls.and_then(|tls| tls.ca_file.as_deref()) {
            Some(path) => Some(fs::read(path).step("read", path)?),
            None => None,
        };
        let known = config.and_then(|config| config.auth.as_ref());
        let known = known.map(|auth| RegistryAuth { username: auth.username.clone(), password: auth.password.clone() });
        Ok(Endpoint {
            host: host.to_owned(),
            repository,
            plain,
            ca,
            skip_verify: tls.is_some_and(|tls| tls.insecure_skip_verify),
            auth: known,
            is_mirror: false,
        })
    }
}

impl Endpoint {
    /// Whether it is the registry that the image's name says.
    fn is_of(&self, image: &Reference) -> bool {
        self.host == image.domain() && self.repository == image.path()
    }
}

impl Mirror {
    fn rewritten(&self, repository: &str) -> String {
        let rule = |(pattern, to): (&String, &String)| {
            // Checked when the file was read.
            let pattern = Regex::new(pattern).ok()?;
            pattern.is_match(repository).then(|| pattern.replace(repository, to.as_str()).into_owned())
        };
        self.rewrite.iter().find_map(rule).unwrap_or_else(|| repository.to_owned())
    }
}

/// Whether an endpoint is spoken to in the clear, its host, and what stands before the names of repositories.
fn address(endpoint: &str) -> Result<(bool, &str, &str), &'static str> {
    let (scheme, rest) = endpoint.split_once("://").ok_or("must start with http:// or https://")?;
    let plain = match scheme {
        "http" => true,
        "https" => false,
        _ => return Err("must start with http:// or https://"),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(is_letter) {
        return Err("must have a host, and a port if it is not the usual one");
    }
    let prefix = match path.trim_end_matches('/') {
        "" | "v2" => "",
        path => path.strip_prefix("v2/").ok_or("a path must start with /v2/")?,
    };
    Ok((plain, host, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `http://HOST/REPOSITORY`, `user@` before the host, `?any` behind where any certificate will do.
    fn shown(registries: &Registries, image: &str) -> Vec<String> {
        let image = Reference::parse(image).unwrap();
        let auth = Some(RegistryAuth { username: "pod".to_owned(), password: String::new() });
        let show = |one: Endpoint| {
            let scheme = if one.plain { "http" } else { "https" };
            let user = one.auth.map(|auth| format!("{}@", auth.username)).unwrap_or_default();
            let any = if one.skip_verify { "?any" } else { "" };
            format!("{scheme}://{user}{}/{}{any}", one.host, one.repository)
        };
        registries.endpoints(&image, auth).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn mirrors_are_asked_in_order_and_the_registry_itself_at_last() {
        let registries = Registries::parse(
            r#"
mirrors:
  docker.io:
    endpoint: ["https://one.lan:5000", "http://two.lan/v2/hub/"]
    rewrite: {"^library/(.*)": "base/$1"}
  registry.lan:5000:
    endpoint: ["http://registry.lan:5000"]
  "*":
    endpoint: ["https://any.lan"]
configs:
  one.lan:5000: {auth: {username: me, password: secret}, tls: {insecure_skip_verify: true}}
"#,
        )
        .unwrap();
        let of_hub = [
            "https://me@one.lan:5000/base/web?any",
            "http://two.lan/hub/base/web",
            "https://pod@docker.io/library/web",
        ];
        assert_eq!(shown(&registries, "web"), of_hub);
        assert_eq!(shown(&registries, "registry.lan:5000/a/b"), ["http://pod@registry.lan:5000/a/b"]);
        assert_eq!(shown(&registries, "quay.io/a/b"), ["https://any.lan/a/b", "https://pod@quay.io/a/b"]);
        assert_eq!(shown(&Registries::default(), "localhost:5000/a"), ["http://pod@localhost:5000/a"]);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        for (text, why) in [
            ("mirror: {}", "unknown field `mirror`"),
            (
                "mirrors: {a: {endpoint: [b.lan]}}",
                r#"mirrors["a"].endpoint: Invalid value: "b.lan": must start with http:// or https://"#,
            ),
            ("mirrors: {a: {endpoint: ['ftp://b']}}", "must start with http:// or https://"),
            ("mirrors: {a: {endpoint: ['https:///x']}}", "must have a host"),
            ("mirrors: {a: {endpoint: ['https://b/x']}}", "a path must start with /v2/"),
            ("mirrors: {a: {rewrite: {'(': x}}}", r#"mirrors["a"].rewrite: Invalid value: "(""#),
            ("configs: {a: {tls: {cert_file: /x}}}", "unknown field `cert_file`"),
        ] {
            let said = Registries::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert_eq!(Registries::parse(" \n"), Ok(Registries::default()));
    }
}
