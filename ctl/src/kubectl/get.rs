//! `get`: objects as tables or in any other form, once or as they change.

use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;

use super::api::{Api, Url};
use super::args::{FileArgs, program};
use super::error::CliError;
use super::mapper::{Mapper, Resource};
use super::output::table::{Table, TableOptions};
use super::output::{self, Output, jsonpath};
use super::select::{self, Selection};

/// How many objects are asked for at once, as kubectl's `--chunk-size`.
const CHUNK: usize = 500;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// `get`
#[derive(Debug, Clone, Args)]
pub(crate) struct GetArgs {
    /// TYPE [NAME…], TYPE/NAME… or TYPE,TYPE…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Form of the output: name, wide, json, yaml, jsonpath=…, custom-columns=…
    #[arg(short, long, default_value = "")]
    pub output: String,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects whose labels fit
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "")]
    pub selector: String,
    /// Only objects whose fields fit
    #[arg(long, default_value = "")]
    pub field_selector: String,
    /// Then print every change
    #[arg(short, long)]
    pub watch: bool,
    /// Print changes only
    #[arg(long)]
    pub watch_only: bool,
    /// Show all labels
    #[arg(long)]
    pub show_labels: bool,
    /// Show the kind before each name
    #[arg(long)]
    pub show_kind: bool,
    /// Show these labels as columns
    #[arg(short = 'L', long, value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Leave the headings out
    #[arg(long)]
    pub no_headers: bool,
    /// Sort by what this path finds
    #[arg(long, default_value = "")]
    pub sort_by: String,
    /// Say nothing about objects that do not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Print managed fields too
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Ask for this path and print what comes
    #[arg(long, value_name = "PATH")]
    pub raw: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: GetArgs, api: &Api) -> Result<(), CliError> {
    if let Some(path) = &args.raw {
        let bytes = api.get_raw(&Url::new(path)).await?;
        return write(&String::from_utf8_lossy(&bytes));
    }
    if args.words.is_empty() && args.files.filename.is_empty() {
        return Err(nothing_named("get"));
    }
    let output = Output::parse(&args.output)?;
    let mapper = Mapper::discover(api).await?;
    let selections = selections(&args, api, &mapper)?;
    let get = Get { args: &args, api, output: &output };
    if args.watch || args.watch_only {
        return get.watch(&selections).await;
    }
    if output.is_table() { get.tables(&selections).await } else { get.objects(&selections).await }
}

fn selections(args: &GetArgs, api: &Api, mapper: &Mapper) -> Result<Vec<Selection>, CliError> {
    if args.files.filename.is_empty() {
        return select::select(mapper, &args.words);
    }
    let targets = select::targets(api, mapper, &args.files, &[])?;
    Ok(targets.into_iter().map(|own| Selection { resource: own.resource, names: vec![own.name] }).collect())
}

/// What `get` and `describe` say when no type is named.
pub(super) fn nothing_named(verb: &str) -> CliError {
    let program = program();
    CliError::Unreachable(format!(
        "You must specify the type of resource to {verb}. Use \"{program} api-resources\" for a complete list of supported resources.\n\nerror: Required resource not specified.\nUse \"{program} explain <resource>\" for a detailed description of that resource (e.g. {program} explain pods).\nSee '{program} {verb} -h' for help and examples"
    ))
}

/// Prints and goes on; a reader that went away ends the program quietly.
pub(crate) fn write(text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| CliError::Exit(0))
}

struct Get<'a> {
    args: &'a GetArgs,
    api: &'a Api,
    output: &'a Output,
}

/// What was asked of one selection: one answer per name, or the pages of a list.
struct Answers {
    resource: Resource,
    values: Vec<Value>,
    named: bool,
}

