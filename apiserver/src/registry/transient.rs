//! Bodies of which nothing is stored (reviews, bindings, evictions, token requests), on the way that all objects take:
//! fields, defaults, who manages what, both phases of admission. In between stand the rules of whoever answers.
//!
//! Source: `createHandler` of `k8s.io/apiserver/pkg/endpoints/handlers`.

use reeve_kinds::Kind;

use super::request::{Body, Request};
use super::{Registry, accept, managed, meta};
use crate::admission::{self, Attributes};
use crate::status::ApiError;

/// The subresource that a body belongs to, and what the body is.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// `eviction`; empty for reviews, which are resources of their own.
    pub(crate) subresource: &'static str,
    pub(crate) kind: &'static dyn Kind,
    /// Whether what else only the server says of an object (its uid, its version) means the object that the path names.
    pub(crate) means_object: bool,
}

impl Registry {
    /// The body of a subresource of that name, of an object that the body's uid and version mean.
    pub(crate) fn body_of(subresource: &'static str, kind: &str) -> Result<Part, ApiError> {
        let kind = reeve_kinds::body(kind).ok_or_else(ApiError::no_such_path)?;
        Ok(Part { subresource, kind: &**kind, means_object: true })
    }

    /// Takes a body as far as the mutating phase of admission goes. The caller judges it, then asks
    /// [`admission::validate`].
    ///
    /// # Errors
    /// When the body is not of its kind, or admission refuses it.
    pub(crate) async fn begin_transient<'r>(
        &self,
        request: &'r Request,
        part: Part,
        body: Body,
    ) -> Result<Attributes<'r>, ApiError> {
        let names = part.kind.names();
        let accepted = accept::whole(part.kind, body, request.options.field_validation)?;
        request.warnings.add_all(&accepted.warnings);
        let mut object = accepted.object;
        let sent = managed::take(&mut object);
        if !part.means_object {
            meta::wipe(&mut object);
        }
        meta::check_namespace(&mut object, request)?;
        part.kind.default(&mut object);
        let managed = managed::of_body(request, part, &object, &sent, self.clock.now());
        meta::set(&mut object, "managedFields", managed.clone());
        let attributes = Attributes::create(request, object);
        let mut attributes = match part.subresource {
            "" => attributes,
            subresource => attributes.of_kind(subresource, (names.group, names.version, names.kind)),
        };
        admission::mutate(self, &mut attributes).await?;
        meta::set(&mut attributes.object, "managedFields", managed);
        Ok(attributes)
    }
}
