//! Which webhooks are asked about a request, and in which version of its resource.

use super::config::Hook;
use crate::admission::Attributes;
use crate::admission::matching::Match;
use crate::admission::policy::Matched;
use crate::admission::versions::InVersion;
use crate::registry::Registry;
use crate::status::ApiError;

/// How a webhook is asked.
pub(super) enum Asked {
    /// It is not.
    No,
    /// About the request as it was made.
    AsIs,
    /// About the request in another version.
    InVersion(Box<InVersion>),
}

/// Whether and how the webhook is to be asked. An error is the request's: whether it is meant cannot be told.
pub(super) async fn asked(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Result<Asked, ApiError> {
    match hook.about.find(registry, attributes).await? {
        Match::No => Ok(Asked::No),
        Match::AsIs => Ok(if holds(registry, hook, attributes)? { Asked::AsIs } else { Asked::No }),
        Match::As(resource) => {
            let version = InVersion::of(attributes, &resource).await;
            let version = version.map_err(|error| ApiError::internal(error.message))?;
            let holds = holds(registry, hook, &version.attributes(attributes))?;
            Ok(if holds { Asked::InVersion(Box::new(version)) } else { Asked::No })
        }
    }
}

/// Whether the webhook's conditions hold.
fn holds(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    match hook.conditions.matches(attributes, registry.policies.authorizer()) {
        Matched::Yes => Ok(true),
        Matched::No => Ok(false),
        Matched::Failed(why) => Err(ApiError::forbidden(attributes.request.resource.names(), attributes.name(), &why)),
    }
}
