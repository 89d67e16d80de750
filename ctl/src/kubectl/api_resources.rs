//! `api-resources` and `api-versions`: what the server offers.

use clap::Args;

use super::api::Api;
use super::error::CliError;
use super::get::write;
use super::mapper::{Mapper, Resource};
use super::output::table::align;

/// `api-resources`
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiResourcesArgs {
    /// Only this API group
    #[arg(long)]
    pub api_group: Option<String>,
    /// Only resources with (true) or without (false) a namespace
    #[arg(long)]
    pub namespaced: Option<bool>,
    /// Only resources with all of these verbs
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
    /// Only resources of these categories
    #[arg(long, value_delimiter = ',')]
    pub categories: Vec<String>,
    /// Leave the headings out
    #[arg(long)]
    pub no_headers: bool,
    /// name or wide
    #[arg(short, long, default_value = "", value_parser = ["", "name", "wide"])]
    pub output: String,
    /// Sort by name or kind
    #[arg(long, default_value = "", value_parser = ["", "name", "kind"])]
    pub sort_by: String,
}

/// Runs `api-resources`.
pub(crate) async fn run(args: ApiResourcesArgs, api: &Api) -> Result<(), CliError> {
    let mapper = Mapper::discover(api).await?;
    let fits = |own: &&Resource| {
        args.api_group.as_ref().is_none_or(|group| own.group == *group)
            && args.namespaced.is_none_or(|namespaced| own.namespaced == namespaced)
            && args.verbs.iter().all(|verb| own.can(verb))
            && args.categories.iter().all(|category| own.categories.contains(category))
    };
    let mut found: Vec<&Resource> = mapper.preferred().filter(fits).collect();
    match args.sort_by.as_str() {
        "name" => found.sort_by(|a, b| a.plural.cmp(&b.plural)),
        "kind" => found.sort_by(|a, b| a.kind.cmp(&b.kind)),
        _ => found.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural))),
    }
    if args.output == "name" {
        let names: String = found.iter().map(|own| format!("{}\n", own.qualified(&own.plural))).collect();
        return write(&names);
    }
    write(&table(&found, args.output == "wide", !args.no_headers))
}

fn table(found: &[&Resource], wide: bool, headings: bool) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    if headings {
        let own = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"];
        lines.push(own.iter().take(if wide { 7 } else { 5 }).map(|own| (*own).to_owned()).collect());
    }
    for own in found {
        let mut line = vec![
            own.plural.clone(),
            own.short.join(","),
            own.api_version(),
            own.namespaced.to_string(),
            own.kind.clone(),
        ];
        if wide {
            line.extend([own.verbs.join(","), own.categories.join(",")]);
        }
        lines.push(line);
    }
    align(&lines.iter().collect::<Vec<_>>(), &mut Vec::new())
}

/// Runs `api-versions`.
pub(crate) async fn versions(api: &Api) -> Result<(), CliError> {
    let mapper = Mapper::discover(api).await?;
    let mut found: Vec<String> = mapper.all().iter().map(Resource::api_version).collect();
    found.sort();
    found.dedup();
    write(&found.iter().map(|own| format!("{own}\n")).collect::<String>())
}
