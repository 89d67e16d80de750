//! Plugins that are shell scripts, asked as for a pod.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;

/// A node whose API gives service accounts and tokens, and a folder with one plugin.
struct Rig {
    component: Component,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            let path = request.uri().path().to_owned();
            let answer = if path.ends_with("/token") {
                json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                    "spec": { "audiences": [] },
                    "status": { "token": "the-token", "expirationTimestamp": "2030-01-01T00:00:00Z" } })
            } else if path.contains("/serviceaccounts/") {
                json!({ "kind": "ServiceAccount", "apiVersion": "v1",
                    "metadata": { "name": "robot", "uid": "7", "annotations": { "role": "puller", "other": "x" } } })
            } else {
                json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": [] })
            };
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(
                answer.to_string().into_bytes(),
            )))
        });
        let client = kube::Client::new(service, "default");
        let rng = Arc::new(SeededRng::new(1));
        let component = Component::new(client, RealClock::shared(), rng, CancellationToken::new());
        Self { component, dir }
    }

    /// A plugin that notes what it reads and then does as the script says.
    fn plugin(&self, more: &str, script: &str) -> CredentialProviders {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let text = format!("#!/bin/sh\ncat >> {}\n{script}\n", self.dir.path().join("asked").display());
        fs::write(bin.join("plugin"), text).unwrap();
        fs::set_permissions(bin.join("plugin"), fs::Permissions::from_mode(0o755)).unwrap();
        let config = self.dir.path().join("config.yaml");
        let text = format!(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
             - {{name: plugin, matchImages: ['*.lan'], defaultCacheDuration: 1h, \
             apiVersion: credentialprovider.kubelet.k8s.io/v1, {more}}}\n"
        );
        fs::write(&config, text).unwrap();
        CredentialProviders::open(&config, &bin).unwrap()
    }

    /// The user that is said for an image.
    async fn user(&self, providers: &CredentialProviders, image: &str) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": "ns", "name": "p", "uid": "u" },
            "spec": { "serviceAccountName": "robot", "containers": [] },
        }))
        .unwrap();
        let image = Reference::parse(image).unwrap();
        let said = providers.provide(&self.component, &pod, &image).await;
        said.iter().find_map(|config| config.written_for(&image)).map(|auth| auth.username)
    }

    /// The requests that the plugin has read.
    fn asked(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a plugin prints.
fn answer(kind: &str, more: &str) -> String {
    format!(
        "echo '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\
         \"cacheKeyType\":\"{kind}\",{more}\"auth\":{{\"*.lan\":{{\"username\":\"'$USER_SAID$1'\",\
         \"password\":\"p\"}}}}}}'"
    )
}

#[tokio::test]
async fn a_plugin_is_asked_once_for_what_its_answer_holds_for() {
    for (kind, more, runs) in
        [("Image", "", 3), ("Registry", "", 2), ("Global", "", 1), ("Global", "\"cacheDuration\":\"0s\",", 4)]
    {
        let rig = Rig::new();
        let providers = rig.plugin("args: [-x], env: [{name: USER_SAID, value: me}]", &answer(kind, more));
        for image in ["a.lan/x:1", "a.lan/x:2", "a.lan/y", "b.lan/x"] {
            assert_eq!(rig.user(&providers, image).await.as_deref(), Some("me-x"), "{image}");
        }
        let asked = rig.asked();
        assert_eq!(asked.len(), runs, "{kind} {more}");
        assert_eq!(asked[0]["image"], "a.lan/x", "without its tag");
        assert_eq!(rig.user(&providers, "nginx").await, None, "it is not for these");
        assert_eq!(rig.asked().len(), runs);
    }
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_the_answer() {
    let rig = Rig::new();
    let providers = rig.plugin("env: [{name: USER_SAID, value: me}]", &format!("sleep 0.2; {}", answer("Image", "")));
    let both = tokio::join!(rig.user(&providers, "a.lan/x:1"), rig.user(&providers, "a.lan/x:2"));
    assert_eq!(both, (Some("me".to_owned()), Some("me".to_owned())));
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test]
async fn a_plugin_that_fails_says_nothing_and_is_asked_again() {
    let rig = Rig::new();
    for script in ["echo it is broken >&2; exit 3", "echo no json", "kill -9 $$", &answer("Never", "")] {
        let providers = rig.plugin("", script);
        let before = rig.asked().len();
        for runs in 1..=2 {
            assert_eq!(rig.user(&providers, "a.lan/x").await, None, "{script}");
            assert_eq!(rig.asked().len(), before + runs);
        }
    }
}

#[tokio::test]
async fn a_plugin_that_wants_it_gets_the_pods_account_and_a_token() {
    let rig = Rig::new();
    let attributes = |more: &str| {
        format!(
            "env: [{{name: USER_SAID, value: me}}], tokenAttributes: {{serviceAccountTokenAudience: reg, \
             cacheType: ServiceAccount, requireServiceAccount: true, {more}}}"
        )
    };
    let providers = rig.plugin(&attributes("requiredServiceAccountAnnotationKeys: [role]"), &answer("Image", ""));
    assert_eq!(rig.user(&providers, "a.lan/x").await.as_deref(), Some("me"));
    let asked = rig.asked();
    assert_eq!(asked[0]["serviceAccountToken"], "the-token");
    assert_eq!(asked[0]["serviceAccountAnnotations"], json!({ "role": "puller" }));
    assert_eq!(rig.user(&providers, "a.lan/x").await.as_deref(), Some("me"));
    assert_eq!(rig.asked().len(), 1, "the answer holds for the account");
    let needs = rig.plugin(&attributes("requiredServiceAccountAnnotationKeys: [none]"), &answer("Image", ""));
    assert_eq!(rig.user(&needs, "a.lan/x").await, None);
    assert_eq!(rig.asked().len(), 1, "accounts that lack it are not for this plugin");
    let echo = answer("Image", "").replace("\\\"password\\\":\\\"p\\\"", "\\\"password\\\":\\\"the-token\\\"");
    let echo = echo.replace("\"password\":\"p\"", "\"password\":\"the-token\"");
    let echoes = rig.plugin(&attributes(""), &echo);
    assert_eq!(rig.user(&echoes, "a.lan/x").await, None, "the token is nobody's password");
}

#[tokio::test]
async fn runs_and_failures_of_plugins_are_counted_and_what_is_remembered_is_not() {
    let rig = Rig::new();
    let none = "kubelet_credential_provider_plugin_";
    let failing = rig.plugin("", "exit 3");
    assert!(!failing.metrics().contains(none), "nothing ran yet");
    let data = fs::read(rig.dir.path().join("config.yaml")).unwrap();
    let all = [&u64::try_from(data.len()).unwrap().to_be_bytes()[..], &data].concat();
    let hash = reeve_engine::images::Digest::of(&all);
    let info = format!("kubelet_credential_provider_config_info{{hash=\"{hash}\"}} 1");
    assert!(failing.metrics().lines().any(|line| line == info), "{}", failing.metrics());
    assert_eq!(rig.user(&failing, "a.lan/b").await, None);
    let text = failing.metrics();
    for line in [
        "kubelet_credential_provider_plugin_errors_total{plugin_name=\"plugin\"} 1",
        "kubelet_credential_provider_plugin_duration_count{plugin_name=\"plugin\"} 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
    }
    let good = rig.plugin("env: [{name: USER_SAID, value: me}]", &answer("Registry", ""));
    for _ in 0..2 {
        assert_eq!(rig.user(&good, "a.lan/b").await.as_deref(), Some("me"));
    }
    let text = good.metrics();
    assert!(text.contains("_duration_count{plugin_name=\"plugin\"} 1\n") && !text.contains("errors_total"), "{text}");
}
