//! `reeve member`: who the servers of a control plane are, and changing that.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{members, text, token};
use crate::cluster::server::join_command;
use crate::kubectl::api::{Api, Content, Url, encode};
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;
use crate::kubectl::output::{json_text, tabwriter};

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
            let token = token::create(api, &args.ttl, "for a new server").await?;
            let address = token::server_address(api).await?;
            write(&format!("The new server joins by:\n  {}\n", join_command(&address, &token, None)))
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
            let token = token::create(api, &args.token.ttl, &format!("for a server in place of {name}")).await?;
            let address = token::server_address(api).await?;
            let command = join_command(&address, &token, Some(&name));
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

fn table(list: &Value) -> String {
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
        assert_eq!(found(&list, "f7").unwrap(), "b");
        assert!(found(&list, "c").is_err());
    }
}
