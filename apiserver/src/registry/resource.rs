//! What is served: each resource is a kind in one version, with its storage.
//!
//! Several versions of a kind share one storage, which holds objects in one version (built-in kinds) or in whatever
//! version each was written (custom resources). [`Resource::shown`] and [`Resource::to_store`] go between the two.
//! [`Resources`] is what is served at one moment: it changes when CustomResourceDefinitions do.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reeve_kinds::{Kind, Names, StoredAs};
use serde_json::Value;

use super::answer::Object;
use super::encode;
use super::request::Subresource;
use super::versions::OtherVersions;
use crate::cache::ResourceCache;
use crate::status::ApiError;

/// Brings objects of one storage from one version into another, where that takes more than the kind's own pure
/// functions: custom resources. Called for reads and writes; may take as long as a webhook.
#[async_trait]
pub trait Convert: Send + Sync {
    /// The objects in `version` (`v1`), in the same order; those that are in it already pass unchanged.
    ///
    /// # Errors
    /// What the client is to be told.
    async fn convert(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, ApiError>;

    /// The version in which objects are stored.
    fn stored_version(&self) -> &str;

    /// Brings an object of the stored version into the form in which it is read from the store.
    fn as_read(&self, object: &mut Value);

    /// All versions, served or not, where objects go between them without anybody being asked; else none.
    fn kinds_at_once(&self) -> Vec<Arc<dyn Kind>> {
        Vec::new()
    }

    /// One object in `version`; `None` where somebody has to be asked.
    fn convert_at_once(&self, object: Value, version: &str) -> Option<Value> {
        let _ = (object, version);
        None
    }

    /// Whether versions differ in more than their name, so that a field is only known once an object is converted.
    fn changes_fields(&self) -> bool;
}

/// How the stored form of a resource's objects becomes the form that is served.
#[derive(Clone)]
enum Conversion {
    /// They are the same.
    None,
    /// By [`Kind::from_stored`] and [`Kind::to_stored`].
    Pure,
    /// By somebody else.
    By(Arc<dyn Convert>),
}

/// A kind that is served. Cheap to share.
pub struct Resource {
    /// What is special about the kind.
    pub kind: Arc<dyn Kind>,
    /// Its objects; shared by all versions.
    pub(crate) storage: Arc<ResourceCache>,
    conversion: Conversion,
    /// How the text of an object in this version begins.
    head: Vec<u8>,
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified())
    }
}

/// `/registry/core/pods/`: what the keys of a kind's objects begin with.
pub(crate) fn prefix_of(kind: &dyn Kind) -> Bytes {
    let names = kind.names();
    let StoredAs { group, plural } = kind.stored_as().unwrap_or(StoredAs { group: names.group, plural: names.plural });
    let group = if group.is_empty() { "core" } else { group };
    format!("/registry/{group}/{plural}/").into()
}

/// As [`prefix_of`], for kinds of CustomResourceDefinitions: apart from built-in ones, whatever they are called.
pub(crate) fn custom_prefix(kind: &dyn Kind) -> Bytes {
    format!("/registry/{}/{}/", kind.names().group, kind.names().plural).into()
}

impl Resource {
    /// A built-in kind, or one of a CustomResourceDefinition with its conversion.
    pub(crate) fn new(kind: Arc<dyn Kind>, storage: Arc<ResourceCache>, by: Option<Arc<dyn Convert>>) -> Self {
        let conversion = match by {
            Some(by) => Conversion::By(by),
            None if kind.stored_as().is_some() => Conversion::Pure,
            None => Conversion::None,
        };
        let head = encode::head(kind.names());
        Self { kind, storage, conversion, head }
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
        let others = [Subresource::Scale, Subresource::Binding, Subresource::Eviction, Subresource::Finalize];
        parts.chain(others.into_iter().filter(|one| self.has(*one))).collect()
    }

    /// Whether there is that part (the object itself always is).
    pub(crate) fn has(&self, subresource: Subresource) -> bool {
        match subresource {
            Subresource::None => true,
            Subresource::Part(part) => self.kind.parts().contains(&part),
            Subresource::Scale => self.kind.scale().is_some(),
            Subresource::Binding | Subresource::Eviction => self.is("", "pods"),
            Subresource::Finalize => self.is("", "namespaces"),
        }
    }

    /// `/registry/core/pods/`: what the keys of all objects begin with.
    pub(crate) fn prefix(&self) -> &Bytes {
        self.storage.prefix()
    }

