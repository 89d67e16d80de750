//! Names of images: parsing and normalising as Docker does. No registry and no store here.
//!
//! Source: the grammar and the normal form of `github.com/distribution/reference`.

use std::fmt;
use std::str::FromStr;

/// Domain of names that give none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// First path component of names on [`DEFAULT_DOMAIN`] that have only one.
const OFFICIAL_PREFIX: &str = "library/";
/// Longest repository name, domain included.
const NAME_LEN_MAX: usize = 255;
/// Longest tag.
const TAG_LEN_MAX: usize = 128;

/// A normalised image name: what stands in the store and in a pod's status.
///
/// Always holds: domain and path are not empty, and there is a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A content digest, `sha256:` and 64 lower-case hexadecimal digits: safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a name is none: the user's fault, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing more can be said.
    Format,
    /// Capital letters in the repository.
    Uppercase,
    /// 64 hexadecimal digits are an image's id.
    LooksLikeId,
    /// Longer than 255 characters.
    TooLong,
    /// A digest that is not sha256.
    DigestAlgorithm,
    /// A digest of the wrong length.
    DigestLength,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceError {
    /// The part at fault.
    pub subject: String,
    /// The rule it breaks.
    pub fault: Fault,
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match self.fault {
            Fault::Format => write!(f, "invalid reference format"),
            Fault::Uppercase => write!(f, "invalid reference format: repository name ({subject}) must be lowercase"),
            Fault::LooksLikeId => {
                write!(f, "invalid repository name ({subject}), cannot specify 64-byte hexadecimal strings")
            }
            Fault::TooLong => write!(f, "repository name must not be more than {NAME_LEN_MAX} characters"),
            Fault::DigestAlgorithm => write!(f, "unsupported digest algorithm"),
            Fault::DigestLength => write!(f, "invalid checksum digest length"),
        }
    }
}

impl std::error::Error for ReferenceError {}

fn fault(subject: &str, fault: Fault) -> ReferenceError {
    ReferenceError { subject: subject.to_owned(), fault }
}

impl Reference {
    /// Parses a name as users write it: `nginx`, `localhost:5000/x:1`, `a/b@sha256:…`. A name without tag and
    /// digest gets `latest`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_hex(text, 64) {
            return Err(fault(text, Fault::LooksLikeId));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(named);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder.as_str(), None),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(fault(path, Fault::Uppercase));
        }
        if !is_domain(&domain) || !path.split('/').all(is_path_component) || !tag.is_none_or(is_tag) {
            return Err(fault(text, Fault::Format));
        }
        if domain.len() + 1 + path.len() > NAME_LEN_MAX {
            return Err(fault(path, Fault::TooLong));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { path: path.to_owned(), domain, tag, digest })
    }

    /// The registry: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository at the registry: `library/nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `None` only beside a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest, when the name pins one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/nginx`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `docker.io/library/nginx:1.27`; `None` when a digest stands instead of a tag.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.repository())),
            _ => None,
        }
    }

    /// As Docker shows it to people: `nginx:1.27`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(rest) = full.strip_prefix("docker.io/") else { return full };
        rest.strip_prefix(OFFICIAL_PREFIX).unwrap_or(rest).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Digest {
    /// Accepts `sha256:` and 64 lower-case hexadecimal digits, nothing else.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let Some((algorithm, hex)) = text.split_once(':') else { return Err(fault(text, Fault::Format)) };
        if algorithm != "sha256" {
            return Err(fault(text, Fault::DigestAlgorithm));
        }
        if hex.len() != 64 {
            return Err(fault(text, Fault::DigestLength));
        }
        if !is_hex(hex, 64) {
            return Err(fault(text, Fault::Format));
        }
        Ok(Self(text.to_owned()))
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_sha256(&sha2::Sha256::digest(bytes))
    }

    /// From the 32 bytes of a finished hash.
    pub(crate) fn from_sha256(hash: &[u8]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A first component is a registry only when it looks like a host: a dot, a port, `localhost` or capitals.
fn split_domain(name: &str) -> (String, String) {
    let (domain, remainder) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest.to_owned())
        }
        _ => (DEFAULT_DOMAIN, name.to_owned()),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL_PREFIX}{remainder}"));
    }
    (domain.to_owned(), remainder)
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return false;
    }
    text.split(alphanumeric)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_LEN_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, normal) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("foo/bar", "docker.io/foo/bar:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("Registry/x", "Registry/x:latest"),
            ("ghcr.io/a/b--c__d.e:T_1.2-3", "ghcr.io/a/b--c__d.e:T_1.2-3"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), normal, "{text}");
        }
    }

    #[test]
    fn a_digest_stands_instead_of_the_default_tag() {
        let reference = Reference::parse(&format!("nginx@sha256:{HEX}")).unwrap();
        assert_eq!(reference.to_string(), format!("docker.io/library/nginx@sha256:{HEX}"));
        assert_eq!(reference.tagged(), None);
        let both = Reference::parse(&format!("nginx:1@sha256:{HEX}")).unwrap();
        assert_eq!(both.tag(), Some("1"));
        assert_eq!(both.tagged(), None);
    }

    #[test]
    fn names_that_docker_refuses_are_refused_in_its_words() {
        for (text, words) in [
            ("", "invalid reference format"),
            ("NGINX", "invalid reference format: repository name (library/NGINX) must be lowercase"),
            ("a//b", "invalid reference format"),
            ("/nginx", "invalid reference format"),
            ("nginx:", "invalid reference format"),
            ("nginx: 1", "invalid reference format"),
            ("../../etc/passwd", "invalid reference format"),
            ("a/../b", "invalid reference format"),
            ("a/b_.c", "invalid reference format"),
            ("-a/b", "invalid reference format"),
            ("nginx@md5:00", "unsupported digest algorithm"),
            ("nginx@sha256:00", "invalid checksum digest length"),
            (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), words, "{text}");
        }
        let long = Reference::parse(&"a/".repeat(130)).unwrap_err();
        assert_eq!(long.fault, Fault::Format);
        let long = Reference::parse(&"a".repeat(300)).unwrap_err();
        assert_eq!(long.to_string(), "repository name must not be more than 255 characters");
    }

    #[test]
    fn people_see_the_short_form() {
        for (text, short) in [("nginx", "nginx:latest"), ("a/b:1", "a/b:1"), ("localhost/x", "localhost/x:latest")] {
            assert_eq!(Reference::parse(text).unwrap().familiar(), short);
        }
    }
}
