//! Carries out stages: each instruction changes the configuration or adds a layer.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::board::Claim;
use super::chmod::Chmod;
use super::config::Config;
use super::copy::{self, Inline, Order, Source};
use super::diff;
use super::dockerfile::{self, Files, Instruction, Op};
use super::fetch;
use super::glob::Pattern;
use super::layer::LayerWriter;
use super::plan::{Base, Stage};
use super::tell::Reporter;
use super::words::{expand, expand_text};
use super::{Build, BuildRequest, Fail, fail, git};
use crate::engine::Image;
use crate::images::error::{ImageError, Step};
use crate::images::index::{LayerRef, Record};
use crate::images::manifest::{Descriptor, LAYERS_MAX, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::images::manifest::{architecture, layer_media_type};
use crate::images::{DockerConfig, ImageStore, NewImage, Reference, Session};
use crate::snapshot::open_merged;
use crate::snapshot::root::Root;

/// How variables are put in: see `words.rs`.
type Expand = fn(&str, char, &dyn Fn(&str) -> Option<String>) -> Result<String, String>;

/// Largest passwd or group file that is searched.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;

/// Why a stage stopped.
pub(super) enum StageError {
    At(Fail),
    Image(ImageError),
    /// Another stage has failed, and says why.
    Stopped,
}

impl From<ImageError> for StageError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// A stage that is done.
#[derive(Clone)]
pub(super) struct Done {
    config: Config,
    layers: Vec<LayerRef>,
    /// How many of them, the lowest, are those of the image at the bottom of it.
    of_base: usize,
    /// Declared in it: a stage upon it has them, too.
    args: BTreeMap<String, String>,
}

/// What COPY and ADD name.
#[derive(Default)]
struct Sources {
    /// Here-documents, and files from the web.
    inline: Vec<Inline>,
    /// Paths in the context, or in another stage.
    patterns: Vec<String>,
    repositories: Vec<git::Checkout>,
}

/// A stage at work.
pub(super) struct Runner<'r, 'b> {
    pub(super) build: &'r Build<'b>,
    /// Number of the stage.
    index: usize,
    config: Config,
    layers: Vec<LayerRef>,
    /// Declared here and set.
    args: BTreeMap<String, String>,
    /// The file system as it is now; opened when asked for.
    view: Option<Root>,
}

impl Build<'_> {
    /// Builds the needed stages, as many at a time as there are processors. Answers the target.
    pub(super) fn run(&self) -> Result<Done, StageError> {
        let needed = self.plan.stages.iter().enumerate().filter(|(_, stage)| stage.needed).map(|(index, _)| index);
        let needed: Vec<usize> = needed.collect();
        let stages = needed.iter().filter_map(|index| self.plan.stages.get(*index));
        self.teller.plan(stages.map(|stage| stage.instructions.len() + 1).sum());
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(needed.len());
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(index) = needed.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.stage(*index) {
                    self.stop.cancel();
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&*failed, error) {
                        (Some(_), _) | (None, StageError::Stopped) => {}
                        (None, error) => *failed = Some(error),
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => self.squashed(self.stage(self.plan.target)?),
        }
    }

    /// A stage, built by now: by this thread, or by another one that is waited for.
    pub(super) fn stage(&self, index: usize) -> Result<Done, StageError> {
        let claimed = match self.board.claim(index) {
            Claim::Done(done) => return Ok(*done),
            Claim::Failed => return Err(StageError::Stopped),
            Claim::Mine(claimed) => claimed,
        };
        let stage = self.plan.stages.get(index);
        let stage = stage.ok_or_else(|| StageError::At(fail(1, format!("there is no stage {index}"))))?;
        let done = self.run_stage(index, stage)?;
        claimed.finish(done.clone());
        Ok(done)
    }

    /// What a stage is called in the progress; alone it needs no name.
    fn shown(&self, index: usize, stage: &Stage) -> Option<String> {
        let several = self.plan.stages.len() > 1;
        several.then(|| stage.shown(index))
    }

    fn run_stage(&self, index: usize, stage: &Stage) -> Result<Done, StageError> {
        let mut reporter = self.teller.stage(self.shown(index, stage), stage.instructions.len() + 1);
        let done = self.run_steps(index, stage, &mut reporter);
        match &done {
            Ok(_) => reporter.end(),
            Err(StageError::At(failure)) => reporter.fail(&failure.message),
            Err(StageError::Image(error)) => reporter.fail(&error.to_string()),
            Err(StageError::Stopped) => reporter.stop(),
        }
        done
    }

    fn run_steps(&self, index: usize, stage: &Stage, reporter: &mut Reporter<'_, '_>) -> Result<Done, StageError> {
        self.check_stop()?;
        reporter.step(&stage.from.text);
        let Done { mut config, layers, of_base, args } = self.base(stage)?;
        config.ensure_path();
        let line = stage.from.line;
        let triggers = config.take_triggers().into_iter().map(|text| {
            let op = dockerfile::trigger(&text, self.escape);
            let op = op.map_err(|message| fail(line, format!("ONBUILD {text} of the base image: {message}")))?;
            Ok(Instruction { line, text, op })
        });
        let triggers: Vec<Instruction> = triggers.collect::<Result<_, Fail>>().map_err(StageError::At)?;
        reporter.plan(triggers.len());
        let mut runner = Runner { build: self, index, config, layers, args, view: None };
        for instruction in triggers.iter().chain(&stage.instructions) {
            self.check_stop()?;
            reporter.step(&instruction.text);
            let layers = runner.layers.len();
            runner.execute(&instruction.op, reporter).map_err(|error| match error {
                StageError::At(failure) => StageError::At(Fail { line: instruction.line, ..failure }),
                other => other,
            })?;
            runner.config.note(&instruction.text, runner.layers.len() > layers);
        }
        let Runner { config, layers, args, .. } = runner;
        Ok(Done { config, layers, of_base, args })
    }

    fn check_stop(&self) -> Result<(), StageError> {
        if self.stop.is_cancelled() { Err(StageError::Stopped) } else { Ok(()) }
    }

    /// With one layer upon the base's, if that is asked for.
    fn squashed(&self, done: Done) -> Result<Done, StageError> {
        let Done { mut config, layers, of_base, args } = done;
        let (base, more) = layers.split_at_checked(of_base).unwrap_or((&layers, &[]));
        if !self.request.squash || more.len() < 2 {
            return Ok(Done { config, layers, of_base, args });
        }
        let view = |layers: &[LayerRef]| open_merged(self.store.layers_dir(), &self.store.unpack(layers)?);
        let (before, after) = (view(base)?, view(&layers)?);
        let mut layer = LayerWriter::new(self.store.blobs().writer()?, self.request.source_date_epoch);
        let written = diff::between(&before, &after, &mut layer);
        written.map_err(|message| StageError::At(fail(1, format!("failed to squash: {message}"))))?;
        let blob = layer.finish()?;
        config.squash(more.len(), blob.is_some());
        let merged = blob.map(|blob| LayerRef { diff_id: blob.digest.clone(), blob: blob.digest });
        Ok(Done { config, layers: base.iter().cloned().chain(merged).collect(), of_base, args })
    }

    fn base(&self, stage: &Stage) -> Result<Done, StageError> {
        let at = |message: String| StageError::At(fail(stage.from.line, message));
        let args = BTreeMap::new();
        match (&stage.base, &stage.foreign) {
            (Base::Scratch | Base::Image(_), Some(platform)) => {
                let ours = architecture();
                Err(at(format!("platform {platform} is not supported: this machine builds for linux/{ours}")))
            }
            (Base::Scratch, None) => Ok(Done { config: Config::scratch(), layers: Vec::new(), of_base: 0, args }),
            // It is for the platform of what it stands on, whatever it says itself.
            (Base::Stage(index), _) => {
                let base = self.stage(*index)?;
                Ok(Done { config: base.config.as_base(), ..base })
            }
            (Base::Image(name), None) => {
                let record = self.image("FROM", name).map_err(at)?;
                let config = Config::parse(&self.store.blobs().read(&record.id)?);
                let config = config.ok_or_else(|| at(format!("{name}: its configuration is no object")))?;
                Ok(Done { config, of_base: record.layers.len(), layers: record.layers, args })
            }
        }
    }

    /// An image that is here, or is fetched.
    fn image(&self, keyword: &str, name: &str) -> Result<Record, String> {
        match self.store.record(name) {
            Ok(record) if !self.request.pull => return Ok(record),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(format!("{keyword} {name}: {error}")),
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("{keyword} {name}: {error}"))?;
        let auth = Reference::parse(name)
            .map_err(ImageError::from)
            .and_then(|reference| DockerConfig::of_user()?.for_image(&reference))
            .map_err(|error| format!("{keyword} {name}: {error}"))?;
        let pulled = runtime.block_on(self.store.pull(name, auth));
        let image = pulled.map_err(|error| format!("{keyword} {name}: no such image here, and {error}"))?;
        self.store.record(&image.id).map_err(|error| format!("{keyword} {name}: {error}"))
    }
}

