//! Runs one plugin: a `CredentialProviderRequest` in, a `CredentialProviderResponse` out, as JSON.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::config::{Provider, duration};
use super::metrics::Runs;

/// How long a plugin may take; then it is killed. Source: the kubelet's `ExecPlugin`.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What of its output is read.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// What a plugin is asked.
#[derive(Clone)]
pub(super) struct Request {
    /// The repository, without tag and digest.
    pub(super) image: String,
    /// Empty where the plugin does not want one.
    pub(super) token: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// What it answers.
pub(super) struct Response {
    pub(super) cache_key_type: CacheKeyType,
    /// `None`: as long as the configuration says.
    pub(super) cache_duration: Option<Duration>,
    /// By what of an image's name it is meant for.
    pub(super) auth: BTreeMap<String, Auth>,
}

/// For which images an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) password: String,
}

/// The answer as it comes. Debug would show secrets, so it has none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    kind: String,
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Version {
    api_version: String,
}

/// Asks a plugin.
pub(super) async fn execute(provider: &Provider, request: &Request, runs: &Runs) -> Result<Response, String> {
    let failed = |why: String| format!("failed to get credential from external registry credential provider: {why}");
    let (name, image) = (&provider.name, &request.image);
    let about = |why: &str| failed(format!("error execing credential provider plugin {name} for image {image}: {why}"));
    let began = tokio::time::Instant::now();
    let ran = tokio::time::timeout(TIME_MAX, run(provider, request)).await;
    let succeeded = matches!(&ran, Ok(Ok((status, ..))) if status.success());
    runs.count(succeeded, began.elapsed());
    let ran = ran.map_err(|_| about("context deadline exceeded"))?;
    let (status, stdout, stderr) = ran.map_err(|error| about(&error.to_string()))?;
    if !status.success() {
        let why = match status.code() {
            Some(code) => format!("exit status {code}"),
            None => format!("{status}"),
        };
        return Err(about(&format!("{why}: {}", String::from_utf8_lossy(&stderr))));
    }
    parse(&provider.api_version, &stdout).map_err(failed)
}

async fn run(provider: &Provider, request: &Request) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut command = Command::new(&provider.program);
    command.args(&provider.args).kill_on_drop(true);
    command.envs(provider.env.iter().map(|variable| (&variable.name, &variable.value)));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let body = encode(&provider.api_version, request);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let write = async {
        // One that does not read says what it thinks by its answer.
        let _ = stdin.write_all(body.as_bytes()).await;
        drop(stdin);
    };
    let (mut stdout, mut stderr) = (stdout.take(OUTPUT_BYTES_MAX), stderr.take(OUTPUT_BYTES_MAX));
    let (status, read, said, ()) =
        tokio::join!(child.wait(), stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), write);
    read?;
    said?;
    Ok((status?, out, err))
}

fn encode(api_version: &str, request: &Request) -> String {
    let mut body = json!({ "kind": "CredentialProviderRequest", "apiVersion": api_version, "image": request.image });
    if let Some(fields) = body.as_object_mut() {
        if !request.token.is_empty() {
            fields.insert("serviceAccountToken".to_owned(), request.token.clone().into());
        }
        if !request.annotations.is_empty() {
            fields.insert("serviceAccountAnnotations".to_owned(), json!(request.annotations));
        }
    }
    format!("{body}\n")
}

/// No error repeats the answer: it may hold a secret.
fn parse(api_version: &str, answer: &[u8]) -> Result<Response, String> {
    let version: Version = serde_json::from_slice(answer)
        .map_err(|_| "error reading GVK from response: couldn't get version/kind; json parse error".to_owned())?;
    let actual = version.api_version;
    if actual != api_version {
        return Err(format!(
            "apiVersion from credential plugin response did not match expected apiVersion:{api_version}, actual \
             apiVersion:{actual}"
        ));
    }
    let undecodable = || "error decoding credential provider plugin response from stdout".to_owned();
    let raw: Raw = serde_json::from_slice(answer).map_err(|_| undecodable())?;
    if raw.kind != "CredentialProviderResponse" {
        return Err(undecodable());
    }
    let cache_key_type = serde_json::from_value(raw.cache_key_type.as_str().into()).map_err(|_| {
        format!("credential provider plugin did not return a valid cacheKeyType: {}", raw.cache_key_type)
    })?;
    let cache_duration = match raw.cache_duration.as_deref().map(duration) {
        None => None,
        // Less than no time is none.
        Some(Some(time)) => Some(if time.is_negative() { Duration::ZERO } else { time.unsigned_abs() }),
        Some(None) => return Err(undecodable()),
    };
    Ok(Response { cache_key_type, cache_duration, auth: raw.auth.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

    #[test]
    fn a_request_is_the_kubelets() {
        let plain = Request { image: "a.lan/b".to_owned(), token: String::new(), annotations: BTreeMap::new() };
        let read = |request: &Request| serde_json::from_str::<serde_json::Value>(&encode(V1, request)).unwrap();
        assert_eq!(read(&plain), json!({ "kind": "CredentialProviderRequest", "apiVersion": V1, "image": "a.lan/b" }));
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let full = read(&Request { token: "t".to_owned(), annotations, ..plain });
        assert_eq!(full["serviceAccountToken"], "t");
        assert_eq!(full["serviceAccountAnnotations"], json!({ "a": "b" }));
    }

    #[test]
    fn an_answer_that_is_none_is_refused_without_being_repeated() {
        let answer = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut answer = json!({
                "kind": "CredentialProviderResponse", "apiVersion": V1, "cacheKeyType": "Registry",
                "cacheDuration": "10m", "auth": { "*.lan": { "username": "u", "password": "secret" } },
            });
            change(&mut answer);
            parse(V1, answer.to_string().as_bytes())
        };
        let good = answer(&|_| {}).ok().unwrap();
        assert_eq!(
            (good.cache_key_type, good.cache_duration),
            (CacheKeyType::Registry, Some(Duration::from_secs(600)))
        );
        assert_eq!(good.auth["*.lan"].password, "secret");
        assert_eq!(answer(&|answer| answer["cacheDuration"] = json!(null)).ok().unwrap().cache_duration, None);
        for (change, words) in [
            (json!(["apiVersion", "v1"]), "did not match expected apiVersion:credentialprovider.kubelet.k8s.io/v1"),
            (json!(["kind", "Pod"]), "error decoding credential provider plugin response from stdout"),
            (json!(["cacheKeyType", "Some"]), "did not return a valid cacheKeyType: Some"),
            (json!(["cacheDuration", "soon"]), "error decoding"),
            (json!(["auth", "secret"]), "error decoding"),
        ] {
            let name = change[0].as_str().unwrap().to_owned();
            let said = answer(&|answer| answer[&name] = change[1].clone()).err().unwrap();
            assert!(said.contains(words) && !said.contains("secret"), "{said}");
        }
        assert!(parse(V1, b"oh").err().unwrap().contains("json parse error"));
    }
}
