//! The kubelet's `CredentialProviderConfig`: which plugin is asked for which image. Read once, strictly.
//!
//! Source: kubelet.config.k8s.io/v1 `CredentialProviderConfig`, with the kubelet's rules and words.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use reeve_engine::images::ImagePattern;
use serde::Deserialize;

/// Longest file that is read, and most files of a folder.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 256;
/// Versions of the configuration; they do not differ in what is read.
const CONFIG_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1alpha1", "kubelet.config.k8s.io/v1beta1"];
/// Versions of what is spoken with plugins; likewise.
const PLUGIN_V1: &str = "credentialprovider.kubelet.k8s.io/v1";
const PLUGIN_VERSIONS: [&str; 3] =
    [PLUGIN_V1, "credentialprovider.kubelet.k8s.io/v1alpha1", "credentialprovider.kubelet.k8s.io/v1beta1"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Written>,
}

/// A provider as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Written {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    api_version: String,
    args: Option<Vec<String>>,
    env: Option<Vec<EnvVar>>,
    token_attributes: Option<WrittenToken>,
}

/// A variable that a plugin gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvVar {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct WrittenToken {
    service_account_token_audience: String,
    cache_type: String,
    require_service_account: Option<bool>,
    required_service_account_annotation_keys: Vec<String>,
    optional_service_account_annotation_keys: Vec<String>,
}

/// One plugin.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<EnvVar>,
    pub(super) images: Vec<ImagePattern>,
    /// How long an answer holds that does not say so; zero: not at all.
    pub(super) cache_duration: Duration,
    pub(super) token: Option<TokenAttributes>,
}

/// What a plugin wants to know of a pod's service account.
#[derive(Debug, Clone)]
pub(super) struct TokenAttributes {
    pub(super) audience: String,
    pub(super) required: bool,
    /// Whether an answer holds for one token only, not for the account.
    pub(super) per_token: bool,
    pub(super) required_annotations: Vec<String>,
    pub(super) optional_annotations: Vec<String>,
}

/// Reads a file, or all `.json`, `.yaml` and `.yml` files of a folder in order, and finds the programs.
pub(super) fn read(path: &Path, bin_dir: &Path) -> Result<Vec<Provider>, String> {
    if !bin_dir.is_dir() {
        return Err(format!("plugin binary directory {} did not exist", bin_dir.display()));
    }
    let mut written: Vec<Written> = Vec::new();
    for file in files(path)? {
        let shown = file.display().to_string();
        for provider in parse(&text(&file)?).map_err(|why| format!("error decoding config {shown:?}: {why}"))? {
            if written.iter().any(|other| other.name == provider.name) {
                return Err(format!("duplicate provider name {:?} found in configuration file(s)", provider.name));
            }
            written.push(provider);
        }
    }
    let errors = validate(&written);
    if !errors.is_empty() {
        let text = if let [only] = errors.as_slice() { only.clone() } else { format!("[{}]", errors.join(", ")) };
        return Err(format!("failed to validate credential provider config: {text}"));
    }
    written.into_iter().map(|provider| provider.found_in(bin_dir)).collect()
}

/// What says whether two nodes were told the same: a digest of all files, each after its length.
pub(super) fn hash(path: &Path) -> Result<String, String> {
    let mut all = Vec::new();
    for file in files(path)? {
        let text = text(&file)?;
        all.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        all.extend(text.as_bytes());
    }
    Ok(reeve_engine::images::Digest::of(&all).to_string())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = path.display().to_string();
    let metadata = fs::metadata(path).map_err(|error| format!("unable to access path {shown:?}: {error}"))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|error| format!("unable to read directory {shown:?}: {error}"))?;
    let is_config = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml")) && !path.is_dir()
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_config).collect();
    files.sort();
    match files.len() {
        0 => Err(format!("no configuration files found in directory {shown:?}")),
        1..=FILES_MAX => Ok(files),
        _ => Err(format!("more than {FILES_MAX} configuration files in directory {shown:?}")),
    }
}

fn text(path: &Path) -> Result<String, String> {
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| format!("unable to read file {shown:?}: {error}");
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("unable to read file {shown:?}: larger than {FILE_BYTES_MAX} bytes"));
    }
    fs::read_to_string(path).map_err(failed)
}

fn parse(text: &str) -> Result<Vec<Written>, String> {
    let file: File = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if file.kind != "CredentialProviderConfig" {
        return Err(format!("failed to decode {:?} (wrong Kind)", file.kind));
    }
    if !CONFIG_VERSIONS.contains(&file.api_version.as_str()) {
        return Err(format!("no kind \"CredentialProviderConfig\" is registered for version {:?}", file.api_version));
    }
    Ok(file.providers)
}