impl Runner<'_, '_> {
    fn execute(&mut self, op: &Op, reporter: &mut Reporter<'_, '_>) -> Result<(), StageError> {
        match op {
            Op::Copy(files) => return self.copy("COPY", files),
            Op::Add(files) => return self.copy("ADD", files),
            Op::Workdir(dir) => return self.workdir(dir),
            Op::Run(run) => return self.run(run, reporter),
            _ => {}
        }
        self.configure(op).map_err(|message| StageError::At(fail(0, message)))
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn args(&self) -> &BTreeMap<String, String> {
        &self.args
    }

    pub(super) fn layers(&self) -> &[LayerRef] {
        &self.layers
    }

    /// The layers of an earlier stage or of an image.
    pub(super) fn layers_of(&self, from: &str) -> Result<Vec<LayerRef>, StageError> {
        match self.build.plan.source(self.index, from) {
            Base::Stage(index) => Ok(self.build.stage(index)?.layers),
            Base::Scratch => Ok(Vec::new()),
            Base::Image(name) => {
                let record = self.build.image("COPY --from", &name);
                Ok(record.map_err(|message| StageError::At(fail(0, message)))?.layers)
            }
        }
    }

    /// The file system of an earlier stage or of an image.
    pub(super) fn tree(&self, from: &str) -> Result<Root, StageError> {
        let store = self.build.store;
        Ok(open_merged(store.layers_dir(), &store.unpack(&self.layers_of(from)?)?)?)
    }

    /// Instructions that make no layer.
    fn configure(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Arg(args) => self.declare(args)?,
            // All values of one instruction see the variables as they were before it.
            Op::Env(pairs) => {
                for (key, value) in self.expand_pairs(pairs)? {
                    self.config.set_env(&key, &value);
                }
            }
            Op::Label(pairs) => {
                for (key, value) in self.expand_pairs(pairs)? {
                    self.config.set_label(&key, &value);
                }
            }
            Op::User(user) => self.config.set("User", self.expand(user)?),
            Op::Expose(ports) => {
                for word in ports {
                    for port in self.expand(word)?.split_whitespace() {
                        for port in ports_of(port)? {
                            self.config.add("ExposedPorts", &port);
                        }
                    }
                }
            }
            Op::Volume(volumes) => {
                for volume in volumes {
                    let volume = self.expand(volume)?;
                    if volume.is_empty() {
                        return Err("VOLUME specified can not be an empty string".to_owned());
                    }
                    self.config.add("Volumes", &volume);
                }
            }
            Op::StopSignal(signal) => {
                let signal = self.expand(signal)?;
                crate::builtin::parse_signal(&signal).ok_or_else(|| format!("invalid signal: {signal}"))?;
                self.config.set("StopSignal", signal);
            }
            Op::Entrypoint(command) => self.config.set_entrypoint(command),
            Op::Cmd(command) => self.config.set_cmd(command),
            Op::Shell(words) => self.config.set("Shell", words.clone()),
            Op::Healthcheck(health) => self.config.set_healthcheck(health)?,
            Op::Maintainer(author) => self.config.set_author(author),
            Op::OnBuild(text) => self.config.add_trigger(text),
            Op::From { .. } | Op::Copy(_) | Op::Add(_) | Op::Workdir(_) | Op::Run(_) => {
                return Err("this instruction cannot stand here".to_owned());
            }
        }
        Ok(())
    }