impl Get<'_> {
    fn namespace(&self) -> Option<&str> {
        (!self.args.all_namespaces).then_some(self.api.namespace.as_str())
    }

    fn collection(&self, resource: &Resource) -> Url {
        let selector = |name, value: &String| (!value.is_empty()).then(|| (name, value.clone()));
        resource
            .collection(self.namespace())
            .with_some(selector("labelSelector", &self.args.selector))
            .with_some(selector("fieldSelector", &self.args.field_selector))
    }

    fn include(&self, url: Url) -> Url {
        // Sorting looks at fields that a table leaves out.
        if self.output.is_table() && !self.args.sort_by.is_empty() { url.with("includeObject", "Object") } else { url }
    }

    async fn ask(&self, selection: &Selection, errors: &mut Vec<CliError>) -> Answers {
        let accept = if self.output.is_table() { TABLE } else { "application/json" };
        let mut values = Vec::new();
        for name in &selection.names {
            let namespace = self.namespace().unwrap_or_default();
            if selection.resource.namespaced && self.args.all_namespaces {
                errors.push(CliError::plain("a resource cannot be retrieved by name across all namespaces"));
                break;
            }
            let url = self.include(selection.resource.object(namespace, name));
            match self.api.get_as(&url, accept).await {
                Ok(value) => values.push(value),
                Err(err) if err.is_not_found() && self.args.ignore_not_found => {}
                Err(err) => errors.push(err),
            }
        }
        if selection.names.is_empty()
            && let Err(err) = self.pages(&selection.resource, accept, &mut values).await
        {
            errors.push(err);
        }
        Answers { resource: selection.resource.clone(), values, named: !selection.names.is_empty() }
    }

    async fn pages(&self, resource: &Resource, accept: &str, values: &mut Vec<Value>) -> Result<(), CliError> {
        let mut next = String::new();
        loop {
            let mut url = self.include(self.collection(resource)).with("limit", CHUNK.to_string());
            if !next.is_empty() {
                url = url.with("continue", next);
            }
            let page = self.api.get_as(&url, accept).await.map_err(|err| self.unmatched(resource, err))?;
            next = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
            values.push(page);
            if next.is_empty() {
                return Ok(());
            }
        }
    }

    /// kubectl says what was asked for when the server does not understand a selector.
    fn unmatched(&self, resource: &Resource, err: CliError) -> CliError {
        let (labels, fields) = (&self.args.selector, &self.args.field_selector);
        match err {
            CliError::Server(mut status)
                if status.reason.as_deref() == Some("BadRequest") && !(labels.is_empty() && fields.is_empty()) =>
            {
                let own = format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural);
                let said = status.message.unwrap_or_default();
                status.message = Some(format!(
                    "Unable to find {own:?} that match label selector {labels:?}, field selector {fields:?}: {said}"
                ));
                CliError::Server(status)
            }
            other => other,
        }
    }

    fn table_options(&self, resource: &Resource, several: bool) -> TableOptions {
        TableOptions {
            wide: matches!(self.output, Output::Table { wide: true }),
            namespace: self.args.all_namespaces && resource.namespaced,
            labels: self.args.show_labels,
            label_columns: self.args.label_columns.clone(),
            kind: (several || self.args.show_kind).then(|| resource.qualified(&resource.singular)),
        }
    }

    async fn tables(&self, selections: &[Selection]) -> Result<(), CliError> {
        let (mut errors, mut printed) = (Vec::new(), false);
        for group in grouped(selections) {
            let answers = self.ask(&group, &mut errors).await;
            let options = self.table_options(&answers.resource, selections.len() > 1);
            let Some(table) = self.merge(&answers, &options)? else { continue };
            let text = table.print(!self.args.no_headers, &mut Vec::new());
            write(if printed && !self.args.no_headers { "\n" } else { "" })?;
            write(&text)?;
            printed = true;
        }
        let found_nothing = !printed && errors.is_empty() && !self.args.ignore_not_found;
        if found_nothing {
            let namespaced = selections.iter().any(|own| own.resource.namespaced);
            match self.namespace().filter(|_| namespaced) {
                Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
                None => eprintln!("No resources found"),
            }
        }
        CliError::all(errors)
    }

    /// The rows of all answers under one heading; `None` when there are none.
    fn merge(&self, answers: &Answers, options: &TableOptions) -> Result<Option<Table>, CliError> {
        let mut rows: Vec<Value> = Vec::new();
        let mut columns = Vec::new();
        for value in &answers.values {
            if columns.is_empty() {
                columns = value.get("columnDefinitions").and_then(Value::as_array).cloned().unwrap_or_default();
            }
            rows.extend(value.get("rows").and_then(Value::as_array).cloned().unwrap_or_default());
        }
        if rows.is_empty() {
            return Ok(None);
        }
        if !self.args.sort_by.is_empty() {
            sort(&mut rows, &self.args.sort_by, |row| row.get("object").unwrap_or(row))?;
        }
        Ok(Some(Table::read(&serde_json::json!({"rows": rows}), &columns, options)))
    }

    async fn objects(&self, selections: &[Selection]) -> Result<(), CliError> {
        let mut errors = Vec::new();
        let mut all = Vec::new();
        for selection in selections {
            all.push(self.ask(selection, &mut errors).await);
        }
        let one = match all.as_slice() {
            [answers] if answers.named && answers.values.len() == 1 && selections[0].names.len() == 1 => {
                answers.values.first().cloned()
            }
            _ => None,
        };
        let resource = (all.len() == 1).then(|| &all[0].resource);
        let mut value = match one {
            Some(one) => one,
            None if !errors.is_empty() && all.iter().all(|own| own.values.is_empty()) => return CliError::all(errors),
            None if self.args.ignore_not_found && all.iter().all(|own| own.values.is_empty()) => return Ok(()),
            None => {
                let mut items: Vec<Value> = all.iter().flat_map(with_kinds).collect();
                if !self.args.sort_by.is_empty() {
                    sort(&mut items, &self.args.sort_by, |item| item)?;
                }
                output::list_of(&items)
            }
        };
        if !self.args.show_managed_fields {
            hide_managed_fields(&mut value);
        }
        write(&self.output.print(&value, resource)?)?;
        CliError::all(errors)
    }

    async fn watch(&self, selections: &[Selection]) -> Result<(), CliError> {
        let [selection] = selections else {
            return Err(CliError::plain("you may only specify a single resource type with --watch"));
        };
        let resource = &selection.resource;
        let options = self.table_options(resource, false);
        let accept = if self.output.is_table() { TABLE } else { "application/json" };
        let mut url = self.collection(resource);
        match selection.names.as_slice() {
            [] => {}
            [name] => url = url.with("fieldSelector", format!("metadata.name={name}")),
            _ => return Err(CliError::plain("you may only specify a single resource name with --watch")),
        }
        let list = self.api.get_as(&url, accept).await?;
        if let ([name], true) = (selection.names.as_slice(), is_empty(&list)) {
            // Asked for by name and not there: the server's own words.
            self.api.get(&resource.object(&self.api.namespace, name)).await?;
        }
        let mut printer = WatchPrinter { get: self, options, columns: Vec::new(), widths: Vec::new(), headings: true };
        if !self.args.watch_only {
            printer.print(&list)?;
        }
        printer.remember(&list);
        let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let url = url.with("watch", "true").with("resourceVersion", version);
        let mut events = self.api.watch(&url, accept).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            let object = event.get("object").cloned().unwrap_or_default();
            match event.get("type").and_then(Value::as_str) {
                Some("ERROR") => {
                    return Err(CliError::Server(Box::new(serde_json::from_value(object).unwrap_or_default())));
                }
                Some("BOOKMARK") => {}
                _ => printer.print(&object)?,
            }
        }
        Ok(())
    }
}

