//! `reeve image`: what is done with a cluster's images. Docker's words where Docker has the verb.

use std::io::{IsTerminal as _, stdin, stdout};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use reeve_api::clock::{Clock as _, RealClock};
use reeve_engine::engine::{Image, RegistryAuth};
use reeve_engine::images::{DockerConfig, Pushed, Reference};

use super::{StoreArgs, blocking, failed, list, progress};
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;
use crate::kubectl::output::json_text;

/// `reeve image`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load images from an archive that `docker save` or an OCI tool made
    Load(LoadArgs),
    /// List images
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove images
    Rm(RmArgs),
    /// Give an image a further name
    Tag(TagArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// Send an image to the registry in its name
    Push(PushArgs),
    /// Show the steps an image was built in
    History(HistoryArgs),
    /// Show all that is known of images, as JSON
    Inspect(InspectArgs),
    /// Remove images without a name, and what builds have kept for later ones
    Prune(PruneArgs),
}

/// `reeve image load`
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// The archive; `-` for standard input
    #[arg(required_unless_present = "input")]
    pub file: Option<PathBuf>,
    /// The archive, as with `docker load`
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image ls`
#[derive(Debug, Clone, Args)]
pub(crate) struct LsArgs {
    /// Form of the output, instead of a table
    #[arg(short, long, value_parser = ["name", "json"])]
    pub output: Option<String>,
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    pub quiet: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image rm`
#[derive(Debug, Clone, Args)]
pub(crate) struct RmArgs {
    /// Names, ids or unambiguous beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image tag`
#[derive(Debug, Clone, Args)]
pub(crate) struct TagArgs {
    /// Name or id of the image
    pub image: String,
    /// The further name
    #[arg(value_name = "NAME[:TAG]")]
    pub new_name: String,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image save`
#[derive(Debug, Clone, Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// The archive to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image pull`
#[derive(Debug, Clone, Args)]
pub(crate) struct PullArgs {
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Print the image's name only
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image push`
#[derive(Debug, Clone, Args)]
pub(crate) struct PushArgs {
    /// Name of the image, with the registry
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image history`
#[derive(Debug, Clone, Args)]
pub(crate) struct HistoryArgs {
    /// Name or id of the image
    pub image: String,
    /// Show steps in full
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image inspect`
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `reeve image prune`
#[derive(Debug, Clone, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub store: StoreArgs,
}

impl ImageCommand {
    /// Whose images are meant.
    pub(crate) fn store_mut(&mut self) -> &mut StoreArgs {
        match self {
            Self::Load(args) => &mut args.store,
            Self::Ls(args) => &mut args.store,
            Self::Rm(args) => &mut args.store,
            Self::Tag(args) => &mut args.store,
            Self::Save(args) => &mut args.store,
            Self::Pull(args) => &mut args.store,
            Self::Push(args) => &mut args.store,
            Self::History(args) => &mut args.store,
            Self::Inspect(args) => &mut args.store,
            Self::Prune(args) => &mut args.store,
        }
    }
}

/// Runs `reeve image`.
pub(crate) async fn run(command: ImageCommand) -> Result<(), CliError> {
    match command {
        ImageCommand::Pull(args) => pull(args).await,
        ImageCommand::Load(args) => blocking(move || load(&args)).await,
        ImageCommand::Ls(args) => blocking(move || ls(&args)).await,
        ImageCommand::Rm(args) => blocking(move || rm(&args)).await,
        ImageCommand::Tag(args) => blocking(move || tag(&args)).await,
        ImageCommand::Save(args) => blocking(move || save(&args)).await,
        ImageCommand::Push(args) => push(args).await,
        ImageCommand::History(args) => blocking(move || history(&args)).await,
        ImageCommand::Inspect(args) => blocking(move || inspect(&args)).await,
        ImageCommand::Prune(args) => blocking(move || prune(&args)).await,
    }
}

async fn pull(args: PullArgs) -> Result<(), CliError> {
    let store = args.store.clone();
    let store = blocking(move || store.open_or_make()).await?;
    let auth = own_credentials(&args.image).await?;
    let reference = Reference::parse(&args.image).map_err(|err| failed(&err))?;
    let (looked, name) = (store.clone(), args.image.clone());
    let before = blocking(move || looked.get(&name).map_err(|err| failed(&err))).await?;
    let report = progress::PullReport::begin(&reference, args.quiet);
    let image = store.pull_telling(&args.image, auth, report.teller()).await;
    let digest = report.end(image.is_ok());
    let image = image.map_err(|err| failed(&err))?;
    if args.quiet {
        return write(&format!("{reference}\n"));
    }
    let status = match before.is_some_and(|before| before.id == image.id) {
        true => "Image is up to date for",
        false => "Downloaded newer image for",
    };
    let digest = digest.map(|digest| format!("Digest: {digest}\n")).unwrap_or_default();
    write(&format!("{digest}Status: {status} {}\n{reference}\n", reference.familiar()))
}

fn prune(args: &PruneArgs) -> Result<(), CliError> {
    let gone = args.store.open()?.prune().map_err(|err| failed(&err))?;
    write(&format!("Removed images without a name: {gone}; and what builds had kept for later ones\n"))
}

/// Who this user is at the registry of an image.
async fn own_credentials(image: &str) -> Result<Option<RegistryAuth>, CliError> {
    let image = Reference::parse(image).map_err(|err| failed(&err))?;
    blocking(move || DockerConfig::of_user().and_then(|config| config.for_image(&image)).map_err(|err| failed(&err)))
        .await
}

async fn push(args: PushArgs) -> Result<(), CliError> {
    let store = args.store.clone();
    let store = blocking(move || store.open()).await?;
    let auth = own_credentials(&args.image).await?;
    let pushed = store.push(&args.image, auth).await.map_err(|err| failed(&err))?;
    let Pushed { digest, sent, known } = pushed;
    write(&format!("Pushed image: {} ({digest}; blobs sent: {sent}, already there: {known})\n", args.image))
}

fn inspect(args: &InspectArgs) -> Result<(), CliError> {
    let store = args.store.open()?;
    let mut documents = Vec::new();
    for name in &args.images {
        let image = store.get(name).map_err(|err| failed(&err))?;
        let image = image.ok_or_else(|| CliError::plain(format!("No such image: {name}")))?;
        let config = store.config_document(&image.id).map_err(|err| failed(&err))?;
        documents.push(serde_json::json!({
            "Id": image.id,
            "RepoTags": list::names(&image),
            "RepoDigests": image.digests,
            "Created": config.get("created"),
            "Author": config.get("author"),
            "Architecture": config.get("architecture"),
            "Os": config.get("os"),
            "Size": image.size_bytes,
            "Config": config.get("config"),
            "RootFS": { "Type": "layers", "Layers": config.pointer("/rootfs/diff_ids") },
        }));
    }
    write(&json_text(&serde_json::Value::from(documents)))
}

fn history(args: &HistoryArgs) -> Result<(), CliError> {
    let store = args.store.open()?;
    let config = store.config_document(&args.image).map_err(|err| failed(&err))?;
    let sizes = store.layer_sizes(&args.image).map_err(|err| failed(&err))?;
    let now = RealClock::new().now();
    write(&list::history(&config, &sizes, args.no_trunc, now))
}

fn load(args: &LoadArgs) -> Result<(), CliError> {
    let none = PathBuf::new();
    let file = args.file.as_ref().or(args.input.as_ref()).unwrap_or(&none);
    let loaded = if file.as_os_str() == "-" {
        if stdin().is_terminal() {
            return Err(CliError::plain("requested load from stdin, but stdin is a terminal"));
        }
        args.store.open_or_make()?.load(stdin().lock())
    } else {
        args.store.open_or_make()?.load_file(file)
    };
    let images = loaded.map_err(|err| failed(&err))?;
    write(&images.iter().map(loaded_text).collect::<String>())
}

fn loaded_text(image: &Image) -> String {
    let names = list::names(image);
    if names.is_empty() {
        return format!("Loaded image ID: {}\n", image.id);
    }
    names.iter().map(|name| format!("Loaded image: {name}\n")).collect()
}

fn ls(args: &LsArgs) -> Result<(), CliError> {
    let images = list::newest_first(args.store.open()?.list().map_err(|err| failed(&err))?);
    let text = match args.output.as_deref() {
        Some("json") => json_text(&serde_json::to_value(&images).map_err(|err| failed(&err))?),
        Some("name") => images.iter().flat_map(list::names).map(|name| format!("{name}\n")).collect(),
        _ if args.quiet => images.iter().map(|image| format!("{}\n", list::short_id(image))).collect(),
        _ => list::table(&images, RealClock::new().now()),
    };
    write(&text)
}

fn rm(args: &RmArgs) -> Result<(), CliError> {
    let store = args.store.open()?;
    let mut errors = Vec::new();
    for name in &args.images {
        match store.remove(name) {
            Ok(()) => write(&format!("Removed: {name}\n"))?,
            Err(err) => errors.push(failed(&err)),
        }
    }
    CliError::all(errors)
}

fn tag(args: &TagArgs) -> Result<(), CliError> {
    args.store.open()?.tag(&args.image, &args.new_name).map(drop).map_err(|err| failed(&err))
}

fn save(args: &SaveArgs) -> Result<(), CliError> {
    let store = args.store.open()?;
    let saved = match &args.output {
        Some(path) => store.save_file(&args.images, path),
        None if stdout().is_terminal() => {
            return Err(CliError::plain("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
        }
        None => store.save(&args.images, stdout().lock()),
    };
    saved.map_err(|err| failed(&err))
}