    /// The key of an object behind the prefix: its key in the cache.
    pub(crate) fn cache_key(&self, namespace: &str, name: &str) -> String {
        if self.names().namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// The key of an object, or with an empty name the prefix of a namespace's objects.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Bytes {
        let prefix = self.prefix();
        let mut key = Vec::with_capacity(prefix.len() + namespace.len() + name.len() + 1);
        key.extend_from_slice(prefix);
        if self.names().namespaced && !namespace.is_empty() {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
        key.into()
    }

    /// How many bytes of an object's text behind its opening brace do not stand in a list: objects of built-in kinds
    /// do not say there what they are.
    pub(crate) fn left_out_of_list(&self, object: &Object) -> usize {
        let is_whole = matches!(self.conversion, Conversion::By(_)) || !object.text().starts_with(&self.head);
        if is_whole { 0 } else { self.head.len() - 1 }
    }

    /// Whether stored objects may have to be converted to be shown.
    pub(crate) fn converts(&self) -> bool {
        !matches!(self.conversion, Conversion::None)
    }

    /// The other versions of the kind, for the book of field managers.
    pub(super) fn versions(&self) -> OtherVersions {
        match &self.conversion {
            Conversion::By(by) => OtherVersions::custom(by),
            _ => OtherVersions::builtin(&*self.kind),
        }
    }

    /// Whether a CustomResourceDefinition makes it.
    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.conversion, Conversion::By(_))
    }

    /// Whether only a conversion that has to be waited for tells what an object's fields are in this version.
    pub(crate) fn hides_fields(&self) -> bool {
        matches!(&self.conversion, Conversion::By(by) if by.changes_fields())
    }

    /// Stored objects as this version shows them.
    pub(crate) async fn shown_all(&self, objects: Vec<Object>) -> Result<Vec<Object>, ApiError> {
        let is_foreign = |object: &Object| !object.text().starts_with(&self.head);
        match &self.conversion {
            Conversion::None => Ok(objects),
            Conversion::Pure => Ok(objects.into_iter().map(|object| self.shown_pure(object)).collect()),
            Conversion::By(_) if !objects.iter().any(is_foreign) => Ok(objects),
            Conversion::By(by) => {
                let foreign = objects.iter().filter(|object| is_foreign(object)).map(Object::value).collect();
                let mut converted = by.convert(foreign, self.names().version).await?.into_iter();
                let shown = |object: Object| match is_foreign(&object).then(|| converted.next()).flatten() {
                    Some(value) => Object::whole(encode::stored(&value), object.revision),
                    None => object,
                };
                Ok(objects.into_iter().map(shown).collect())
            }
        }
    }

    /// A stored object as this version shows it.
    pub(crate) async fn shown(&self, object: Object) -> Result<Object, ApiError> {
        if !self.converts() {
            return Ok(object);
        }
        let revision = object.revision;
        let shown = self.shown_all(vec![object]).await?.into_iter().next();
        shown.ok_or_else(|| ApiError::internal(format!("the conversion lost the object of revision {revision}")))
    }

    /// As [`Resource::shown`] where nobody has to be asked; a selector looks at the stored form otherwise.
    pub(crate) fn shown_value(&self, object: &Object) -> Value {
        let mut value = object.value();
        if matches!(self.conversion, Conversion::Pure) {
            self.kind.from_stored(&mut value);
        }
        value
    }

    /// An object of this version in the version of `other`, which is on the same storage.
    pub(crate) async fn translated(&self, other: &Self, mut object: Value) -> Result<Value, ApiError> {
        if let Conversion::By(by) = &other.conversion {
            let converted = by.convert(vec![object], other.names().version).await?.into_iter().next();
            return converted.ok_or_else(|| ApiError::internal("the conversion lost the object"));
        }
        if matches!(self.conversion, Conversion::Pure) {
            self.kind.to_stored(&mut object);
        }
        if matches!(other.conversion, Conversion::Pure) {
            other.kind.from_stored(&mut object);
        }
        Ok(object)
    }

    fn shown_pure(&self, object: Object) -> Object {
        if object.text().starts_with(&self.head) {
            return object;
        }
        let revision = object.revision;
        Object::whole(encode::stored(&self.shown_value(&object)), revision)
    }

    /// The client sees what the store keeps: what a conversion forgets on the way is gone at once, not only at the next
    /// read.
    async fn round_trip(&self, by: &dyn Convert, object: &Value) -> Result<Texts, ApiError> {
        let one = |converted: Vec<Value>| {
            converted.into_iter().next().ok_or_else(|| ApiError::internal("the conversion lost the object"))
        };
        let mut other = one(by.convert(vec![object.clone()], by.stored_version()).await?)?;
        let stored = encode::stored(&other);
        by.as_read(&mut other);
        let back = one(by.convert(vec![other], self.names().version).await?)?;
        Ok(Texts { stored, shown: Some(encode::stored(&back)) })
    }

    /// The text of an object of this version as it is stored, and what is shown of it when that differs.
    pub(crate) async fn to_store(&self, object: &Value) -> Result<Texts, ApiError> {
        let own = encode::stored(object);
        let mut other = match &self.conversion {
            Conversion::None => return Ok(Texts { stored: own, shown: None }),
            Conversion::Pure => object.clone(),
            Conversion::By(by) if by.stored_version() == self.names().version => {
                return Ok(Texts { stored: own, shown: None });
            }
            Conversion::By(by) => return self.round_trip(&**by, object).await,
        };
        if matches!(self.conversion, Conversion::Pure) {
            self.kind.to_stored(&mut other);
        }
        Ok(Texts { stored: encode::stored(&other), shown: Some(own) })
    }
}

