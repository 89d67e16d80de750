//! Why an operation on images failed, and how that reads at the engine's seam.

use std::io;
use std::path::Path;

use super::reference::ReferenceError;
use crate::engine::EngineError;

/// Why the image store did not do what it was asked. Nothing half-done stays behind any of them.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is none: the user's fault.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// There is no such image here.
    #[error("no such image: {0}")]
    NotFound(String),
    /// An id prefix that several images share: the user's fault.
    #[error("image id {0} is ambiguous")]
    Ambiguous(String),
    /// The content is not what it says it is, or breaks the image format: the image's fault.
    #[error("{subject}: {reason}")]
    Invalid {
        /// A file, a blob or a layer.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry does not have it, refuses, or cannot be reached.
    #[error("failed to pull and unpack image {image:?}: {reason}")]
    Pull {
        /// The normalised name.
        image: String,
        /// The registry's or the network's words.
        reason: String,
    },
    /// The registry does not take it, or cannot be reached.
    #[error("failed to push image {image:?}: {reason}")]
    Push {
        /// The normalised name.
        image: String,
        /// The registry's or the network's words.
        reason: String,
    },
    /// The operating system refused a step.
    #[error("failed to {step}: {source}")]
    Io {
        /// What was tried, with the path.
        step: String,
        /// Why not.
        source: io::Error,
    },
}

impl ImageError {
    /// Whether the image simply is not here.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    pub(crate) fn invalid(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { subject: subject.into(), reason: reason.into() }
    }
}

impl From<ImageError> for EngineError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::NotFound(id) => Self::NotFound { what: "image", id },
            ImageError::Pull { ref image, .. } => Self::Pull { image: image.clone(), reason: error.to_string() },
            ImageError::Io { step, source } => Self::Io { step, source },
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// Says which step on which path the operating system refused.
pub(crate) trait Step<T> {
    /// `failed to VERB PATH: …`
    fn step(self, verb: &str, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, verb: &str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::Io { step: format!("{verb} {}", path.display()), source: error.into() })
    }
}

/// An error with what led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
