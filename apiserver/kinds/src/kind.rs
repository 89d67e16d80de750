//! What a kind is: the one trait that the generic API server asks.
//!
//! The generic part (routing, patch, watch, tables, discovery, dry run, deletion) lives in `reeve-apiserver`
//! and is written once; what differs from kind to kind is behind these methods. Objects are JSON values in
//! the form they have on the wire, with `apiVersion` and `kind` set and without `metadata.resourceVersion`
//! (the store's revision is added when the object is sent). Order of the calls for a write:
//!
//! create: [`Kind::default`] → [`Kind::prepare_create`] → admission → [`Kind::validate_create`];
//! update and patch: [`Kind::default`] → [`Kind::prepare_update`] → admission → [`Kind::validate_update`].

use std::borrow::Cow;

use jiff::Timestamp;
use reeve_api::patch::PatchSchema;
use serde_json::Value;

use crate::field::FieldError;
use crate::managed::MergeSchema;
use crate::openapi::Schemas;
use crate::shape::Shape;
use crate::strict::{self, DecodeError};

/// How a kind is called in URLs, in discovery and on the command line. The names of custom resources are interned
/// ([`crate::intern`]): they live as long as the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, `v1`.
    pub version: &'static str,
    /// `Deployment`
    pub kind: &'static str,
    /// Resource name in URLs, `deployments`
    pub plural: &'static str,
    /// `deployment`
    pub singular: &'static str,
    /// `deploy`
    pub short: &'static [&'static str],
    /// `all`
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
}

impl Names {
    /// `v1` or `apps/v1`: the object's `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Which part of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The main resource: everything but status (for kinds with a status subresource).
    Main,
    /// `…/status`: status, and of the metadata only what Kubernetes lets through.
    Status,
    /// `certificatesigningrequests/NAME/approval`: the conditions that approve or deny.
    Approval,
    /// `pods/NAME/ephemeralcontainers`: `spec.ephemeralContainers`.
    EphemeralContainers,
    /// `pods/NAME/resize`: the resources of the containers.
    Resize,
}

impl Part {
    /// How the part is called in URLs; empty for the main resource.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Approval => "approval",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
        }
    }
}

/// Where a kind keeps what its scale subresource shows. Paths are dotted, `spec.replicas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec_replicas: &'static str,
    /// Replicas there are.
    pub status_replicas: &'static str,
    /// The label selector (an object as in `spec.selector` of a Deployment).
    pub selector: &'static str,
}

/// A column of the kind's table, as in `metav1.TableColumnDefinition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading, `Name`.
    pub name: Cow<'static, str>,
    /// OpenAPI type of the cells: `string`, `integer`, `date`, …
    pub kind: Cow<'static, str>,
    /// OpenAPI format; `name` marks the column with the object's name.
    pub format: Cow<'static, str>,
    /// What the column shows.
    pub description: Cow<'static, str>,
    /// 0 is always shown; 1 only by `-o wide`.
    pub priority: i32,
}

/// Whose objects the ones of a kind are in the store, when several versions of it are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredAs {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource name.
    pub plural: &'static str,
}

