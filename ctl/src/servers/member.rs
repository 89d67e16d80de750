//! `reeve member`: who the servers of a control plane are, and changing that.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{etcd_flags, members, text, token};
use crate::cluster::server::join_command;
use crate::kubectl::api::{Api, Content, Url, encode};
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;
use crate::kubectl::output::{json_text, tabwriter};

/// What `add` says besides where the state lies in an etcd.
const ADDED_IN_ETCD: &str = "It keeps the state in the same etcd; the members of that are etcd's own business (etcdctl \
                             member add).\n";

/// `reeve member`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the servers, what they do and whether they are there
    #[command(alias = "ls")]
    List(ListArgs),
    /// Make a token for one more server and print what to type there
    Add(TokenArgs),
    /// Take a server out for good; it needs an empty data folder to come back
    #[command(alias = "rm")]
    Remove(NameArgs),
    /// Let a server vote that only follows; one that joins does this by itself
    Promote(NameArgs),
    /// Make a server the leader
    Lead(NameArgs),
    /// Make a token for a server that takes the place of one that is lost, and print what to type there
    Replace(ReplaceArgs),
}

/// `reeve member list`
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Form of the output: json
    #[arg(short, long, default_value = "", value_parser = ["", "json"])]
    pub output: String,
}

/// Which server.
#[derive(Debug, Clone, Args)]
pub(crate) struct NameArgs {
    /// Its name or id
    #[arg(value_name = "MEMBER")]
    pub name: String,
    /// Form of the output: json
    #[arg(short, long, default_value = "", value_parser = ["", "json"])]
    pub output: String,
}

/// How long the new server has time.
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// How long the token is valid, such as 2h or 30m; 0 is for ever
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub ttl: String,
}

/// `reeve member replace`
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplaceArgs {
    /// Name or id of the server that is lost
    #[arg(value_name = "MEMBER")]
    pub name: String,
    #[command(flatten)]
    pub token: TokenArgs,
}

/// Runs the verb.
pub(crate) async fn run(command: MemberCommand, api: &Api) -> Result<(), CliError> {
    match command {
        MemberCommand::List(args) => {
            let list = members(api).await?;
            write(&if args.output == "json" { json_text(&list) } else { table(&list) })
        }
        MemberCommand::Add(args) => {
            let list = members(api).await?;
            let token = token::create(api, &args.ttl, "for a new server").await?;
            let command = join_command(&token::server_address(&list, None)?, &token, None, etcd_flags(&list));
            let etcd = if list["etcd"].is_null() { "" } else { ADDED_IN_ETCD };
            write(&format!("The new server joins by:\n  {command}\n{etcd}"))
        }
        MemberCommand::Remove(args) => {
            let answer = change(api, Method::DELETE, &args.name, "").await?;
            let told = format!("member {:?} removed\n", text(&answer["removed"], "name"));
            write(&if args.output == "json" { json_text(&answer) } else { told })
        }
        MemberCommand::Promote(args) => changed(api, &args, "promote", "votes").await,
        MemberCommand::Lead(args) => changed(api, &args, "lead", "leads").await,
        MemberCommand::Replace(args) => {
            let list = members(api).await?;
            let name = found(&list, &args.name)?;
            if !list["etcd"].is_null() {
                return Err(CliError::plain(format!(
                    "server {name:?} holds nothing of the state, which lies in an etcd: `reeve member remove {name}`, \
                     then `reeve member add`; a member of that etcd is replaced by etcd's own means (etcdctl member)"
                )));
            }
            let token = token::create(api, &args.token.ttl, &format!("for a server in place of {name}")).await?;
            let command = join_command(&token::server_address(&list, Some(&name))?, &token, Some(&name), None);
            write(&format!("The server in place of {name:?} joins by:\n  {command}\n"))
        }
    }
}

async fn changed(api: &Api, args: &NameArgs, verb: &str, done: &str) -> Result<(), CliError> {
    let answer = change(api, Method::POST, &args.name, verb).await?;
    write(&if args.output == "json" { json_text(&answer) } else { format!("member {:?} {done}\n", args.name) })
}

async fn change(api: &Api, method: Method, name: &str, verb: &str) -> Result<Value, CliError> {
    let slash = if verb.is_empty() { "" } else { "/" };
    let url = Url::new(format!("/reeve/v1/members/{}{slash}{verb}", encode(name)));
    api.send(method, &url, Content::Json, &json!({})).await
}

