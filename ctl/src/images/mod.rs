//! `reeve build` and `reeve image`: the images of a cluster on this machine.
//!
//! They work on the image folder in the cluster's data folder, whether the cluster runs or not. What an image is and
//! how one is built or fetched is the engine's; here are the flags and the words.

pub(crate) mod build;
pub(crate) mod image;
mod list;

use std::path::PathBuf;

use clap::Args;
use reeve_api::clock::RealClock;
use reeve_engine::images::{ImageStore, images_dir};

use crate::kubectl::error::CliError;

/// Whose images are meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// Name of the cluster
    #[arg(long, default_value = "dev")]
    pub name: String,
    /// Where its data lies, if it does not run and lies elsewhere than /var/lib/reeve/NAME
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl StoreArgs {
    /// Opens the cluster's images, making the folder for a cluster that is yet to be started. Blocks.
    fn open_or_make(&self) -> Result<ImageStore, CliError> {
        let data_dir = self.data_dir()?;
        ImageStore::open(images_dir(&data_dir), RealClock::shared()).map_err(|err| failed(&err))
    }

    /// Opens the images of a cluster that was started or built for before. Blocks.
    fn open(&self) -> Result<ImageStore, CliError> {
        let data_dir = self.data_dir()?;
        if !data_dir.is_dir() {
            let text = format!("there is no cluster {:?}: no folder {}", self.name, data_dir.display());
            return Err(CliError::plain(text));
        }
        self.open_or_make()
    }

    fn data_dir(&self) -> Result<PathBuf, CliError> {
        crate::cluster::data_dir(&self.name, self.data_dir.clone()).map_err(|err| failed(&err))
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