/// Names of the same resource, one after the other, are one table.
fn grouped(selections: &[Selection]) -> Vec<Selection> {
    let mut groups: Vec<Selection> = Vec::new();
    for selection in selections {
        match groups.last_mut().filter(|own| own.resource == selection.resource && !own.names.is_empty()) {
            Some(own) => own.names.extend(selection.names.iter().cloned()),
            None => groups.push(selection.clone()),
        }
    }
    groups
}

struct WatchPrinter<'a> {
    get: &'a Get<'a>,
    options: TableOptions,
    columns: Vec<Value>,
    widths: Vec<usize>,
    headings: bool,
}

impl WatchPrinter<'_> {
    fn remember(&mut self, table: &Value) {
        if let Some(columns) = table.get("columnDefinitions").and_then(Value::as_array).filter(|own| !own.is_empty()) {
            self.columns.clone_from(columns);
        }
    }

    fn print(&mut self, value: &Value) -> Result<(), CliError> {
        self.remember(value);
        if self.get.output.is_table() {
            let table = Table::read(value, &self.columns, &self.options);
            if table.rows.is_empty() {
                return Ok(());
            }
            let headings = std::mem::replace(&mut self.headings, false) && !self.get.args.no_headers;
            return write(&table.print(headings, &mut self.widths));
        }
        for mut item in output::items(value) {
            if !self.get.args.show_managed_fields {
                hide_managed_fields(&mut item);
            }
            let separator = if matches!(self.get.output, Output::Yaml) { "---\n" } else { "" };
            write(&format!("{separator}{}", self.get.output.print(&item, None)?))?;
        }
        Ok(())
    }
}

fn is_empty(list: &Value) -> bool {
    let items = list.get("rows").or_else(|| list.get("items")).and_then(Value::as_array);
    items.is_none_or(Vec::is_empty)
}

/// The objects of the answers; the items of a list do not say what they are, so it is said for them.
fn with_kinds(answers: &Answers) -> Vec<Value> {
    let own = answers.values.iter().flat_map(output::items);
    own.map(|mut item| {
        if let Value::Object(map) = &mut item {
            map.entry("apiVersion").or_insert_with(|| answers.resource.api_version().into());
            map.entry("kind").or_insert_with(|| answers.resource.kind.clone().into());
        }
        item
    })
    .collect()
}

/// kubectl leaves `managedFields` out unless asked.
pub(crate) fn hide_managed_fields(value: &mut Value) {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        hide_managed_fields(item);
    }
}

fn sort(items: &mut [Value], path: &str, object: impl Fn(&Value) -> &Value) -> Result<(), CliError> {
    let inner = path.trim_start_matches('{').trim_end_matches('}');
    let dotted = if inner.starts_with('.') { inner.to_owned() } else { format!(".{inner}") };
    let template = jsonpath::Template::parse(&format!("{{{dotted}}}")).map_err(CliError::Plain)?;
    let key = |item: &Value| template.values(object(item)).ok().and_then(|found| found.into_iter().next());
    items.sort_by(|a, b| match (key(a), key(b)) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(std::cmp::Ordering::Equal)
        }
        (Some(a), Some(b)) => jsonpath::text_of(&a).cmp(&jsonpath::text_of(&b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    Ok(())
}
