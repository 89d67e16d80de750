//! ValidatingAdmissionWebhook: all that are meant are asked at once; one refusal is enough.

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::asked::{Asked, asked};
use super::call::{self, Failed};
use super::config::Hook;
use crate::admission::Attributes;
use crate::admission::versions::InVersion;
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
        let mut calls = Vec::new();
        for hook in hooks {
            match asked(registry, hook, attributes).await? {
                Asked::No => {}
                Asked::AsIs => calls.push(one(registry, hook, attributes, None)),
                Asked::InVersion(version) => calls.push(one(registry, hook, attributes, Some(version))),
            }
        }
        futures::stream::iter(calls).buffer_unordered(PARALLEL_MAX).try_collect::<()>().await
    }
    .boxed()
}

fn one<'a>(
    registry: &'a Registry,
    hook: &'a Hook,
    attributes: &'a Attributes<'a>,
    version: Option<Box<InVersion>>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    async move {
        let answer = match version {
            None => call::ask(registry, hook, attributes).await,
            Some(version) => call::ask(registry, hook, &version.attributes(attributes)).await,
        };
        match answer {
            Ok(_) => Ok(()),
            Err(Failed::Refused(refusal)) => Err(refusal),
            Err(Failed::Calling(why)) => call::judge(hook, &why),
        }
    }
    .boxed()
}