/// One kind of object. Every method is pure and safe to call from any task.
pub trait Kind: Send + Sync + 'static {
    /// How the kind is called.
    fn names(&self) -> &Names;

    /// The kind's fields and their types: for strict decoding, merging and OpenAPI. [`Shape::Any`] for kinds whose
    /// fields are not known at build time (custom resources), which then answer [`Kind::conform`] themselves.
    fn shape(&self) -> &'static Shape;

    /// Brings an object into the form of the kind. Gives the paths of unknown fields, which have been removed.
    ///
    /// # Errors
    /// When a value has the wrong type.
    fn conform(&self, object: &mut Value) -> Result<Vec<String>, DecodeError> {
        strict::conform_to(self.shape(), object)
    }

    /// Brings what a server-side apply has made into the form of the kind.
    ///
    /// # Errors
    /// When a value has the wrong type.
    fn conform_applied(&self, object: &mut Value) -> Result<(), DecodeError> {
        self.conform(object).map(drop)
    }

    /// How strategic merge patch merges lists; `None`: the kind does not take it (custom resources).
    fn patch_schema(&self) -> Option<&dyn PatchSchema> {
        self.shape().inner_struct().map(|shape| shape as &dyn PatchSchema)
    }

    /// How server-side apply merges objects and who manages what of them; custom resources answer by their own schema.
    fn merge_schema(&self) -> &dyn MergeSchema {
        self.shape()
    }

    /// The kind's OpenAPI schemas. Large and made anew at each call; a kind without them is left out of OpenAPI.
    fn schemas(&self) -> Schemas {
        Schemas::default()
    }

    /// The parts that have a path of their own besides [`Part::Main`]. No other part is ever asked about.
    fn parts(&self) -> &[Part] {
        &[]
    }

    /// Where the replicas are, for kinds with a `…/scale` subresource.
    fn scale(&self) -> Option<ScalePaths> {
        None
    }

    /// Set when the objects are stored as those of another kind or version, which then is what
    /// [`Kind::from_stored`] gets and [`Kind::to_stored`] gives (apiVersion and kind included).
    fn stored_as(&self) -> Option<StoredAs> {
        None
    }

    /// From the stored form to this version's. Only called when [`Kind::stored_as`] answers.
    #[allow(clippy::wrong_self_convention, reason = "self is the kind, not the object")]
    fn from_stored(&self, object: &mut Value) {
        let _ = object;
    }

    /// From this version's form to the stored one. Only called when [`Kind::stored_as`] answers.
    fn to_stored(&self, object: &mut Value) {
        let _ = object;
    }

    /// Fills in what the user left out, as Kubernetes' `SetDefaults_*` do. Idempotent.
    fn default(&self, object: &mut Value);

    /// Clears and sets what the user has no say in at creation (status, generation). `metadata.uid`,
    /// `creationTimestamp`, `name` from `generateName` and the namespace are the generic part's.
    fn prepare_create(&self, object: &mut Value);

    /// Every rule a new object breaks, in Kubernetes' order and words. Empty means valid.
    /// Includes the rules for names, labels, annotations, owner references and finalizers.
    fn validate_create(&self, object: &Value) -> Vec<FieldError>;

    /// Takes over from `old` what `part` may not change (spec or status) and sets the generation: one more
    /// when the wanted state differs.
    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value);

    /// Every rule the change breaks, immutable fields included. Empty means valid.
    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError>;

    /// What every answer about this kind warns of, because the kind itself is deprecated; in Kubernetes' words.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// What to warn the user about (the `Warning` header), in Kubernetes' words. `old` is what a change of the main
    /// resource started from; changes of subresources are not asked about.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let _ = (object, old);
        Vec::new()
    }

    /// Why no object of this kind can be created at all; its definition is about to go.
    fn refuses_creation(&self) -> Option<&'static str> {
        None
    }

    /// Whether `PUT` to a name that does not exist creates the object (Kubernetes' `AllowCreateOnUpdate`).
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `resourceVersion` is taken (Kubernetes' `AllowUnconditionalUpdate`).
    fn unconditional_update(&self) -> bool {
        true
    }

    /// The value of a field that may stand in a field selector besides `metadata.name` and
    /// `metadata.namespace`; `None` means the kind has no such selectable field.
    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let _ = (object, field);
        None
    }

    /// Why objects cannot be selected by this field, in the words of kinds that have fields of their own for that;
    /// `None` is answered in the words for all others.
    fn not_selectable(&self, field: &str) -> Option<String> {
        let _ = field;
        None
    }

    /// Why the object of this name may not be deleted, in Kubernetes' words.
    fn undeletable(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// Seconds a deletion waits for the object's own agent; `None` deletes at once. `requested` is the
    /// request's `gracePeriodSeconds`. Only pods answer.
    fn deletion_grace(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let _ = (object, requested);
        None
    }

    /// The columns of the kind's table.
    fn columns(&self) -> &[Column];

    /// One row of the table: a cell per column, in order. Dates are shown as ages as of `now`.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}
