//! What servers say of themselves, asked over and over: who leads, in which term.

use std::path::PathBuf;
use std::time::Duration;

use hyper::http::Request;
use kube::Client;
use serde_json::Value;

use super::clients::{connect, within};
use crate::patience::eventually;
use crate::servers::Servers;

/// How long a server may take to answer.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Who leads, as one server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// In which term.
    pub term: u64,
}

/// Who leads, as one of these servers sees it.
///
/// # Panics
/// When none of them knows for long.
#[must_use]
#[track_caller]
pub fn leader(servers: &Servers, asked: &[&str]) -> Leader {
    eventually("a leader", || {
        let mut seen = String::from("no server answers");
        for name in asked {
            match ask(servers, name, "/reeve/v1/members").map(|list| leader_in(&list)) {
                Some(Some(leader)) if asked.contains(&&*leader.name) => return Ok(leader),
                Some(other) => seen = format!("{name} says {other:?}"),
                None => {}
            }
        }
        Err(seen)
    })
}

fn leader_in(list: &Value) -> Option<Leader> {
    let leader = list["members"].as_array()?.iter().find(|member| member["role"] == "leader")?;
    Some(Leader { name: leader["name"].as_str()?.to_owned(), term: list["term"].as_u64()? })
}

/// What a server answers on a path; `None` when it does not.
#[must_use]
pub fn ask(servers: &Servers, name: &str, path: &'static str) -> Option<Value> {
    let way = servers.kubeconfig(name);
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    let thread = within(servers.pin(), async move {
        let asked = tokio::time::timeout(TIME_MAX, get(way, path)).await;
        let _ = answer.send(asked.ok().flatten());
    });
    let answer = answered.recv().ok().flatten();
    let _ = thread.join();
    answer
}

async fn get(way: PathBuf, path: &'static str) -> Option<Value> {
    let client: Client = connect(&way).await?;
    let request = Request::get(path).body(Vec::new()).ok()?;
    client.request(request).await.ok()
}