/// Everything that is wrong, in Kubernetes' words. Source: `validateCredentialProviderConfig`.
fn validate(providers: &[Written]) -> Vec<String> {
    let mut errors = Vec::new();
    if providers.is_empty() {
        errors.push("providers: Required value: at least 1 item in plugins is required".to_owned());
    }
    for provider in providers {
        let name = &provider.name;
        for (bad, rule) in [
            (name.contains('/'), "provider name cannot contain '/'"),
            (name.contains(' '), "provider name cannot contain spaces"),
            (name == ".", "provider name cannot be '.'"),
            (name == "..", "provider name cannot be '..'"),
        ] {
            if bad {
                errors.push(format!("providers.name: Invalid value: {name:?}: {rule}"));
            }
        }
        let version = provider.api_version.as_str();
        if version.is_empty() {
            errors.push("providers.apiVersion: Required value".to_owned());
        } else if !PLUGIN_VERSIONS.contains(&version) {
            let known = PLUGIN_VERSIONS.map(|known| format!("{known:?}")).join(", ");
            errors.push(format!("providers.apiVersion: Unsupported value: {version:?}: supported values: {known}"));
        }
        if provider.match_images.is_empty() {
            errors.push("providers.matchImages: Required value: at least 1 item in matchImages is required".to_owned());
        }
        for pattern in provider.match_images.iter().filter(|pattern| ImagePattern::parse(pattern).is_none()) {
            errors.push(format!("providers.matchImages: Invalid value: {pattern:?}: match image is invalid"));
        }
        match provider.default_cache_duration.as_deref().map(duration) {
            None => errors.push("providers.defaultCacheDuration: Required value".to_owned()),
            Some(Some(duration)) if !duration.is_negative() => {}
            Some(_) => errors.push(format!(
                "providers.defaultCacheDuration: Invalid value: {:?}: must be greater than or equal to 0",
                provider.default_cache_duration.as_deref().unwrap_or_default()
            )),
        }
        if let Some(token) = &provider.token_attributes {
            validate_token(token, version, &mut errors);
        }
    }
    errors
}

fn validate_token(token: &WrittenToken, version: &str, errors: &mut Vec<String>) {
    let path = "providers.tokenAttributes";
    if token.service_account_token_audience.is_empty() {
        errors.push(format!("{path}.serviceAccountTokenAudience: Required value"));
    }
    if token.require_service_account.is_none() {
        errors.push(format!("{path}.requireServiceAccount: Required value"));
    }
    if version != PLUGIN_V1 {
        errors.push(format!("{path}: Forbidden: tokenAttributes is only supported for {PLUGIN_V1} API version"));
    }
    let (required, optional) =
        (&token.required_service_account_annotation_keys, &token.optional_service_account_annotation_keys);
    if token.require_service_account == Some(false) && !required.is_empty() {
        errors.push(format!(
            "{path}.requiredServiceAccountAnnotationKeys: Forbidden: requireServiceAccount cannot be false when \
             requiredServiceAccountAnnotationKeys is set"
        ));
    }
    for (field, keys) in [("required", required), ("optional", optional)] {
        let mut seen = BTreeSet::new();
        for key in keys.iter().filter(|key| !seen.insert(*key)) {
            errors.push(format!("{path}.{field}ServiceAccountAnnotationKeys: Duplicate value: {key:?}"));
        }
    }
    let both: BTreeSet<&String> = required.iter().filter(|key| optional.contains(key)).collect();
    if !both.is_empty() {
        errors.push(format!("{path}: Invalid value: {both:?}: annotation keys cannot be both required and optional"));
    }
    match token.cache_type.as_str() {
        "ServiceAccount" | "Token" => {}
        "" => errors.push(format!(
            "{path}.cacheType: Required value: cacheType is required to be set when tokenAttributes is specified. \
             Supported values are: ServiceAccount, Token"
        )),
        other => errors.push(format!(
            "{path}.cacheType: Unsupported value: {other:?}: supported values: \"ServiceAccount\", \"Token\""
        )),
    }
}

impl Written {
    fn found_in(self, bin_dir: &Path) -> Result<Provider, String> {
        use std::os::unix::fs::PermissionsExt as _;
        let program = bin_dir.join(&self.name);
        let metadata = fs::metadata(&program);
        if !metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0) {
            return Err(format!("plugin binary executable {} did not exist", program.display()));
        }
        let cache_duration = self.default_cache_duration.as_deref().and_then(duration).unwrap_or_default();
        let token = self.token_attributes.map(|token| TokenAttributes {
            audience: token.service_account_token_audience,
            required: token.require_service_account.unwrap_or_default(),
            per_token: token.cache_type == "Token",
            required_annotations: token.required_service_account_annotation_keys,
            optional_annotations: token.optional_service_account_annotation_keys,
        });
        Ok(Provider {
            program,
            name: self.name,
            api_version: self.api_version,
            args: self.args.unwrap_or_default(),
            env: self.env.unwrap_or_default(),
            images: self.match_images.iter().filter_map(|pattern| ImagePattern::parse(pattern)).collect(),
            cache_duration: cache_duration.unsigned_abs(),
            token,
        })
    }
}

