//! ValidatingAdmissionWebhook: all that are meant are asked at once; one refusal is enough.

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::call::{self, Failed};
use super::config::Hook;
use super::matching;
use crate::admission::Attributes;
use crate::registry::Registry;
use crate::status::ApiError;

/// So many webhooks are asked at the same time.
const PARALLEL_MAX: usize = 64;

/// Asks all that are meant.
pub(super) fn ask<'a>(
    registry: &'a Registry,
    hooks: &'a [Hook],
    attributes: &'a Attributes<'a>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    async move {
        let mut asked = Vec::new();
        for hook in hooks {
            if matching::is_asked(registry, hook, attributes).await? {
                asked.push(one(registry, hook, attributes));
            }
        }
        futures::stream::iter(asked).buffer_unordered(PARALLEL_MAX).try_collect::<()>().await
    }
    .boxed()
}

fn one<'a>(
    registry: &'a Registry,
    hook: &'a Hook,
    attributes: &'a Attributes<'a>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    async move {
        match call::ask(registry, hook, attributes).await {
            Ok(_) => Ok(()),
            Err(Failed::Refused(refusal)) => Err(refusal),
            Err(Failed::Calling(why)) => call::judge(hook, &why),
        }
    }
    .boxed()
}
