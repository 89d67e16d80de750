//! What runs a cluster's containers: the built-in engine, or a container runtime of the machine that serves CRI. A
//! lasting choice, made by a flag of `reeve up`: the one knows nothing of the other's containers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use reeve_api::clock::RealClock;
use reeve_cri::client::{CriClientConfig, CriEngine};
use reeve_engine::builtin::BuiltinEngine;
use reeve_engine::engine::{ContainerState, Engine as _, EngineError, SharedEngine};
use reeve_engine::images::ImageStore;
use reeve_node_agent::CredentialProviders;
use serde::{Deserialize, Serialize};

use super::config::{ClusterConfig, Paths};
use super::error::ClusterError;

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RuntimeArgs {
    /// Run containers by this CRI v1 runtime instead of the built-in engine; it wires the pods, too (CNI)
    #[arg(long, value_name = "unix://PATH")]
    pub container_runtime_endpoint: Option<String>,
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

/// The kubelet's flags for credential providers.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CredentialArgs {
    /// Ask programs who one is at images' registries: a `CredentialProviderConfig`, or a folder; `off`: no more
    #[arg(long, value_name = "PATH")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Where those programs lie
    #[arg(long, value_name = "DIR")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
}

/// The lasting choice of credential providers. The files are read at every start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CredentialChoice {
    /// The configuration.
    pub config: PathBuf,
    /// The folder of programs.
    pub bin_dir: PathBuf,
}

impl CredentialChoice {
    /// Reads the configuration and finds the programs.
    pub(super) fn open(&self) -> Result<CredentialProviders, ClusterError> {
        CredentialProviders::open(&self.config, &self.bin_dir).map_err(|rule| ClusterError::Invalid {
            what: "--image-credential-provider-config",
            value: self.config.display().to_string(),
            rule,
        })
    }
}

/// The choice with what the flags say; what is wrong with it shows here.
fn credentials(
    before: Option<CredentialChoice>,
    args: &CredentialArgs,
) -> Result<Option<CredentialChoice>, ClusterError> {
    let refused = |value: &Path, rule: &str| ClusterError::Invalid {
        what: "--image-credential-provider-config",
        value: value.display().to_string(),
        rule: rule.to_owned(),
    };
    // Kept paths must lead to the same place wherever the cluster is started from.
    let whole = |path: &PathBuf| std::path::absolute(path).map_err(|err| ClusterError::io("find a folder", err));
    let (config, bin_dir) = (&args.image_credential_provider_config, &args.image_credential_provider_bin_dir);
    let chosen = match (config, bin_dir) {
        (Some(config), None) if config.as_os_str() == "off" => return Ok(None),
        (None, None) => before,
        (Some(config), Some(bin_dir)) => Some(CredentialChoice { config: whole(config)?, bin_dir: whole(bin_dir)? }),
        (Some(one), None) | (None, Some(one)) => {
            return Err(refused(one, "it goes together with --image-credential-provider-bin-dir"));
        }
    };
    chosen.as_ref().map(CredentialChoice::open).transpose()?;
    Ok(chosen)
}

/// The choices with what the flags say. Where a cluster's containers are is chosen once.
pub(crate) fn chosen(own: ClusterConfig, args: &RuntimeArgs, is_new: bool) -> Result<ClusterConfig, ClusterError> {
    let own = ClusterConfig { credentials: credentials(own.credentials.clone(), &args.credentials)?, ..own };
    let Some(endpoint) = &args.container_runtime_endpoint else { return Ok(own) };
    let refused = |rule: &str| ClusterError::Invalid {
        what: "--container-runtime-endpoint",
        value: endpoint.clone(),
        rule: rule.to_owned(),
    };
    if !endpoint.strip_prefix("unix://").is_some_and(|path| path.starts_with('/')) {
        return Err(refused("unix:// and an absolute path"));
    }
    if own.netns {
        return Err(refused("its pods are in the host's network, so the node cannot have one of its own (--netns)"));
    }
    if !is_new && own.runtime.as_ref() != Some(endpoint) {
        return Err(refused("the cluster's containers are elsewhere; `reeve down --purge` first, or another --name"));
    }
    Ok(ClusterConfig { runtime: Some(endpoint.clone()), ..own })
}

/// What runs the containers.
pub(super) enum Runtime {
    /// The built-in engine.
    Own(BuiltinEngine),
    /// Somebody else's.
    Other(CriEngine),
}

