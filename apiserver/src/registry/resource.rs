//! One served resource: a kind with its names and its place in the store.

use std::sync::Arc;

use bytes::Bytes;
use reeve_kinds::{Kind, Names};

use super::request::Subresource;

/// A kind that is served. Cheap to share, lives as long as the server.
pub struct Resource {
    /// What is special about the kind.
    pub kind: Arc<dyn Kind>,
    /// Its place among the resources of the [`super::Registry`].
    pub(crate) index: usize,
    prefix: Bytes,
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified())
    }
}

impl Resource {
    pub(crate) fn new(kind: Arc<dyn Kind>, index: usize) -> Self {
        let names = kind.names();
        let group = if names.group.is_empty() { "core" } else { names.group };
        let prefix = format!("/registry/{group}/{}/", names.plural).into();
        Self { kind, index, prefix }
    }

    /// How the kind is called.
    #[must_use]
    pub fn names(&self) -> &Names {
        self.kind.names()
    }

    /// `configmaps`, `deployments.apps`: as it stands in error messages.
    #[must_use]
    pub fn qualified(&self) -> String {
        let names = self.names();
        if names.group.is_empty() { names.plural.to_owned() } else { format!("{}.{}", names.plural, names.group) }
    }

    /// Whether the kind is exactly this one.
    #[must_use]
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.names().group == group && self.names().plural == plural
    }

    /// The subresources there are besides those that the HTTP side serves itself (log, exec, attach, token).
    #[must_use]
    pub fn subresources(&self) -> Vec<Subresource> {
        let parts = self.kind.parts().iter().map(|part| Subresource::Part(*part));
        let others = [Subresource::Scale, Subresource::Binding, Subresource::Finalize];
        parts.chain(others.into_iter().filter(|one| self.has(*one))).collect()
    }

    /// Whether there is that part (the object itself always is).
    pub(crate) fn has(&self, subresource: Subresource) -> bool {
        match subresource {
            Subresource::None => true,
            Subresource::Part(part) => self.kind.parts().contains(&part),
            Subresource::Scale => self.kind.scale().is_some(),
            Subresource::Binding => self.is("", "pods"),
            Subresource::Finalize => self.is("", "namespaces"),
        }
    }

    /// `/registry/core/pods/`: what the keys of all objects begin with.
    pub(crate) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The key of an object behind the prefix: its key in the cache.
    pub(crate) fn cache_key(&self, namespace: &str, name: &str) -> String {
        if self.names().namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// The key of an object, or with an empty name the prefix of a namespace's objects.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Bytes {
        let mut key = Vec::with_capacity(self.prefix.len() + namespace.len() + name.len() + 1);
        key.extend_from_slice(&self.prefix);
        if self.names().namespaced && !namespace.is_empty() {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
        key.into()
    }
}
