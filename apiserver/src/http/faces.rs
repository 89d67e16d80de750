//! What the server says of itself, discovery and OpenAPI: made anew when other resources are served, here or by
//! other servers.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Discovery, OpenApi, Others};
use crate::aggregator::Aggregator;
use crate::aggregator::table::Table;
use crate::registry::Registry;

/// Both documents, of one set of resources and of APIServices.
pub(crate) struct Faces {
    made_of: MadeOf,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: Arc<OpenApi>,
}

/// What faces are made of.
#[derive(Clone)]
struct MadeOf {
    /// Of [`crate::registry::Resources`].
    resources: u64,
    /// The APIServices.
    table: Option<Arc<Table>>,
    /// Of what other servers tell.
    told: u64,
}

impl MadeOf {
    fn is(&self, other: &Self) -> bool {
        let same_table = match (&self.table, &other.table) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        same_table && self.resources == other.resources && self.told == other.told
    }
}

/// The newest faces.
pub(crate) struct LiveFaces {
    /// `HOST:PORT`, for the `/api` document.
    server_address: String,
    aggregator: Arc<Aggregator>,
    current: ArcSwapOption<Faces>,
}

impl LiveFaces {
    /// Made at the first request.
    pub(crate) fn new(server_address: String, aggregator: Arc<Aggregator>) -> Self {
        Self { server_address, aggregator, current: ArcSwapOption::empty() }
    }

    /// Where clients reach the server, `HOST:PORT`.
    pub(crate) fn server_address(&self) -> &str {
        &self.server_address
    }

    /// Those of what the registry serves now. What is made twice at the same time is the same.
    pub(crate) fn of(&self, registry: &Registry) -> Arc<Faces> {
        let resources = registry.resources();
        let told = self.aggregator.generation();
        let made_of = MadeOf { resources: resources.generation, table: self.aggregator.table(), told };
        let known = self.current.load_full();
        if let Some(known) = known.as_ref().filter(|known| known.made_of.is(&made_of)) {
            return Arc::clone(known);
        }
        let others = Others::of(&self.aggregator, made_of.table.as_deref());
        let discovery = Discovery::new(resources.iter(), self.server_address.clone(), &others);
        let openapi = match known.filter(|known| known.made_of.resources == made_of.resources) {
            Some(known) => Arc::clone(&known.openapi),
            None => {
                let known = self.current.load_full();
                let kinds = resources.iter().map(|resource| Arc::clone(&resource.kind)).collect();
                let before = known.as_ref().map(|known| &*known.openapi);
                Arc::new(OpenApi::new(discovery.versions(), kinds, before))
            }
        };
        let faces = Arc::new(Faces { made_of, discovery, openapi });
        self.current.store(Some(Arc::clone(&faces)));
        faces
    }
}