/// The two texts of an object.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    /// What goes into the store.
    pub(crate) stored: Bytes,
    /// What the client sees, when it is in another version.
    pub(crate) shown: Option<Bytes>,
}

impl Texts {
    /// What the client is sent once the store has given the change a revision.
    pub(crate) fn sent(&self, revision: reeve_store::Revision) -> Object {
        encode::sent(self.shown.as_ref().unwrap_or(&self.stored), revision)
    }
}

/// What is served at one moment. Immutable.
#[derive(Default)]
pub struct Resources {
    /// Counts the changes: whoever derives something from the resources compares it.
    pub generation: u64,
    builtin: Vec<Arc<Resource>>,
    /// What CustomResourceDefinitions make, by their names; in order of their names.
    custom: Vec<(String, Vec<Arc<Resource>>)>,
    by_plural: HashMap<&'static str, Vec<Arc<Resource>>>,
}

impl Resources {
    /// The built-in ones.
    pub(crate) fn builtin(builtin: Vec<Arc<Resource>>) -> Self {
        Self { builtin, ..Self::default() }.indexed()
    }

    /// With what `owner` offers now; nothing withdraws it.
    pub(crate) fn with(&self, owner: &str, offered: Vec<Arc<Resource>>) -> Self {
        let mut custom: Vec<_> = self.custom.iter().filter(|(name, _)| name != owner).cloned().collect();
        if !offered.is_empty() {
            let at = custom.partition_point(|(name, _)| name.as_str() < owner);
            custom.insert(at, (owner.to_owned(), offered));
        }
        let (generation, builtin) = (self.generation + 1, self.builtin.clone());
        Self { generation, builtin, custom, by_plural: HashMap::new() }.indexed()
    }

    fn indexed(mut self) -> Self {
        let mut by_plural: HashMap<&'static str, Vec<Arc<Resource>>> = HashMap::new();
        for resource in self.iter() {
            by_plural.entry(resource.names().plural).or_default().push(Arc::clone(resource));
        }
        self.by_plural = by_plural;
        self
    }

    /// All of them: built-in ones in the order of discovery, then custom ones.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.builtin.iter().chain(self.custom.iter().flat_map(|(_, all)| all))
    }

    /// Those of an owner.
    pub(crate) fn of_owner(&self, owner: &str) -> &[Arc<Resource>] {
        self.custom.iter().find(|(name, _)| name == owner).map(|(_, all)| all.as_slice()).unwrap_or_default()
    }

    /// The other versions of a resource: those on the same storage.
    pub(crate) fn siblings<'r>(&'r self, resource: &'r Resource) -> impl Iterator<Item = &'r Arc<Resource>> {
        let candidates = self.by_plural.get(resource.names().plural).into_iter().flatten();
        candidates.filter(|other| Arc::ptr_eq(&other.storage, &resource.storage) && other.names() != resource.names())
    }

    /// The resource of that group, version and plural name.
    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let candidates = self.by_plural.get(plural)?;
        candidates.iter().find(|own| own.names().group == group && own.names().version == version)
    }
}
