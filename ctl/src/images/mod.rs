//! `reeve build` and `reeve image`: the images of a cluster on this machine.
//!
//! They work on the image folder in the cluster's data folder, whether the cluster runs or not. What an image is and
//! how one is built or fetched is the engine's; here are the flags and the words.

pub(crate) mod build;
mod display;
pub(crate) mod image;
mod list;
mod progress;

use std::path::PathBuf;

use clap::Args;
use reeve_api::clock::RealClock;
use reeve_engine::images::{ImageStore, images_dir};

use crate::cluster::current_context;
use crate::kubectl::args::GlobalArgs;
use crate::kubectl::error::CliError;

/// The cluster that is meant when nothing says another one; `reeve up`'s default.
const DEFAULT: &str = "dev";
/// What stands before a cluster's name in the name of its context.
const CONTEXT_PREFIX: &str = "reeve-";

/// Whose images are meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// Name of the cluster [default: that of the current context, if it is one of this machine, else dev]
    #[arg(long)]
    pub name: Option<String>,
    /// Where its data lies, if it does not run and lies elsewhere than /var/lib/reeve/NAME
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl StoreArgs {
    /// Settles which cluster is meant: the one that is named, else the one that other verbs talk to. To be called while
    /// there is one thread.
    pub(crate) fn settle(&mut self, global: &GlobalArgs) -> Result<(), CliError> {
        global.refuse_connection("images are those of a cluster of this machine")?;
        if self.name.is_some() || self.data_dir.is_some() {
            return Ok(());
        }
        let current = match &global.context {
            Some(_) => None,
            None => current_context(global.kubeconfig.as_deref()).map_err(|err| failed(&err))?,
        };
        let is_here = |name: &str| crate::cluster::data_dir(name, None).is_ok_and(|dir| dir.is_dir());
        self.name = Some(chosen(global.context.as_deref(), current.as_deref(), is_here)?);
        Ok(())
    }

    fn cluster(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT)
    }

    /// Opens the cluster's images, making the folder for a cluster that is yet to be started. Blocks.
    fn open_or_make(&self) -> Result<ImageStore, CliError> {
        let data_dir = self.data_dir()?;
        ImageStore::open(images_dir(&data_dir), RealClock::shared()).map_err(|err| failed(&err))
    }

    /// Opens the images of a cluster that was started or built for before. Blocks.
    fn open(&self) -> Result<ImageStore, CliError> {
        let data_dir = self.data_dir()?;
        if !data_dir.is_dir() {
            let text = format!("there is no cluster {:?}: no folder {}", self.cluster(), data_dir.display());
            return Err(CliError::plain(text));
        }
        self.open_or_make()
    }

    fn data_dir(&self) -> Result<PathBuf, CliError> {
        crate::cluster::data_dir(self.cluster(), self.data_dir.clone()).map_err(|err| failed(&err))
    }
}

/// The cluster of a context that was named, or of the current one.
fn chosen(named: Option<&str>, current: Option<&str>, is_here: impl Fn(&str) -> bool) -> Result<String, CliError> {
    let of_machine =
        |context: &str| context.strip_prefix(CONTEXT_PREFIX).filter(|name| is_here(name)).map(str::to_owned);
    match named {
        Some(context) => of_machine(context).ok_or_else(|| {
            CliError::plain(format!(
                "context {context:?} is not that of a cluster of this machine: name one with --name"
            ))
        }),
        None => Ok(current.and_then(of_machine).unwrap_or_else(|| DEFAULT.to_owned())),
    }
}

/// One line for the user.
fn failed(err: &dyn std::error::Error) -> CliError {
    CliError::plain(err.to_string())
}

/// Runs something that blocks, off the runtime's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(err) => Err(failed(&err)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_those_of_the_cluster_that_other_verbs_talk_to() {
        let chosen = |named, current| {
            chosen(named, current, |name| matches!(name, "dev" | "two")).map_err(|err| err.to_string())
        };
        for (named, current, expected) in [
            (None, Some("reeve-two"), "two"),
            (None, Some("reeve-elsewhere"), "dev"),
            (None, Some("minikube"), "dev"),
            (None, None, "dev"),
            (Some("reeve-two"), Some("reeve-dev"), "two"),
        ] {
            assert_eq!(chosen(named, current).as_deref(), Ok(expected), "{named:?} {current:?}");
        }
        let refused = chosen(Some("minikube"), Some("reeve-dev")).unwrap_err();
        assert!(refused.contains(r#"context "minikube" is not that of a cluster of this machine"#), "{refused}");
    }
}
