//! What the server says of itself, discovery and OpenAPI: made anew when other resources are served.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Discovery, OpenApi};
use crate::registry::Registry;

/// Both documents, of one set of resources.
pub(crate) struct Faces {
    /// Of [`crate::registry::Resources`].
    generation: u64,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: Arc<OpenApi>,
}

/// The newest faces.
pub(crate) struct LiveFaces {
    /// `HOST:PORT`, for the `/api` document.
    server_address: String,
    current: ArcSwapOption<Faces>,
}

impl LiveFaces {
    /// Made at the first request.
    pub(crate) fn new(server_address: String) -> Self {
        Self { server_address, current: ArcSwapOption::empty() }
    }

    /// Where clients reach the server, `HOST:PORT`.
    pub(crate) fn server_address(&self) -> &str {
        &self.server_address
    }

    /// Those of what the registry serves now. What is made twice at the same time is the same.
    pub(crate) fn of(&self, registry: &Registry) -> Arc<Faces> {
        let resources = registry.resources();
        let known = self.current.load_full();
        if let Some(known) = known.as_ref().filter(|known| known.generation == resources.generation) {
            return Arc::clone(known);
        }
        let discovery = Discovery::new(resources.iter(), self.server_address.clone());
        let kinds = resources.iter().map(|resource| Arc::clone(&resource.kind)).collect();
        let openapi = OpenApi::new(discovery.versions_with_kinds(), kinds, known.as_ref().map(|known| &*known.openapi));
        let faces = Arc::new(Faces { generation: resources.generation, discovery, openapi: Arc::new(openapi) });
        self.current.store(Some(Arc::clone(&faces)));
        faces
    }
}
