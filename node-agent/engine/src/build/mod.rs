//! `reeve build`: an image from a Dockerfile and a folder, without a daemon.
//!
//! A stage is a configuration and a list of layers. Each COPY or ADD writes one layer, a tar stream with sorted
//! entries, and unpacks it at once: the next instruction looks at the merged file system below it. Layers are known
//! by their digest, so what was built before is neither written nor unpacked again. RUN starts a container of an
//! engine that lives as long as the build (`worker.rs`), makes a layer of what it has changed (`diff.rs`), and is not
//! run again as long as nothing that it depends on changes (`cache.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::engine::Image;
use crate::images::error::{ImageError, Step};
use crate::images::{ImageStore, Reference, ReferenceError};
use crate::snapshot::root::Root;

mod board;
pub(crate) mod cache;
mod chmod;
mod config;
mod copy;
mod diff;
mod dockerfile;
mod fetch;
pub mod git;
mod glob;
mod heredoc;
mod layer;
mod mask;
mod mounts;
mod plan;
mod run;
mod ssh;
mod stage;
mod tell;
mod words;
mod worker;

pub(crate) use diff::write_changes;

#[cfg(test)]
mod tests;

use board::Board;
use cache::BuildCache;
use glob::Ignore;
use plan::Plan;
use tell::{Listener, Teller};
use worker::Worker;

/// Largest Dockerfile or .dockerignore.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// The folder that COPY and ADD see.
    pub context: PathBuf,
    /// The Dockerfile, anywhere; `None` for `Dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Names for the image; may be none.
    pub tags: Vec<String>,
    /// `--annotation KEY=VALUE`: what the image's manifest says of it.
    pub annotations: BTreeMap<String, String>,
    /// `--build-arg NAME=VALUE`
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; `None` for the last.
    pub target: Option<String>,
    /// `SOURCE_DATE_EPOCH`: the time, in seconds since 1970, of everything in the image. The same sources then give
    /// the same image, byte for byte. Without it files keep their times, as with Docker.
    pub source_date_epoch: Option<i64>,
    /// `--secret`: what commands may see and no image keeps, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: agents that commands may ask, by id: paths of their sockets.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `--squash`: one layer of all that the image has more than its base.
    pub squash: bool,
    /// `--no-cache`: run every command again.
    pub no_cache: bool,
    /// `--pull`: ask the registry for base images that are here already.
    pub pull: bool,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}

/// What a person may be told while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// How many instructions all stages have that are built; again when a base image has others do more.
    Planned {
        /// All of them.
        steps: usize,
    },
    /// An instruction begins.
    Step {
        /// Its number in the build, from 1 in the order in which instructions begin.
        id: usize,
        /// The stage, if there are several.
        stage: Option<String>,
        /// Its number in the stage, from 1.
        number: usize,
        /// How many the stage will have.
        total: usize,
        /// The instruction, on one line.
        text: String,
    },
    /// A line that a command has written.
    Output {
        /// The instruction.
        id: usize,
        /// The line.
        line: String,
    },
    /// The instruction has been carried out before: its result is taken from there.
    Cached {
        /// The instruction.
        id: usize,
    },
    /// The instruction has been carried out.
    Done {
        /// The instruction.
        id: usize,
    },
    /// The instruction failed, and so will the build.
    Failed {
        /// The instruction.
        id: usize,
        /// Why.
        message: String,
    },
    /// The instruction was given up, as one of another stage failed.
    Stopped {
        /// The instruction.
        id: usize,
    },
    /// Something that is probably not meant.
    Warning(String),
}