/// Go's `time.ParseDuration`: `10m`, `1h30m`, `0`.
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    let is_gos = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'h' | 'm' | 's' | 'u' | 'µ' | 'n');
    match text {
        "0" => Some(SignedDuration::ZERO),
        text if text.chars().all(is_gos) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(provider: &str) -> String {
        format!("apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders: [{provider}]\n")
    }

    fn refused(provider: &str) -> String {
        match parse(&yaml(provider)) {
            Ok(providers) => validate(&providers).join("; "),
            Err(why) => why,
        }
    }

    const GOOD: &str = "name: p, matchImages: ['*.lan'], defaultCacheDuration: 1h30m, \
                        apiVersion: credentialprovider.kubelet.k8s.io/v1";

    #[test]
    fn a_configuration_is_refused_in_the_kubelets_words() {
        assert_eq!(refused(&format!("{{{GOOD}}}")), "");
        for (provider, words) in [
            ("", "providers: Required value: at least 1 item in plugins is required"),
            ("{name: p}", "providers.apiVersion: Required value; providers.matchImages: Required value"),
            ("{name: p}", "providers.defaultCacheDuration: Required value"),
            ("{name: a/b}", "providers.name: Invalid value: \"a/b\": provider name cannot contain '/'"),
            ("{name: ..}", "provider name cannot be '..'"),
            ("{name: p, apiVersion: v1}", "providers.apiVersion: Unsupported value: \"v1\": supported values: \"cred"),
            ("{name: p, defaultCacheDuration: -1s}", "\"-1s\": must be greater than or equal to 0"),
            ("{name: p, matchImage: []}", "unknown field `matchImage`"),
            ("{name: p, matchImages: ['a b']}", "providers.matchImages: Invalid value: \"a b\": match image is"),
            ("{name: p, tokenAttributes: {}}", "serviceAccountTokenAudience: Required value"),
            ("{name: p, tokenAttributes: {}}", "tokenAttributes is only supported for credentialprovider.kubelet"),
            ("{name: p, tokenAttributes: {cacheType: X}}", "cacheType: Unsupported value: \"X\""),
        ] {
            let said = refused(provider);
            assert!(said.contains(words), "{provider}: {said}");
        }
        assert!(parse("apiVersion: v1\nkind: Pod\n").unwrap_err().contains("failed to decode \"Pod\" (wrong Kind)"));
    }

    #[test]
    fn the_files_of_a_folder_are_one_configuration() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let config = dir.path().join("config");
        fs::create_dir(&config).unwrap();
        assert!(read(&config, &bin).unwrap_err().starts_with("no configuration files found in directory"));
        fs::write(config.join("b.yaml"), yaml(&format!("{{{GOOD}}}"))).unwrap();
        fs::write(config.join("a.json"), yaml(&format!("{{{}}}", GOOD.replace("name: p", "name: o")))).unwrap();
        fs::write(config.join("note.txt"), "not read").unwrap();
        let missing = read(&config, &bin).unwrap_err();
        assert_eq!(missing, format!("plugin binary executable {}/o did not exist", bin.display()));
        for name in ["o", "p"] {
            fs::write(bin.join(name), "").unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let providers = read(&config, &bin).unwrap();
        assert_eq!(providers.iter().map(|own| own.name.as_str()).collect::<Vec<_>>(), ["o", "p"]);
        assert_eq!(providers[0].cache_duration, Duration::from_secs(5400));
        fs::write(config.join("c.yml"), yaml(&format!("{{{GOOD}}}"))).unwrap();
        assert_eq!(read(&config, &bin).unwrap_err(), "duplicate provider name \"p\" found in configuration file(s)");
        assert!(read(&dir.path().join("none"), &bin).unwrap_err().starts_with("unable to access path"));
        assert!(read(&config, &dir.path().join("none")).unwrap_err().ends_with("/none did not exist"));
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("10m", Some(600)), ("1h30m", Some(5400)), ("0", Some(0)), ("0s", Some(0))] {
            assert_eq!(duration(text).map(|duration| duration.as_secs()), seconds, "{text}");
        }
        for text in ["", "10", "PT1H", "1 h", "soon"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
