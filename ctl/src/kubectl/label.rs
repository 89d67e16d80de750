//! `label` and `annotate`: sets and removes entries of `metadata.labels` and `metadata.annotations`.

use std::collections::BTreeMap;

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, Content};
use super::args::{DryRun, DryRunArgs, FileArgs};
use super::error::CliError;
use super::get::write;
use super::mapper::Mapper;
use super::output::Output;
use super::select::{Among, Target};

/// `label`, `annotate`
#[derive(Debug, Clone, Args)]
pub(crate) struct LabelArgs {
    /// TYPE NAME…, TYPE/NAME…, then KEY=VALUE… to set and KEY-… to remove
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub among: Among,
    /// Change entries that are there already
    #[arg(long)]
    pub overwrite: bool,
    /// Show what is there
    #[arg(long)]
    pub list: bool,
    /// Refuse unless the object is at this version
    #[arg(long, default_value = "")]
    pub resource_version: String,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
    /// Name under which the change is recorded
    #[arg(long)]
    pub field_manager: Option<String>,
}

/// Which of the two verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// `metadata.labels`
    Labels,
    /// `metadata.annotations`
    Annotations,
}

impl Part {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotation",
        }
    }

    fn manager(self) -> &'static str {
        match self {
            Self::Labels => "kubectl-label",
            Self::Annotations => "kubectl-annotate",
        }
    }
}

/// Entries to set, or (`None`) to remove.
type Changes = BTreeMap<String, Option<String>>;

/// Runs `label` or `annotate`.
pub(crate) async fn run(part: Part, args: LabelArgs, api: &Api) -> Result<(), CliError> {
    let (words, changes) = split(part, &args.words)?;
    if changes.is_empty() && !args.list {
        return Err(CliError::plain(format!("at least one {} update is required", part.singular())));
    }
    let output = Output::parse(&args.output)?;
    let mapper = Mapper::discover(api).await?;
    let targets = args.among.targets(api, &mapper, &args.files, &words).await?;
    // Asked for by name, one object needs no heading.
    let several = targets.len() > 1 || args.among.all || !args.among.selector.is_empty();
    let verb = Verb { part, args: &args, changes: &changes, api, output };
    let mut errors = Vec::new();
    for target in &targets {
        errors.extend(verb.one(target, several).await.err());
    }
    CliError::all(errors)
}

/// Objects first, changes last.
fn split(part: Part, words: &[String]) -> Result<(Vec<String>, Changes), CliError> {
    let is_change =
        |word: &&String| (word.contains('=') && !word.starts_with('=')) || (word.len() > 1 && word.ends_with('-'));
    let first = words.iter().position(|word| is_change(&word)).unwrap_or(words.len());
    let (objects, pairs) = words.split_at(first);
    if let Some(word) = pairs.iter().find(|word| !is_change(word)) {
        let what = part.singular();
        return Err(CliError::plain(format!("all resources must be specified before {what} changes: {word}")));
    }
    let mut changes = Changes::new();
    for pair in pairs {
        let (key, value) = match pair.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (pair.trim_end_matches('-'), None),
        };
        if changes.get(key).is_some_and(|before| before.is_some() != value.is_some()) {
            let what = part.singular();
            return Err(CliError::plain(format!("can not both modify and remove a {what} in the same command")));
        }
        changes.insert(key.to_owned(), value);
    }
    Ok((objects.to_vec(), changes))
}

struct Verb<'a> {
    part: Part,
    args: &'a LabelArgs,
    changes: &'a Changes,
    api: &'a Api,
    output: Output,
}

impl Verb<'_> {
    async fn one(&self, target: &Target, several: bool) -> Result<(), CliError> {
        let url = target.resource.object(&target.namespace, &target.name);
        let mut object = self.api.get(&url).await?;
        let field = self.part.field();
        let before = object.pointer("/metadata").and_then(|own| own.get(field)).and_then(Value::as_object);
        let before = before.cloned().unwrap_or_default();
        let after = self.changed(&before)?;
        if self.args.list {
            return list(self.part, target, &after, several);
        }
        for (key, value) in self.changes {
            if value.is_none() && !before.contains_key(key) && self.part == Part::Labels {
                write(&format!("label {key:?} not found.\n"))?;
            }
        }
        if self.args.dry_run.dry_run == DryRun::Client {
            object["metadata"][field] = json!(after);
        } else {
            let mut patch = json!({"metadata": {field: self.changes}});
            if !self.args.resource_version.is_empty() {
                patch["metadata"]["resourceVersion"] = json!(self.args.resource_version);
            }
            let manager = self.args.field_manager.as_deref().unwrap_or(self.part.manager());
            let url = url.with_some(self.args.dry_run.query()).with("fieldManager", manager);
            object = self.api.send(Method::PATCH, &url, Content::MergePatch, &patch).await?;
        }
        if !self.output.is_table() {
            super::get::hide_managed_fields(&mut object);
            return write(&self.output.print(&object, Some(&target.resource))?);
        }
        let said = self.said(&before, &after);
        write(&format!("{} {said}{}\n", target.display(), self.args.dry_run.suffix()))
    }

    /// The entries as they will be. Refuses to change one that is there, unless told to.
    fn changed(&self, before: &Map<String, Value>) -> Result<Map<String, Value>, CliError> {
        let mut after = before.clone();
        let mut declared = Vec::new();
        for (key, value) in self.changes {
            let Some(value) = value else {
                after.remove(key);
                continue;
            };
            match before.get(key).and_then(Value::as_str) {
                Some(own) if own != value && !self.args.overwrite => {
                    declared.push(format!("'{key}' already has a value ({own})"));
                }
                _ => drop(after.insert(key.clone(), json!(value))),
            }
        }
        match (self.part, declared.as_slice()) {
            (_, []) => Ok(after),
            (Part::Labels, declared) => {
                Err(CliError::plain(format!("{}, and --overwrite is false", declared.join("; "))))
            }
            (Part::Annotations, declared) => Err(CliError::plain(format!(
                "--overwrite is false but found the following declared annotation(s): {}",
                declared.join("; ")
            ))),
        }
    }

    fn said(&self, before: &Map<String, Value>, after: &Map<String, Value>) -> &'static str {
        match self.part {
            Part::Annotations => "annotated",
            Part::Labels if before == after => "not labeled",
            Part::Labels if !self.args.overwrite && after.len() < before.len() => "unlabeled",
            Part::Labels => "labeled",
        }
    }
}

fn list(part: Part, target: &Target, entries: &Map<String, Value>, several: bool) -> Result<(), CliError> {
    let mut text = String::new();
    if several {
        let resource = &target.resource;
        text = format!("Listing {} for {}.{}/{}:\n", part.field(), resource.kind, resource.group, target.name);
    }
    for (key, value) in entries {
        let indent = if several { " " } else { "" };
        text.push_str(&format!("{indent}{key}={}\n", value.as_str().unwrap_or_default()));
    }
    write(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn objects_come_first_and_changes_last() {
        let (objects, changes) = split(Part::Labels, &words("pods a b x=1 y= z-")).expect("split");
        assert_eq!(objects, ["pods", "a", "b"]);
        let expected = [("x", Some("1")), ("y", Some("")), ("z", None)];
        assert_eq!(changes, expected.map(|(k, v)| (k.to_owned(), v.map(str::to_owned))).into());
        assert!(split(Part::Labels, &words("pods x=1 a")).is_err());
        assert!(split(Part::Labels, &words("pods a x=1 x-")).is_err());
    }
}