/// Why there is no image. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An instruction is wrong or failed.
    #[error("{file}:{line}: {message}")]
    At {
        /// The Dockerfile or .dockerignore, as it was named.
        file: String,
        /// The line at which the instruction begins.
        line: usize,
        /// That line.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// The context cannot be opened.
    #[error("unable to prepare context: path {path:?}: {source}")]
    Context {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The Dockerfile cannot be read.
    #[error("failed to read dockerfile: open {file}: {source}")]
    Dockerfile {
        /// The file.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A tag is no image name.
    #[error("invalid argument {tag:?} for \"-t, --tag\" flag: {source}")]
    Tag {
        /// The tag.
        tag: String,
        /// The rule it breaks.
        source: ReferenceError,
    },
    /// The store failed.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Something wrong at a line of the Dockerfile.
#[derive(Debug, PartialEq)]
struct Fail {
    line: usize,
    message: String,
}

fn fail(line: usize, message: impl Into<String>) -> Fail {
    Fail { line, message: message.into() }
}

/// What all stages of one build share.
struct Build<'a> {
    store: &'a ImageStore,
    request: &'a BuildRequest,
    context: Root,
    ignore: Ignore,
    escape: char,
    plan: Plan,
    cache: BuildCache,
    board: Board,
    teller: Teller<'a>,
    /// A stage has failed: the others end as soon as they can.
    stop: CancellationToken,
    /// Made for the first command.
    worker: Mutex<Option<Arc<Worker>>>,
}

/// Builds an image and puts it into the store under its tags. Blocks; works on a running cluster's store, too.
///
/// Every instruction is checked before the first is carried out. Stages that do not need each other are built at the
/// same time. Needs root, as mounts are made.
pub fn build(store: &ImageStore, request: &BuildRequest, progress: Listener<'_>) -> Result<Image, BuildError> {
    let tags = request.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>, _>>()?;
    let context = Root::open_beneath(&request.context)
        .map_err(|errno| BuildError::Context { path: request.context.clone(), source: errno.into() })?;
    let (file, text) = read_dockerfile(&context, request)?;
    let at = |Fail { line, message }: Fail| BuildError::at(&file, &text, line, message);
    let ignore = read_ignore(&context, request)?;
    let parsed = dockerfile::parse(&text).map_err(at)?;
    let escape = parsed.escape;
    let declared = declared_args(&parsed);
    let plan = Plan::new(parsed, &request.build_args, request.target.as_deref()).map_err(at)?;
    let unused = request.build_args.keys().map(String::as_str);
    let unused: Vec<&str> = unused.filter(|arg| !declared.contains(*arg) && !run::is_predefined(arg)).collect();
    if !unused.is_empty() {
        progress(Progress::Warning(format!("one or more build-args {unused:?} were not consumed")));
    }
    let session = store.begin()?;
    let (cache, worker) = (BuildCache::of(store.dir()), Mutex::new(None));
    let (board, teller, stop) = (Board::new(plan.stages.len()), Teller::new(progress), CancellationToken::new());
    let build = Build { store, request, context, ignore, escape, plan, cache, board, teller, stop, worker };
    let result = build.run().map_err(|error| match error {
        stage::StageError::At(fail) => at(fail),
        stage::StageError::Image(error) => BuildError::Image(error),
        stage::StageError::Stopped => at(fail(1, "the build was stopped")),
    })?;
    Ok(result.commit(store, &session, &tags, request)?)
}

impl BuildError {
    fn at(file: &str, text: &str, line: usize, message: String) -> Self {
        let text = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().to_owned();
        Self::At { file: file.to_owned(), line, text, message }
    }
}

fn parse_tag(tag: &str) -> Result<String, BuildError> {
    let error = |source| BuildError::Tag { tag: tag.to_owned(), source };
    let reference = Reference::parse(tag).map_err(error)?;
    let fault = crate::images::Fault::Format;
    reference.tagged().ok_or_else(|| error(ReferenceError { subject: tag.to_owned(), fault }))
}

/// The Dockerfile's name for messages, and its text.
fn read_dockerfile(context: &Root, request: &BuildRequest) -> Result<(String, String), BuildError> {
    let in_context = |name: &str| (name.to_owned(), context.file(Path::new(name)).map_err(Into::into));
    let (name, opened) = match &request.dockerfile {
        Some(path) => (path.display().to_string(), std::fs::File::open(path)),
        None => match (in_context("Dockerfile"), in_context("dockerfile")) {
            ((_, Err(_)), lower @ (_, Ok(_))) => lower,
            (upper, _) => upper,
        },
    };
    let text = opened.and_then(read_text);
    match text {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(BuildError::Dockerfile { file: name, source }),
    }
}

/// `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` in the context, else nothing is left out.
fn read_ignore(context: &Root, request: &BuildRequest) -> Result<Ignore, BuildError> {
    let beside = request.dockerfile.clone().unwrap_or_else(|| request.context.join("Dockerfile"));
    let mut beside = beside.into_os_string();
    beside.push(".dockerignore");
    let beside = PathBuf::from(beside);
    let (file, path) = match std::fs::File::open(&beside) {
        Ok(file) => (file, beside),
        Err(_) => match context.file(Path::new(".dockerignore")) {
            Ok(file) => (file, PathBuf::from(".dockerignore")),
            Err(Errno::NOENT) => return Ok(Ignore::default()),
            Err(errno) => return Err(errno).step("open", Path::new(".dockerignore")).map_err(Into::into),
        },
    };
    let text = read_text(file).step("read", &path)?;
    let at = |(line, message)| BuildError::at(&path.display().to_string(), &text, line, message);
    Ignore::parse(&text).map_err(at)
}

fn read_text(file: std::fs::File) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn declared_args(file: &dockerfile::Dockerfile) -> BTreeSet<String> {
    let args = file.instructions.iter().filter_map(|instruction| match &instruction.op {
        dockerfile::Op::Arg(args) => Some(args.iter().map(|(name, _)| name.clone())),
        _ => None,
    });
    args.flatten().collect()
}
