//! `reeve token`: join tokens, which are bootstrap token Secrets in `kube-system`.

use std::time::Duration;

use base64::Engine as _;
use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;
use reeve_api::clock::{Clock as _, RealClock};
use reeve_api::rng::SeededRng;
use reeve_apiserver::join::{JoinToken, bootstrap_secret};
use reeve_apiserver::pki::public_key_hash;
use serde_json::{Value, json};

use super::{etcd_flags, get, members, text};
use crate::cluster::server::join_command;
use crate::kubectl::api::{Api, Content, Url};
use crate::kubectl::connect::parse_duration;
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;
use crate::kubectl::output::{json_text, tabwriter};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const NAME_PREFIX: &str = "bootstrap-token-";
/// What tells our tokens from other bootstrap tokens.
const USAGE: &str = "usage-reeve-server-join";

/// `reeve token`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print what to type on the next server
    Create(CreateArgs),
    /// List the tokens, without their secrets
    #[command(alias = "ls")]
    List(ListArgs),
    /// Make tokens worthless
    Delete(DeleteArgs),
}

/// `reeve token create`
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// How long the token is valid, such as 2h or 30m; 0 is for ever
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub ttl: String,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
    /// Print the token alone
    #[arg(short, long)]
    pub quiet: bool,
}

/// `reeve token list`
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Form of the output: json
    #[arg(short, long, default_value = "", value_parser = ["", "json"])]
    pub output: String,
}

/// `reeve token delete`
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteArgs {
    /// Tokens, or what stands before their dot
    #[arg(required = true, value_name = "TOKEN")]
    pub tokens: Vec<String>,
}

/// Runs the verb.
pub(crate) async fn run(command: TokenCommand, api: &Api) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(args) => {
            let token = create(api, &args.ttl, &args.description).await?;
            if args.quiet {
                return write(&format!("{token}\n"));
            }
            let list = members(api).await?;
            let command = join_command(&server_address(&list, None)?, &token, None, etcd_flags(&list));
            write(&format!("The next server joins by:\n  {command}\n"))
        }
        TokenCommand::List(args) => list(&args, api).await,
        TokenCommand::Delete(args) => delete(&args, api).await,
    }
}

/// Makes a token.
pub(super) async fn create(api: &Api, ttl: &str, description: &str) -> Result<JoinToken, CliError> {
    let ttl = parse_duration(ttl)?.filter(|ttl| !ttl.is_zero());
    let ca = get(api, "/reeve/v1/ca").await?;
    let hash = public_key_hash(&String::from_utf8_lossy(&ca));
    let hash = hash.ok_or_else(|| CliError::plain("the server's CA cannot be read"))?;
    let token = JoinToken::generate(&SeededRng::from_os(), hash);
    let expires = ttl.map(|ttl: Duration| RealClock::new().now() + ttl);
    let secret = bootstrap_secret(&token, description, expires);
    api.send(Method::POST, &Url::new(SECRETS), Content::Json, &secret).await?;
    Ok(token)
}

/// Where the next server should ask: the leader if it is known. Not the one it replaces, which may have died so lately
/// that nobody knows it yet.
pub(super) fn server_address(list: &Value, replaced: Option<&str>) -> Result<String, CliError> {
    let all = list["members"].as_array().cloned().unwrap_or_default();
    let is_replaced = |member: &Value| replaced.is_some_and(|name| text(member, "name") == name);
    let has_address = |member: &Value| !text(member, "apiAddress").is_empty() && member["alive"] != false;
    let usable = |member: &&Value| has_address(member) && !is_replaced(member);
    let leader = all.iter().filter(usable).find(|member| text(member, "role") == "leader");
    let found = leader.or_else(|| all.iter().find(usable));
    found
        .map(|member| text(member, "apiAddress").to_owned())
        .ok_or_else(|| CliError::plain("no server says where its API is reached"))
}

/// A field of a token's Secret.
fn field(secret: &Value, name: &str) -> String {
    let decoded = secret["data"][name]
        .as_str()
        .and_then(|text| String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok());
    decoded.unwrap_or_default()
}

async fn list(args: &ListArgs, api: &Api) -> Result<(), CliError> {
    let found = api.get(&Url::new(SECRETS).with("fieldSelector", "type=bootstrap.kubernetes.io/token")).await?;
    let secrets = found["items"].as_array().cloned().unwrap_or_default();
    let ours: Vec<&Value> = secrets.iter().filter(|secret| field(secret, USAGE) == "true").collect();
    let now = RealClock::new().now();
    if args.output == "json" {
        let described = |secret: &&Value| {
            json!({
                "id": field(secret, "token-id"), "expires": field(secret, "expiration"),
                "description": field(secret, "description"),
            })
        };
        return write(&json_text(&json!(ours.iter().map(described).collect::<Vec<_>>())));
    }
    let mut lines = "ID\tVALID FOR\tEXPIRES\tDESCRIPTION\n".to_owned();
    for secret in ours {
        let (expires, description) = (field(secret, "expiration"), field(secret, "description"));
        let shown = if expires.is_empty() { "<never>" } else { &expires };
        lines.push_str(&format!("{}\t{}\t{shown}\t{description}\n", field(secret, "token-id"), left(&expires, now)));
    }
    write(&tabwriter::align(&lines))
}

/// How long a token is still valid, as kubectl shows ages.
fn left(expires: &str, now: Timestamp) -> String {
    if expires.is_empty() {
        return "<forever>".to_owned();
    }
    let Ok(expires) = expires.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = expires.duration_since(now).as_secs();
    match seconds {
        ..=0 => "<expired>".to_owned(),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

async fn delete(args: &DeleteArgs, api: &Api) -> Result<(), CliError> {
    for token in &args.tokens {
        let id = token.split('.').next().unwrap_or_default();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(CliError::plain(format!("not a token: {id:?}")));
        }
        let url = Url::new(format!("{SECRETS}/{NAME_PREFIX}{id}"));
        api.send(Method::DELETE, &url, Content::Json, &json!({})).await?;
        write(&format!("token {id:?} deleted\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_server_asks_the_leader_but_never_the_one_it_replaces() {
        let server =
            |name: &str, role: &str| json!({ "name": name, "role": role, "apiAddress": format!("{name}:6443") });
        let list = json!({ "members": [server("a", "follower"), server("b", "leader")] });
        assert_eq!(server_address(&list, None).unwrap(), "b:6443");
        assert_eq!(server_address(&list, Some("b")).unwrap(), "a:6443");
        assert!(server_address(&json!({ "members": [server("b", "leader")] }), Some("b")).is_err());
    }

    #[test]
    fn what_is_left_of_a_token_is_told_roughly() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let told = |expires| left(expires, now);
        assert_eq!(told(""), "<forever>");
        assert_eq!(told("2026-06-01T12:00:00Z"), "<expired>");
        assert_eq!(told("2026-06-01T12:01:30Z"), "90s");
        assert_eq!(told("2026-06-01T13:30:00Z"), "90m");
        assert_eq!(told("2026-06-02T12:00:00Z"), "24h");
        assert_eq!(told("x"), "<unknown>");
    }
}