/// The name of a member that is there.
fn found(list: &Value, name: &str) -> Result<String, CliError> {
    let all = list["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|member| [text(member, "name"), text(member, "id")].contains(&name));
    let found = found.map(|member| text(member, "name").to_owned());
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|member| text(member, "name")).collect();
        CliError::plain(format!("there is no member {name:?}; there is: {}", names.join(", ")))
    })
}

/// The servers of a control plane whose state lies in an etcd.
fn table_in_etcd(list: &Value) -> String {
    let mut lines = "NAME\tID\tROLE\tALIVE\tAPI AT\n".to_owned();
    for member in list["members"].as_array().into_iter().flatten() {
        let [name, id, role, at] = ["name", "id", "role", "apiAddress"].map(|field| text(member, field));
        let alive = if member["alive"] == true { "yes" } else { "no" };
        lines.push_str(&format!("{name}\t{id}\t{role}\t{alive}\t{at}\n"));
    }
    let servers = list["etcd"]["servers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let (servers, prefix) = (servers.collect::<Vec<_>>().join(", "), text(&list["etcd"], "prefix"));
    let told = format!("\nNo server votes: the state lies in the etcd at {servers}, under {prefix}.\n");
    tabwriter::align(&lines) + &told
}

fn table(list: &Value) -> String {
    if !list["etcd"].is_null() {
        return table_in_etcd(list);
    }
    let mut lines = "NAME\tID\tROLE\tALIVE\tPEERS AT\tAPI AT\tBEHIND\n".to_owned();
    let commit = list["commitIndex"].as_u64().unwrap_or(0);
    for member in list["members"].as_array().into_iter().flatten() {
        // Only the leader knows how the others are, and it could not be asked.
        let alive = member["alive"].as_bool().map_or("?", |alive| if alive { "yes" } else { "no" });
        let behind = member["matchIndex"].as_u64().map(|matched| commit.saturating_sub(matched).to_string());
        let cells = ["name", "id", "role"].map(|field| text(member, field));
        let addresses = ["peerAddress", "apiAddress"].map(|field| text(member, field));
        let behind = behind.as_deref().unwrap_or("?");
        lines.push_str(&format!("{}\t{alive}\t{}\t{behind}\n", cells.join("\t"), addresses.join("\t")));
    }
    let corrupt = list["members"].as_array().into_iter().flatten().filter(|member| !member["alarm"].is_null());
    let told = corrupt.map(|member| {
        let (name, revision) = (text(member, "name"), &member["alarm"]["revision"]);
        let differs = if member["alarm"]["certain"] == true {
            "its data differs from that of the others; `reeve member replace"
        } else {
            "it is among servers that hold different data, none of which is that of most; `reeve store verify` on \
             each may say which is damaged, `reeve member replace"
        };
        format!("\nALARM CORRUPT: {name}, at revision {revision}: {differs} {name}` is the way out\n")
    });
    tabwriter::align(&lines) + &told.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_there_is_and_how_they_are_as_far_as_it_is_known() {
        let list = json!({"commitIndex": 9, "members": [
            {"name": "a", "id": "1", "role": "leader", "alive": true, "matchIndex": 9,
                "peerAddress": "192.0.2.1:2380", "apiAddress": "192.0.2.1:6443"},
            {"name": "b", "id": "f7", "role": "learner", "peerAddress": "192.0.2.2:2380", "apiAddress": ""},
        ]});
        let wanted = "\
NAME  ID  ROLE     ALIVE  PEERS AT        API AT          BEHIND
a     1   leader   yes    192.0.2.1:2380  192.0.2.1:6443  0
b     f7  learner  ?      192.0.2.2:2380                  ?
";
        assert_eq!(table(&list), wanted);
        let mut corrupt = list.clone();
        corrupt["members"][1]["alarm"] = json!({"type": "CORRUPT", "revision": 12, "certain": true});
        let told =
            "ALARM CORRUPT: b, at revision 12: its data differs from that of the others; `reeve member replace b`";
        assert!(table(&corrupt).contains(told), "{}", table(&corrupt));
        let in_etcd = json!({
            "etcd": {"servers": ["https://192.0.2.9:2379"], "prefix": "/reeve", "flags": ""},
            "members": [{"name": "a", "id": "1", "role": "server", "alive": true, "apiAddress": "192.0.2.1:6443"}],
        });
        let wanted = "\
NAME  ID  ROLE    ALIVE  API AT
a     1   server  yes    192.0.2.1:6443

No server votes: the state lies in the etcd at https://192.0.2.9:2379, under /reeve.
";
        assert_eq!(table(&in_etcd), wanted);
        assert_eq!(found(&list, "f7").unwrap(), "b");
        assert!(found(&list, "c").is_err());
    }
}
