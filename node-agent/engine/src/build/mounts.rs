//! `RUN --mount=…`: what a command sees besides the image. Pure.
//!
//! Source: Dockerfile reference, "RUN --mount".

use std::path::PathBuf;

/// One mount, its variables not expanded yet: fields in order.
pub(super) type Fields = Vec<(String, Option<String>)>;

/// Where a command sees what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MountSpec {
    /// Where; absolute or below the working folder.
    pub(super) target: PathBuf,
    pub(super) kind: Kind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Files of the build context, of a stage or of an image. What is written into them is lost.
    Bind { from: Option<String>, source: String, writable: bool },
    /// A folder that later builds find again.
    Cache { id: String, from: Option<String>, source: String, sharing: Sharing, read_only: bool, owner: Owner },
    /// An empty folder in memory, of at most so many bytes.
    Tmpfs { size: Option<u64> },
    /// A file that is in no image.
    Secret { id: String, required: bool, env: Option<String>, as_file: bool, owner: Owner },
    /// A socket at which an SSH agent answers.
    Ssh { id: String, required: bool, owner: Owner },
}

/// How builds that use one cache at once get along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// All write into it.
    Shared,
    /// Who comes second gets a folder of its own.
    Private,
    /// Who comes second waits.
    Locked,
}

/// Who owns what is mounted, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Splits `type=cache,target=/x,ro` at commas.
pub(super) fn fields(text: &str) -> Result<Fields, String> {
    let field = |field: &str| match field.split_once('=') {
        Some((key, value)) => (key.to_ascii_lowercase(), Some(value.trim_matches('"').to_owned())),
        None => (field.to_ascii_lowercase(), None),
    };
    let fields: Fields = text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(field).collect();
    if fields.is_empty() {
        return Err("--mount needs options".to_owned());
    }
    Ok(fields)
}

/// Where the files of a mount come from, if from a stage or an image.
pub(super) fn origin(fields: &Fields) -> Option<&str> {
    fields.iter().find(|(key, _)| key == "from").and_then(|(_, value)| value.as_deref())
}

/// What can be known of a mount before its variables are.
pub(super) fn check(fields: &Fields) -> Result<(), String> {
    if origin(fields).is_some_and(|from| from.contains('$')) {
        return Err("'from' doesn't support variable expansion, define alias stage instead".to_owned());
    }
    let later = fields.iter().any(|(_, value)| value.as_ref().is_some_and(|value| value.contains('$')));
    if later { Ok(()) } else { MountSpec::parse(fields).map(|_| ()) }
}

impl MountSpec {
    /// Reads the fields of one mount.
    pub(super) fn parse(fields: &Fields) -> Result<Self, String> {
        let kind = fields.iter().find(|(key, _)| key == "type").and_then(|(_, value)| value.as_deref());
        let kind = kind.unwrap_or("bind");
        let allowed: &[&str] = match kind {
            "bind" => &["from", "source", "src", "rw", "readwrite", "ro", "readonly"],
            "cache" => {
                &["id", "from", "source", "src", "sharing", "ro", "readonly", "rw", "readwrite", "mode", "uid", "gid"]
            }
            "tmpfs" => &["size", "ro", "readonly", "rw", "readwrite"],
            "secret" => &["id", "source", "src", "required", "env", "mode", "uid", "gid", "ro", "readonly"],
            "ssh" => &["id", "required", "mode", "uid", "gid"],
            other => return Err(format!("unsupported mount type {other:?}")),
        };
        let known = |key: &str| matches!(key, "type" | "target" | "dst" | "destination") || allowed.contains(&key);
        if let Some((key, _)) = fields.iter().find(|(key, _)| !known(key)) {
            return Err(format!("unexpected key '{key}' for mount type {kind:?}"));
        }
        let fields = Reader(fields);
        let target = fields.text(&["target", "dst", "destination"])?;
        let from = fields.text(&["from"])?;
        let source = fields.text(&["source", "src"])?.unwrap_or_else(|| "/".to_owned());
        let kind = match kind {
            "bind" => Kind::Bind { from, source, writable: fields.flag(&["rw", "readwrite"])? },
            "cache" => Kind::Cache {
                id: fields.text(&["id"])?.or_else(|| target.clone()).unwrap_or_default(),
                from,
                source,
                sharing: fields.sharing()?,
                read_only: fields.flag(&["ro", "readonly"])?,
                owner: fields.owner(0o755)?,
            },
            "tmpfs" => Kind::Tmpfs { size: fields.text(&["size"])?.map(|text| size(&text)).transpose()? },
            "ssh" => {
                let id = fields.text(&["id"])?.filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned());
                let kind = Kind::Ssh { id, required: fields.flag(&["required"])?, owner: fields.owner(0o600)? };
                // As BuildKit has it; a second one in the same command needs a target of its own there, too.
                let target = target.unwrap_or_else(|| "/run/buildkit/ssh_agent.0".to_owned());
                return Ok(Self { target: target.into(), kind });
            }
            _ => return fields.secret(target),
        };
        // Without one it is the working folder.
        Ok(Self { target: target.unwrap_or_default().into(), kind })
    }
}