    /// A name without default takes the value it has before the first FROM, if any.
    fn declare(&mut self, args: &[(String, Option<String>)]) -> Result<(), String> {
        for (name, default) in args {
            let default = default.as_deref().map(|default| self.expand(default)).transpose()?;
            let global = self.build.plan.global_args.get(name).cloned();
            let given = self.build.request.build_args.get(name).cloned();
            if let Some(value) = given.or(default).or(global) {
                self.args.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        self.expand_with(text, expand)
    }

    fn expand_with(&self, text: &str, expand: Expand) -> Result<String, String> {
        let env: BTreeMap<String, String> = self.config.env().into_iter().collect();
        let lookup = |name: &str| env.get(name).or_else(|| self.args.get(name)).cloned();
        expand(text, self.build.escape, &lookup)
    }

    fn expand_pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        pairs.iter().map(|(key, value)| Ok((self.expand(key)?, self.expand(value)?))).collect()
    }

    fn workdir(&mut self, dir: &str) -> Result<(), StageError> {
        let at = |message| StageError::At(fail(0, message));
        let dir = self.expand(dir).map_err(at)?;
        if dir.is_empty() {
            return Err(at("WORKDIR requires a path".to_owned()));
        }
        let dir = absolute(&self.config.workdir(), &dir);
        // It belongs to whom the image runs as. A user whom the image does not know yet leaves it to root.
        let owner = match self.config.user() {
            Some(user) => find_owner(&user, self.view()?).unwrap_or((0, 0)),
            None => (0, 0),
        };
        self.add_layer(|image, layer| copy::make_dir(Path::new(dir.trim_start_matches('/')), owner, image, layer))?;
        self.config.set("WorkingDir", dir);
        Ok(())
    }

    fn copy(&mut self, keyword: &'static str, files: &Files) -> Result<(), StageError> {
        let at = |message| StageError::At(fail(0, message));
        let expand = |text: &String| self.expand(text).map_err(at);
        let patterns = files.sources.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let Sources { inline, patterns, repositories } = self.sort(keyword, files, patterns).map_err(at)?;
        let excludes =
            files.excludes.iter().map(|pattern| expand(pattern).and_then(|p| Pattern::parse(&p).map_err(at)));
        let excludes = excludes.collect::<Result<Vec<_>, _>>()?;
        let written = expand(&files.dest)?;
        let mut dest = absolute(&self.config.workdir(), &written);
        let folder =
            matches!(written.as_str(), "" | "." | "..") || ["/", "/.", "/.."].iter().any(|end| written.ends_with(end));
        if folder && !dest.ends_with('/') {
            dest.push('/');
        }
        let mode = files.chmod.as_ref().map(|mode| expand(mode).and_then(|mode| Chmod::parse(&mode).map_err(at)));
        let mode = mode.transpose()?;
        let chown = files.chown.as_ref().map(expand).transpose()?;
        let owner = match chown {
            Some(chown) => Some(find_owner(&chown, self.view()?).map_err(at)?),
            None => None,
        };
        let tree = match &files.from {
            Some(from) => Some(self.tree(from)?),
            None => None,
        };
        let build = self.build;
        let source = match &tree {
            Some(root) => Source { root, ignore: None, keep_owner: true },
            None => Source { root: &build.context, ignore: Some(&build.ignore), keep_owner: false },
        };
        let (patterns, inline, excludes, mode) = (&patterns, &inline, &excludes, mode.as_ref());
        let (dest, extract) = (dest.as_str(), files.unpack.unwrap_or(keyword == "ADD"));
        let parents = files.parents;
        let order = Order { keyword, source, patterns, inline, excludes, parents, dest, owner, mode, extract };
        self.add_layer(|image, layer| {
            copy::copy(&order, image, layer)?;
            // Repositories after the files: each with its own contents, like a folder.
            repositories.iter().try_for_each(|repository| add_repository(&order, repository, image, layer))
        })?;
        repositories.into_iter().try_for_each(|checkout| {
            checkout.close().map_err(|error| at(format!("failed to remove a checkout: {error}")))
        })
    }

    /// Fetches what is in no tree, and tells it from the rest.
    fn sort(&self, keyword: &str, files: &Files, sources: Vec<String>) -> Result<Sources, String> {
        let Sources { mut inline, mut patterns, mut repositories } = Sources::default();
        for (written, source) in files.sources.iter().zip(sources) {
            if let Some(heredoc) = files.heredocs.iter().find(|heredoc| heredoc.word == *written) {
                let mut content = heredoc.content();
                if heredoc.expands {
                    content = self.expand_with(&content, expand_text)?;
                }
                let file = copy::in_file(self.build.store, content.as_bytes()).map_err(|error| error.to_string())?;
                inline.push(Inline { name: heredoc.name.clone(), file, mode: 0o644, mtime: 0, unpack: false });
            } else if keyword == "ADD" && git::is_repository(&source) {
                let checkout = git::Checkout::fetch_into(self.build.store, &source, files.keep_git_dir)?;
                let commit = checkout.commit();
                if let Some(wanted) = files.checksum.as_deref().filter(|wanted| !commit.starts_with(wanted)) {
                    return Err(format!("expected checksum to match {wanted}, got {commit}"));
                }
                repositories.push(checkout);
            } else if keyword == "ADD" && is_web(&source) {
                let fetched = fetch::fetch(self.build.store, &source, files.checksum.as_deref())?;
                inline.push(Inline { unpack: files.unpack.unwrap_or(false), ..fetched });
            } else if keyword == "ADD" && source.starts_with("ftp://") {
                return Err(format!("ADD over FTP is not supported: {source}"));
            } else {
                patterns.push(source);
            }
        }
        if files.checksum.is_some() && inline.is_empty() && repositories.is_empty() {
            return Err("checksum can't be specified for non-HTTP(S) sources".to_owned());
        }
        Ok(Sources { inline, patterns, repositories })
    }

    /// Writes a layer and looks at the file system with it from now on. An empty layer is none.
    fn add_layer(
        &mut self,
        write: impl FnOnce(&Root, &mut LayerWriter) -> Result<(), String>,
    ) -> Result<(), StageError> {
        match self.write_layer(write)? {
            Some(layer) => self.push_layer(layer),
            None => Ok(()),
        }
    }

    /// Writes a layer upon what the stage is so far.
    pub(super) fn write_layer(
        &mut self,
        write: impl FnOnce(&Root, &mut LayerWriter) -> Result<(), String>,
    ) -> Result<Option<LayerRef>, StageError> {
        let mut layer = LayerWriter::new(self.build.store.blobs().writer()?, self.build.request.source_date_epoch);
        write(self.view()?, &mut layer).map_err(|message| StageError::At(fail(0, message)))?;
        // What is written is not compressed: its digest is that of the stream itself.
        Ok(layer.finish()?.map(|blob| LayerRef { diff_id: blob.digest.clone(), blob: blob.digest }))
    }

    /// Whether a layer that was made before is still in the store.
    pub(super) fn is_here(&self, layer: Option<&LayerRef>) -> bool {
        layer.is_none_or(|layer| self.build.store.blobs().get(&layer.blob).is_some())
    }

    /// Puts a layer on top.
    pub(super) fn push_layer(&mut self, layer: LayerRef) -> Result<(), StageError> {
        if self.layers.len() >= LAYERS_MAX {
            return Err(StageError::At(fail(0, format!("the image would have more than {LAYERS_MAX} layers"))));
        }
        self.layers.push(layer);
        self.view = None;
        Ok(())
    }

    /// The file system as it is now.
    pub(super) fn view(&mut self) -> Result<&Root, StageError> {
        if self.view.is_none() {
            let layers = self.build.store.unpack(&self.layers)?;
            self.view = Some(open_merged(self.build.store.layers_dir(), &layers)?);
        }
        self.view.as_ref().ok_or_else(|| StageError::At(fail(0, "no file system")))
    }
}

impl Done {
    /// Makes the stage an image. When nothing but the time would differ from the image that has the first name now,
    /// that image stays: building twice gives the same id.
    pub(super) fn commit(
        &self,
        store: &ImageStore,
        session: &Session,
        names: &[String],
        request: &BuildRequest,
    ) -> Result<Image, ImageError> {
        let epoch = request.source_date_epoch;
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let known = names.first().and_then(|name| store.record(name).ok());
        let known_time = known.as_ref().and_then(|record| {
            let config = store.config(record.id.as_str()).ok()?;
            let created = config.created().clone()?;
            let same = crate::images::Digest::of(&self.config.render(&diff_ids, &created)) == record.id;
            same.then_some(created)
        });
        let created = match (epoch.map(jiff::Timestamp::from_second), known_time) {
            (Some(Ok(time)), _) => time.to_string(),
            (_, Some(time)) => time,
            _ => store.clock().now().to_string(),
        };
        let config = store.blobs().put(&self.config.render(&diff_ids, &created))?;
        let mut layers = Vec::new();
        for layer in &self.layers {
            let size = store.blobs().get(&layer.blob).map_or(0, |blob| blob.size);
            layers.push(Descriptor::new(layer_media_type(store.blobs().magic(&layer.blob)?), layer.blob.clone(), size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::new(OCI_CONFIG, config.digest, config.size),
            layers,
            annotations: request.annotations.clone(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(io::Error::other).step("encode", Path::new("manifest"))?;
        store.add(session, NewImage { manifest, names: names.to_vec(), digests: Vec::new(), made: true })
    }
}

/// A path from a folder, without `.` and `..`; it begins with a slash.
pub(super) fn absolute(workdir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{workdir}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The contents of a repository, as those of a folder.
fn add_repository(
    order: &Order<'_>,
    checkout: &git::Checkout,
    image: &Root,
    layer: &mut LayerWriter,
) -> Result<(), String> {
    let root =
        Root::open_beneath(checkout.path()).map_err(|errno| format!("{}: {errno}", checkout.path().display()))?;
    let source = Source { root: &root, ignore: None, keep_owner: false };
    let all = ["/".to_owned()];
    let Order { keyword, excludes, dest, owner, mode, .. } = *order;
    let (inline, parents, extract) = (&[], false, false);
    copy::copy(
        &Order { keyword, source, patterns: &all, inline, excludes, parents, dest, owner, mode, extract },
        image,
        layer,
    )
}

fn is_web(source: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| source.starts_with(scheme))
}

/// `80`, `80/tcp`, `8000-8010/udp` as Docker lists them. What stands before a colon is for somebody's `-p`.
fn ports_of(text: &str) -> Result<Vec<String>, String> {
    let container = text.rsplit(':').next().unwrap_or(text);
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    let bad = || format!("invalid containerPort: {range}");
    let protocol = protocol.to_ascii_lowercase();
    let protocol = match protocol.as_str() {
        "" => "tcp",
        known @ ("tcp" | "udp" | "sctp") => known,
        other => return Err(format!("invalid proto: {other}")),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || last < first {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `user[:group]`, by number or by the names in the image.
fn find_owner(text: &str, image: &Root) -> Result<(u32, u32), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let unknown = |what: &str, name: &str| {
        format!(
            "unable to convert uid/gid chown string to host mapping: can't find {what} for {} {name}: no such {}: {name}",
            if what == "uid" { "user" } else { "group" },
            if what == "uid" { "user" } else { "group" },
        )
    };
    let (uid, primary) = match user.parse() {
        Ok(uid) => (uid, uid),
        Err(_) => {
            let fields = account(image, "etc/passwd", user).ok_or_else(|| unknown("uid", user))?;
            let number = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
            number(2).zip(number(3)).ok_or_else(|| unknown("uid", user))?
        }
    };
    let gid = match group {
        None => primary,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                let fields = account(image, "etc/group", group).ok_or_else(|| unknown("gid", group))?;
                fields.get(2).and_then(|field| field.parse().ok()).ok_or_else(|| unknown("gid", group))?
            }
        },
    };
    Ok((uid, gid))
}

/// The fields of a line of passwd or group.
fn account(image: &Root, file: &str, name: &str) -> Option<Vec<String>> {
    let mut text = String::new();
    image.file(Path::new(file)).ok()?.take(ACCOUNTS_BYTES_MAX).read_to_string(&mut text).ok()?;
    let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    lines.into_iter().find(|fields| fields.first().is_some_and(|first| first == name))
}
