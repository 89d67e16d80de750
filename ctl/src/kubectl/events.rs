//! `events`: what happened, oldest first.

use clap::Args;
use serde_json::{Value, json};

use super::api::{Api, Url};
use super::describe::{age_of_event, time_of_event};
use super::error::CliError;
use super::get::write;
use super::mapper::{Mapper, Resource};
use super::output::{Output, table};

/// `events`
#[derive(Debug, Clone, Args)]
pub(crate) struct EventsArgs {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// About this object only, TYPE/NAME
    #[arg(long, value_name = "TYPE/NAME")]
    pub r#for: Option<String>,
    /// Only these types: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    pub types: Vec<String>,
    /// Leave the headings out
    #[arg(long)]
    pub no_headers: bool,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
}

/// Runs the verb.
pub(crate) async fn run(args: EventsArgs, api: &Api) -> Result<(), CliError> {
    let output = Output::parse(&args.output)?;
    if let Some(other) = args.types.iter().find(|own| !["normal", "warning"].contains(&own.to_lowercase().as_str())) {
        return Err(CliError::plain(format!("valid --types are Normal or Warning, not {other:?}")));
    }
    let list = api.get(&url(&args, api).await?).await?;
    let mut events = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted = |event: &Value| {
        let own = text(event, "/type");
        args.types.is_empty() || args.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(own))
    };
    events.retain(wanted);
    if events.is_empty() {
        match args.all_namespaces {
            true => eprintln!("No events found."),
            false => eprintln!("No events found in {} namespace.", api.namespace),
        }
        return Ok(());
    }
    events.sort_by_key(time_of_event);
    if !output.is_table() {
        events.iter_mut().for_each(super::get::hide_managed_fields);
        let list = json!({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": events});
        return write(&output.print(&list, None)?);
    }
    write(&print(&args, &events))
}

async fn url(args: &EventsArgs, api: &Api) -> Result<Url, CliError> {
    let resource = Resource::well_known("v1", "Event", "events");
    let url = resource.collection((!args.all_namespaces).then_some(api.namespace.as_str()));
    let Some(word) = &args.r#for else { return Ok(url) };
    let (typed, name) = word
        .split_once('/')
        .filter(|(typed, name)| !typed.is_empty() && !name.is_empty())
        .ok_or_else(|| CliError::plain("--for must be in resource/name form"))?;
    let mapper = Mapper::discover(api).await?;
    let about = mapper.find(typed)?;
    let selector = format!(
        "involvedObject.kind={},involvedObject.apiVersion={},involvedObject.name={name}",
        about.kind,
        about.api_version()
    );
    Ok(url.with("fieldSelector", selector))
}

fn text<'e>(event: &'e Value, pointer: &str) -> &'e str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn print(args: &EventsArgs, events: &[Value]) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let row = |namespace: &str, cells: [&str; 5]| {
        let namespace = args.all_namespaces.then(|| namespace.to_owned());
        namespace.into_iter().chain(cells.map(str::to_owned)).collect::<Vec<String>>()
    };
    if !args.no_headers {
        lines.push(row("NAMESPACE", ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]));
    }
    for event in events {
        let object = format!("{}/{}", text(event, "/involvedObject/kind"), text(event, "/involvedObject/name"));
        let cells = [
            &age_of_event(event),
            text(event, "/type"),
            text(event, "/reason"),
            &object,
            text(event, "/message").trim(),
        ];
        lines.push(row(text(event, "/metadata/namespace"), cells));
    }
    table::align(&lines.iter().collect::<Vec<_>>(), &mut Vec::new())
}