struct Reader<'a>(&'a Fields);

impl Reader<'_> {
    fn find(&self, names: &[&str]) -> Option<&Option<String>> {
        self.0.iter().rev().find(|(key, _)| names.contains(&key.as_str())).map(|(_, value)| value)
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        match self.find(names) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value.clone())),
            Some(None) => Err(format!("invalid field '{}': it must be a key=value pair", names[0])),
        }
    }

    fn flag(&self, names: &[&str]) -> Result<bool, String> {
        match self.find(names) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(value)) => match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                other => Err(format!("invalid value for {}: {other}", names[0])),
            },
        }
    }

    fn number(&self, name: &str, radix: u32) -> Result<Option<u32>, String> {
        let parse = |text: String| {
            u32::from_str_radix(&text, radix).map_err(|_| format!("invalid value {text} for {name}: not a number"))
        };
        self.text(&[name])?.map(parse).transpose()
    }

    fn owner(&self, mode: u32) -> Result<Owner, String> {
        Ok(Owner {
            uid: self.number("uid", 10)?.unwrap_or(0),
            gid: self.number("gid", 10)?.unwrap_or(0),
            mode: self.number("mode", 8)?.map_or(mode, |mode| mode & 0o7777),
        })
    }

    fn sharing(&self) -> Result<Sharing, String> {
        match self.text(&["sharing"])?.as_deref() {
            None | Some("shared") => Ok(Sharing::Shared),
            Some("private") => Ok(Sharing::Private),
            Some("locked") => Ok(Sharing::Locked),
            Some(other) => Err(format!("unsupported sharing value {other:?}")),
        }
    }

    /// As a file at `target`, as a variable, or both.
    fn secret(&self, target: Option<String>) -> Result<MountSpec, String> {
        let env = self.text(&["env"])?;
        let last = target.as_deref().and_then(|target| target.rsplit('/').next()).map(str::to_owned);
        let (id, source) = (self.text(&["id"])?, self.text(&["source", "src"])?);
        if id.is_some() && source.is_some() {
            return Err("both source and id can't be set".to_owned());
        }
        let id = id.or(source).or(last).filter(|id| !id.is_empty());
        let id = id.ok_or("one of source, target required for a secret")?;
        let as_file = target.is_some() || env.is_none();
        let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
        let kind = Kind::Secret { id, required: self.flag(&["required"])?, env, as_file, owner: self.owner(0o400)? };
        Ok(MountSpec { target: target.into(), kind })
    }
}

/// `64m`, `1GiB`, `4096`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("invalid size {text:?}")),
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(1 << shift)).ok_or_else(|| format!("invalid size {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountSpec, String> {
        MountSpec::parse(&fields(text)?)
    }

    #[test]
    fn mounts_have_the_defaults_that_docker_gives_them() {
        let bind = Kind::Bind { from: None, source: "/".to_owned(), writable: false };
        assert_eq!(parse("target=/src").unwrap(), MountSpec { target: "/src".into(), kind: bind });
        let owner = Owner { uid: 0, gid: 0, mode: 0o755 };
        let cache = parse("type=cache,target=/root/.cache").unwrap().kind;
        let expected = Kind::Cache {
            id: "/root/.cache".to_owned(),
            from: None,
            source: "/".to_owned(),
            sharing: Sharing::Shared,
            read_only: false,
            owner,
        };
        assert_eq!(cache, expected);
        assert_eq!(parse("from=other").unwrap().target, PathBuf::new(), "the working folder");
        assert_eq!(parse("type=secret,src=token").unwrap(), parse("type=secret,id=token,ro").unwrap());
        let secret = parse("type=secret,id=token").unwrap();
        assert_eq!(secret.target, PathBuf::from("/run/secrets/token"));
        assert!(matches!(secret.kind, Kind::Secret { owner: Owner { mode: 0o400, .. }, as_file: true, .. }));
        assert!(matches!(parse("type=secret,id=a,env=A").unwrap().kind, Kind::Secret { as_file: false, .. }));
        let ssh = parse("type=ssh").unwrap();
        assert_eq!(ssh.target, PathBuf::from("/run/buildkit/ssh_agent.0"));
        assert!(matches!(ssh.kind, Kind::Ssh { id, owner: Owner { mode: 0o600, .. }, .. } if id == "default"));
        let tmpfs = parse("type=tmpfs,dst=/t,size=64m").unwrap().kind;
        assert_eq!(tmpfs, Kind::Tmpfs { size: Some(64 << 20) });
    }

    #[test]
    fn what_is_wrong_with_a_mount_is_said() {
        for (text, words) in [
            ("", "--mount needs options"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=nfs,target=/x", "unsupported mount type \"nfs\""),
            ("type=ssh,source=/x", "unexpected key 'source' for mount type \"ssh\""),
            ("type=tmpfs,target=/x,from=y", "unexpected key 'from' for mount type \"tmpfs\""),
            ("type=cache,target=/x,sharing=some", "unsupported sharing value \"some\""),
            ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
            ("type=tmpfs,target=/x,size=lots", "invalid size \"lots\""),
            ("type=bind,target", "invalid field 'target'"),
            ("type=secret", "required for a secret"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