impl Runtime {
    /// Opens or reaches it.
    pub(super) async fn open(paths: &Paths, config: &ClusterConfig) -> Result<Self, ClusterError> {
        let failed = |err: EngineError| ClusterError::component("container engine", err);
        let Some(endpoint) = &config.runtime else {
            let opened = BuiltinEngine::open(super::remains::engine_config(paths, &config.name)).await;
            return opened.map(Self::Own).map_err(failed);
        };
        let client = CriClientConfig {
            endpoint: endpoint.clone(),
            owner: config.name.clone(),
            cgroup_root: format!("reeve-{}", config.name),
            dir: paths.data_dir.join("engine"),
            clock: RealClock::shared(),
        };
        CriEngine::connect(client).await.map(Self::Other).map_err(failed)
    }

    /// The images, where they are ours.
    pub(super) fn images(&self) -> Option<ImageStore> {
        match self {
            Self::Own(engine) => Some(engine.images().clone()),
            Self::Other(_) => None,
        }
    }

    /// For the node agent.
    pub(super) fn shared(self) -> SharedEngine {
        match self {
            Self::Own(engine) => Arc::new(engine),
            Self::Other(engine) => Arc::new(engine),
        }
    }

    /// Ends all containers; what they have written stays.
    pub(super) async fn stop(&self, grace: Duration) -> Result<(), EngineError> {
        match self {
            Self::Own(engine) => engine.shutdown(grace).await,
            Self::Other(engine) => {
                let running = engine.list_containers().await?.into_iter();
                let running = running.filter(|own| matches!(own.state, ContainerState::Running { .. }));
                let stops = running.map(|own| async move { engine.stop_container(&own.id, grace).await });
                join_all(stops).await.into_iter().collect::<Result<(), _>>()?;
                let sandboxes = engine.list_pod_sandboxes().await?;
                let stops = sandboxes.iter().map(|own| engine.stop_pod_sandbox(&own.id));
                join_all(stops).await.into_iter().collect()
            }
        }
    }

    /// Ends and removes all containers; images stay.
    pub(super) async fn purge(&self) -> Result<(), EngineError> {
        match self {
            Self::Own(engine) => engine.purge().await,
            Self::Other(engine) => {
                let sandboxes = engine.list_pod_sandboxes().await?;
                let removals = sandboxes.iter().map(|own| engine.remove_pod_sandbox(&own.id));
                join_all(removals).await.into_iter().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_chosen_once_and_not_for_a_node_with_a_network_of_its_own() {
        let own = |netns| super::super::config::create("x", netns, super::super::machine::in_use(), &[]).unwrap();
        let args = |endpoint: &str| RuntimeArgs {
            container_runtime_endpoint: Some(endpoint.to_owned()),
            ..RuntimeArgs::default()
        };
        let told = |result: Result<ClusterConfig, ClusterError>| result.map_err(|err| err.to_string());
        let first = told(chosen(own(false), &args("unix:///run/c.sock"), true)).expect("chosen");
        assert_eq!(first.runtime.as_deref(), Some("unix:///run/c.sock"));
        assert_eq!(told(chosen(first.clone(), &args("unix:///run/c.sock"), false)), Ok(first.clone()));
        assert_eq!(told(chosen(first.clone(), &RuntimeArgs::default(), false)), Ok(first.clone()));
        let other = told(chosen(first, &args("unix:///run/d.sock"), false)).expect_err("refused");
        assert!(other.contains("the cluster's containers are elsewhere"), "{other}");
        assert!(told(chosen(own(true), &args("unix:///run/c.sock"), true)).is_err());
        assert!(told(chosen(own(false), &args("/run/c.sock"), true)).is_err());
    }

    #[test]
    fn credential_providers_are_kept_until_they_are_taken_back_and_checked_at_once() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (config, program) = (dir.path().join("config.yaml"), dir.path().join("plugin"));
        let args = |config: Option<&Path>, bin: Option<&Path>| CredentialArgs {
            image_credential_provider_config: config.map(Path::to_owned),
            image_credential_provider_bin_dir: bin.map(Path::to_owned),
        };
        let told = |before, args: &CredentialArgs| credentials(before, args).map_err(|err| err.to_string());
        let refused = told(None, &args(Some(&config), Some(dir.path()))).unwrap_err();
        assert!(refused.contains("unable to access path"), "{refused}");
        let text = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders: [{name: plugin, \
                    matchImages: [a.lan], defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1}]";
        std::fs::write(&config, text).unwrap();
        std::fs::write(&program, "").unwrap();
        let refused = told(None, &args(Some(&config), Some(dir.path()))).unwrap_err();
        assert!(refused.contains("/plugin did not exist"), "{refused}");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let chosen = told(None, &args(Some(&config), Some(dir.path()))).unwrap();
        assert!(chosen.is_some());
        assert_eq!(told(chosen.clone(), &CredentialArgs::default()), Ok(chosen.clone()));
        assert!(told(chosen.clone(), &args(Some(&config), None)).unwrap_err().contains("goes together with"));
        assert_eq!(told(chosen, &args(Some(Path::new("off")), None)), Ok(None));
    }
}
