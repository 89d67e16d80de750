//! The verbs about the servers of a control plane, through its API: join tokens and members. What a server itself does
//! is in `cluster::server`.

pub(crate) mod member;
pub(crate) mod token;

use bytes::Bytes;
use serde_json::Value;

use crate::kubectl::api::{Api, Url};
use crate::kubectl::error::CliError;

/// Reads a path that only servers of a control plane have.
async fn get(api: &Api, path: &str) -> Result<Bytes, CliError> {
    api.get_raw(&Url::new(path)).await.map_err(|err| match err {
        CliError::Server(status) if status.message.as_deref().is_some_and(|text| text.contains("404")) => {
            CliError::plain(format!("{} is no server of a control plane that others can join", api.address()))
        }
        other => other,
    })
}

/// The members as the server that is asked sees them.
async fn members(api: &Api) -> Result<Value, CliError> {
    let list = get(api, "/reeve/v1/members").await?;
    serde_json::from_slice(&list).map_err(|err| CliError::plain(format!("the server's answer is not JSON: {err}")))
}

/// A text of a JSON object; empty if there is none.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// The flags that say which etcd holds the state, where one does.
fn etcd_flags(list: &Value) -> Option<&str> {
    list["etcd"]["flags"].as_str()
}
