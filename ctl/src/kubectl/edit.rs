//! `edit`: an object in the user's editor, and back as a patch of what was changed.

use std::io::Write as _;
use std::process::Command;

use clap::Args;
use http::Method;
use reeve_api::patch::{create_two_way, create_two_way_json};
use serde_json::Value;

use super::api::{Api, Content};
use super::apply::schema_of;
use super::args::FileArgs;
use super::error::CliError;
use super::get::{hide_managed_fields, write};
use super::manifest;
use super::mapper::Mapper;
use super::output::{json_text, yaml};
use super::select::{self, Target};

const HEADING: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// `edit`
#[derive(Debug, Clone, Args)]
pub(crate) struct EditArgs {
    /// TYPE NAME…, TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Form in which the object is edited: yaml, json
    #[arg(short, long, default_value = "yaml", value_parser = ["yaml", "json"])]
    pub output: String,
    /// Edit this subresource: status
    #[arg(long, value_parser = ["status"])]
    pub subresource: Option<String>,
    /// Name under which the change is recorded
    #[arg(long, default_value = "kubectl-edit")]
    pub field_manager: String,
}

/// Runs the verb.
pub(crate) async fn run(args: EditArgs, api: &Api) -> Result<(), CliError> {
    let mapper = Mapper::discover(api).await?;
    let targets = select::targets(api, &mapper, &args.files, &args.words)?;
    let mut errors = Vec::new();
    for target in &targets {
        errors.extend(Edit { args: &args, api, target }.run().await.err());
    }
    CliError::all(errors)
}

struct Edit<'a> {
    args: &'a EditArgs,
    api: &'a Api,
    target: &'a Target,
}

impl Edit<'_> {
    /// Opens the editor until the server takes the result, or the user gives up.
    async fn run(&self) -> Result<(), CliError> {
        let url = match &self.args.subresource {
            Some(own) => self.target.resource.subresource(&self.target.namespace, &self.target.name, own),
            None => self.target.resource.object(&self.target.namespace, &self.target.name),
        };
        let mut original = self.api.get(&url).await?;
        hide_managed_fields(&mut original);
        let print = if self.args.output == "json" { json_text } else { yaml::to_string };
        let (mut text, mut failure) = (print(&original), None::<CliError>);
        loop {
            let shown = format!("{HEADING}{}{text}", reasons(failure.as_ref()));
            let edited = open_editor(&shown, &self.args.output).await?;
            let bare = without_comments(&edited);
            if bare.trim().is_empty() {
                eprintln!("Edit cancelled, saved file was empty.");
                return Ok(());
            }
            if bare == without_comments(&shown) {
                return match failure {
                    None => cancelled(),
                    Some(err) => Err(given_up(&edited, err)),
                };
            }
            match self.send(&url, &original, &bare).await {
                Ok(true) => return write(&format!("{} edited\n", self.target.display())),
                Ok(false) => return cancelled(),
                Err(err) => (text, failure) = (bare, Some(err)),
            }
        }
    }

    /// Sends what was changed; `false` when nothing was.
    async fn send(&self, url: &super::api::Url, original: &Value, text: &str) -> Result<bool, CliError> {
        let edited = manifest::value(text.as_bytes())
            .map_err(|reason| CliError::plain(format!("The edited file had a syntax error: {reason}")))?;
        for field in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
            if edited.pointer(field) != original.pointer(field) {
                return Err(CliError::plain(format!("At least one of apiVersion, kind and name was changed: {field}")));
            }
        }
        let resource = &self.target.resource;
        let (patch, content) = match schema_of(&resource.api_version(), &resource.kind) {
            Some(schema) => {
                let patch =
                    create_two_way(original, &edited, schema).map_err(|err| CliError::plain(err.to_string()))?;
                (patch, Content::StrategicPatch)
            }
            None => (create_two_way_json(original, &edited), Content::MergePatch),
        };
        if patch.as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok(false);
        }
        let url = url.clone().with("fieldManager", self.args.field_manager.clone()).with("fieldValidation", "Strict");
        self.api.send(Method::PATCH, &url, content, &patch).await.map(|_| true)
    }
}

fn cancelled() -> Result<(), CliError> {
    eprintln!("Edit cancelled, no changes made.");
    Ok(())
}

/// Why the last try failed, as comments.
fn reasons(failure: Option<&CliError>) -> String {
    let Some(failure) = failure else { return String::new() };
    let lines: String = failure.to_string().lines().map(|line| format!("# {line}\n")).collect();
    format!("{lines}#\n")
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// The user's work is kept when the server does not want it.
fn given_up(text: &str, err: CliError) -> CliError {
    let kept = tempfile::Builder::new().prefix("kubectl-edit-").suffix(".yaml").tempfile();
    let kept = kept.and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file)).map(|file| file.keep());
    if let Ok(Ok((_, path))) = kept {
        eprintln!("A copy of your changes has been stored to {:?}", path.display().to_string());
    }
    CliError::Many(vec![err, CliError::plain("Edit cancelled, no valid changes were saved.")])
}

/// What the user made of the text. The editor may be a command with arguments, so a shell takes it apart.
async fn open_editor(text: &str, form: &str) -> Result<String, CliError> {
    let failed = |what: &str, err: &std::io::Error| CliError::plain(format!("cannot {what} the edited file: {err}"));
    let mut file = tempfile::Builder::new()
        .prefix("kubectl-edit-")
        .suffix(&format!(".{form}"))
        .tempfile()
        .map_err(|err| failed("create", &err))?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(|err| failed("write", &err))?;
    let editor =
        ["KUBE_EDITOR", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|own| !own.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file.path());
    let status = tokio::task::spawn_blocking(move || command.status()).await;
    match status {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => {
            return Err(CliError::plain(format!("there was a problem with the editor {editor:?}: {status}")));
        }
        Ok(Err(err)) => return Err(CliError::plain(format!("unable to launch the editor {editor:?}: {err}"))),
        Err(err) => return Err(CliError::plain(err.to_string())),
    }
    // Editors may put a new file in the old one's place: it is read by its name.
    std::fs::read_to_string(file.path()).map_err(|err| failed("read", &err))
}
