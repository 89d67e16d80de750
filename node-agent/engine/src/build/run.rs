//! RUN: a command in a container on what the stage is so far.
//!
//! Source: Dockerfile reference, "RUN", "Predefined ARGs", "Here-Documents".

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use nix::mount::{MntFlags, MsFlags};
use rustix::fs::FileType;
use rustix::io::Errno;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::cache::{self, CacheFolder};
use super::copy::{self, Order, Source};
use super::diff;
use super::dockerfile::{Command, Run};
use super::layer::LayerWriter;
use super::mask;
use super::mounts::{Fields, Kind, MountSpec, Owner, Sharing};
use super::ssh::AgentSocket;
use super::stage::{Runner, StageError, absolute};
use super::tell::Reporter;
use super::worker::{Job, Worker, network_files};
use super::{Secret, fail};
use crate::builtin::Base;
use crate::engine::{EngineError, Mount};
use crate::images::Digest;
use crate::images::error::{ImageError, Step};
use crate::snapshot::layers::Layers;
use crate::snapshot::open_merged;
use crate::snapshot::root::Root;
use crate::snapshot::tar::TarReader;
use crate::snapshot::unpack::{copy_attributes, unpack};

/// ARGs that commands get without having been declared, and on which nothing depends. Given in one case, commands see
/// them in both.
const PREDEFINED: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
/// Largest secret, as BuildKit has it.
const SECRET_BYTES_MAX: u64 = 500 << 10;
/// How deep a folder of the context that a command sees may nest.
const DEPTH_MAX: usize = 256;
/// Where a here-document that is a program of its own lies, under its name.
const SCRIPTS: &str = "/dev/pipes";
/// Changes when the same command may give something else than before.
const KEY_FORM: u32 = 1;

/// Whether an ARG needs no declaration.
pub(super) fn is_predefined(arg: &str) -> bool {
    PREDEFINED.iter().any(|known| *known == arg || known.to_ascii_uppercase() == arg)
}

/// A here-document that is a program of its own.
struct Script {
    /// Where the command finds it.
    path: String,
    content: String,
}

/// What a command sees besides its root, and what must be kept and taken away again.
#[derive(Default)]
struct Sight {
    mounts: Vec<Mount>,
    env: Vec<(String, String)>,
    caches: Vec<CacheFolder>,
    trees: Vec<String>,
    agents: Vec<AgentSocket>,
    /// Mounted for this command.
    mounted: Vec<PathBuf>,
}

impl Runner<'_, '_> {
    /// Runs a command, unless it is known what that gives.
    pub(super) fn run(&mut self, run: &Run, reporter: &mut Reporter<'_, '_>) -> Result<(), StageError> {
        let at = |message: String| StageError::At(fail(0, message));
        if run.privileged {
            let message = "security mode \"insecure\" is not supported: builds are never privileged";
            return Err(at(message.to_owned()));
        }
        let specs = run.mounts.iter().map(|fields| self.expand_mount(fields)).collect::<Result<Vec<_>, _>>();
        let specs = specs.map_err(at)?;
        let (argv, script) = self.command_line(run);
        let key = self.key(run, &argv, script.as_ref(), &specs)?;
        if let Some(layer) = self.build.cache.get(&key).filter(|layer| self.is_here(layer.as_ref()))
            && !self.build.request.no_cache
        {
            reporter.cached();
            if let Some(layer) = layer {
                self.push_layer(layer)?;
            }
            return Ok(());
        }
        let build = self.build;
        let worker = self.worker().map_err(|error| at(words(&error)))?;
        let mut sight = Sight::default();
        let seen = self.look(&specs, script.as_ref(), &worker, &mut sight);
        let done = seen.and_then(|()| self.run_in(&worker, run, argv, &mut sight, reporter));
        let gone = sight.take_away(&worker);
        let layer = done?;
        gone?;
        let bytes = layer.as_ref().map_or(0, |layer| build.store.blobs().get(&layer.blob).map_or(0, |blob| blob.size));
        build.cache.put(&key, layer.clone(), bytes)?;
        match layer {
            Some(layer) => self.push_layer(layer),
            None => Ok(()),
        }
    }

    /// The engine for commands; all stages share it.
    fn worker(&self) -> Result<Arc<Worker>, EngineError> {
        let mut worker = self.build.worker.lock().unwrap_or_else(PoisonError::into_inner);
        match &*worker {
            Some(worker) => Ok(Arc::clone(worker)),
            None => Ok(Arc::clone(worker.insert(Arc::new(Worker::start(self.build.store)?)))),
        }
    }

    /// The layer that the command makes.
    fn run_in(
        &mut self,
        worker: &Worker,
        run: &Run,
        argv: Vec<String>,
        sight: &mut Sight,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<Option<crate::images::index::LayerRef>, StageError> {
        let at = |message: String| StageError::At(fail(0, message));
        let mut layers = self.build.store.unpack(self.layers())?;
        if layers.is_empty() {
            layers.push(Layers::empty());
        }
        let mut mounts = network_files(run.offline);
        mounts.append(&mut sight.mounts);
        let stubs = self.stubs(&mounts)?;
        let env = self.command_env(&sight.env).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut config = oci_spec::image::Config::default();
        config.set_env(Some(env));
        config.set_user(self.config().user());
        config.set_working_dir(Some(self.config().workdir()));
        let shown = argv.join(" ");
        let job = Job { base: Base { layers, config }, argv, mounts, offline: run.offline };
        let stop = &self.build.stop;
        let ran = worker.run(job, stop, &mut |line| reporter.output(line)).map_err(|error| at(words(&error)))?;
        let failed = match (&ran.reason, ran.exit_code) {
            (Some(reason), code) => {
                Some(format!("process {shown:?} did not complete successfully: {reason} (code {code})"))
            }
            (None, 0) => None,
            (None, code) => Some(format!("process {shown:?} did not complete successfully: exit code: {code}")),
        };
        let layer = match failed {
            _ if stop.is_cancelled() => Err(StageError::Stopped),
            Some(failed) => Err(at(failed)),
            None => self.write_layer(|image, layer| diff::write(&ran.upper, image, &stubs, layer)),
        };
        worker.remove(&ran.container).map_err(|error| at(words(&error)))?;
        layer
    }

    fn expand_mount(&self, fields: &Fields) -> Result<MountSpec, String> {
        let expand = |(key, value): &(String, Option<String>)| {
            Ok::<_, String>((key.clone(), value.as_deref().map(|value| self.expand(value)).transpose()?))
        };
        let mut spec = MountSpec::parse(&fields.iter().map(expand).collect::<Result<_, _>>()?)?;
        spec.target = absolute(&self.config().workdir(), &spec.target.display().to_string()).into();
        if spec.target == Path::new("/") {
            return Err("invalid mount target \"/\"".to_owned());
        }
        Ok(spec)
    }

    /// What is executed, and a here-document that is a program itself.
    fn command_line(&self, run: &Run) -> (Vec<String>, Option<Script>) {
        let line = match (&run.command, run.heredocs.as_slice()) {
            (Command::Shell(line), [only]) if *line == only.word => {
                let content = only.content();
                if content.starts_with("#!") {
                    // No slash makes it lie elsewhere.
                    let path = format!("{SCRIPTS}/{}", only.name.replace('/', "_"));
                    return (vec![path.clone()], Some(Script { path, content }));
                }
                content
            }
            (Command::Shell(line), heredocs) if !heredocs.is_empty() => {
                let text: String =
                    heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.text, heredoc.name)).collect();
                format!("{line}{text}\n")
            }
            (command, _) => return (self.config().command(command), None),
        };
        (self.config().command(&Command::Shell(line)), None)
    }

    /// Variables of a command: those of the image win over ARGs.
    fn command_env(&self, more: &[(String, String)]) -> Vec<(String, String)> {
        let given = &self.build.request.build_args;
        let mut env = BTreeMap::new();
        for name in PREDEFINED {
            let upper = name.to_ascii_uppercase();
            if let Some(value) = given.get(name).or_else(|| given.get(&upper)) {
                env.extend([(name.to_owned(), value.clone()), (upper, value.clone())]);
            }
        }
        env.extend(self.args().iter().map(|(key, value)| (key.clone(), value.clone())));
        env.extend(self.config().env());
        env.extend(more.iter().cloned());
        env.into_iter().collect()
    }

    /// Stands for everything that the result depends on.
    fn key(
        &mut self,
        run: &Run,
        argv: &[String],
        script: Option<&Script>,
        specs: &[MountSpec],
    ) -> Result<Digest, StageError> {
        let mut mounts = Vec::new();
        for spec in specs {
            let content = match &spec.kind {
                Kind::Bind { from: Some(from), .. } | Kind::Cache { from: Some(from), .. } => {
                    let layers = self.layers_of(from)?;
                    layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>().join(",")
                }
                Kind::Bind { from: None, source, .. } => self.context_digest(source)?,
                _ => String::new(),
            };
            mounts.push(json!([format!("{spec:?}"), content]));
        }
        let declared: BTreeMap<String, String> = self.args().clone();
        let env: Vec<_> = self.config().env();
        let layers: Vec<String> = self.layers().iter().map(|layer| layer.diff_id.to_string()).collect();
        let depends = json!({
            "form": KEY_FORM,
            "layers": layers,
            "argv": argv,
            "script": script.map(|script| &script.content),
            "args": declared,
            "env": env,
            "user": self.config().user(),
            "workdir": self.config().workdir(),
            "mounts": mounts,
            "offline": run.offline,
            "epoch": self.build.request.source_date_epoch,
        });
        Ok(Digest::from_sha256(&Sha256::digest(depends.to_string())))
    }

    /// A digest of a part of the build context.
    fn context_digest(&self, source: &str) -> Result<String, StageError> {
        let path = self.in_context(source)?;
        let mut hash = Sha256::new();
        let context = &self.build.context;
        digest_of(context, &path, &self.build.ignore, &mut hash, 0)
            .map_err(|message| StageError::At(fail(0, message)))?;
        Ok(Digest::from_sha256(&hash.finalize()).to_string())
    }

    /// A path in the build context, links followed.
    fn in_context(&self, source: &str) -> Result<PathBuf, StageError> {
        let refused = |message: String| StageError::At(fail(0, message));
        let path = super::glob::clean(source).map_err(refused)?;
        let real = self.build.context.real_path(Path::new(&path));
        let real = real.map_err(|errno| refused(format!("{source}: {errno}")))?;
        let name = real.to_string_lossy();
        match self.build.context.stat(&real) {
            Ok(stat)
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory
                    && self.build.ignore.excludes(&name) =>
            {
                Err(refused(format!("failed to mount {source} of the build context: excluded by .dockerignore")))
            }
            Ok(_) => Ok(real),
            Err(Errno::XDEV) => Err(refused(format!("forbidden path outside the build context: {source} ()"))),
            Err(errno) => Err(refused(format!("failed to mount {source} of the build context: {errno}"))),
        }
    }

    /// Makes everything that the command is to see.
    fn look(
        &mut self,
        specs: &[MountSpec],
        script: Option<&Script>,
        worker: &Worker,
        sight: &mut Sight,
    ) -> Result<(), StageError> {
        for MountSpec { target, kind } in specs {
            let (source, read_only) = match kind {
                Kind::Bind { from, source, writable } => {
                    (self.bind(from.as_deref(), source, *writable, worker, sight)?, !writable)
                }
                Kind::Cache { id, from, source, sharing, read_only, owner } => {
                    let folder = self.cache_folder(id, from.as_deref(), source, (*sharing, *owner))?;
                    let path = folder.path.clone();
                    sight.caches.push(folder);
                    (path, *read_only)
                }
                Kind::Tmpfs { size } => {
                    let path = worker.place("tmpfs", false)?;
                    let options = size.map(|size| format!("size={size}"));
                    nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
                        .step("mount a tmpfs at", &path)?;
                    sight.mounted.push(path.clone());
                    (path, false)
                }
                Kind::Secret { id, required, env, as_file, owner } => {
                    let Some(content) = self.secret(id, *required)? else { continue };
                    if let Some(env) = env {
                        let text = String::from_utf8_lossy(&content).into_owned();
                        sight.env.push((env.clone(), text));
                    }
                    if !as_file {
                        continue;
                    }
                    let path = worker.place("secret", true)?.join("secret");
                    place_file(&path, &content, *owner)?;
                    (path, true)
                }
                Kind::Ssh { id, required, owner } => {
                    let Some(agent) = self.agent(id, *required)? else { continue };
                    let path = worker.place("ssh", true)?.join("agent");
                    sight.agents.push(worker.agent_socket(&path, &agent)?);
                    cache::own(&path, *owner)?;
                    sight.env.push(("SSH_AUTH_SOCK".to_owned(), target.display().to_string()));
                    (path, false)
                }
            };
            sight.mounts.push(Mount { source, target: target.clone(), read_only, ..Mount::default() });
        }
        if let Some(Script { path: target, content }) = script {
            let path = worker.place("script", false)?.join("script");
            place_file(&path, content.as_bytes(), Owner { uid: 0, gid: 0, mode: 0o755 })?;
            sight.mounts.push(Mount { source: path, target: target.into(), read_only: true, ..Mount::default() });
        }
        Ok(())
    }

    /// The path of a bind mount's files.
    fn bind(
        &mut self,
        from: Option<&str>,
        source: &str,
        writable: bool,
        worker: &Worker,
        sight: &mut Sight,
    ) -> Result<PathBuf, StageError> {
        let Some(from) = from else {
            return self.bind_context(source, writable, worker, sight);
        };
        let mut layers = self.build.store.unpack(&self.layers_of(from)?)?;
        if layers.is_empty() {
            layers.push(Layers::empty());
        }
        let (name, path) = worker.tree(&layers)?;
        sight.trees.push(name);
        let refused = |errno: Errno| StageError::At(fail(0, format!("failed to mount {source} of {from}: {errno}")));
        let root = Root::open(&path).map_err(refused)?;
        let real = root.real_path(Path::new(source)).map_err(refused)?;
        root.stat(&real).map_err(refused)?;
        Ok(path.join(real))
    }

    /// The path of files of the build context, without what `.dockerignore` leaves out.
    fn bind_context(
        &self,
        source: &str,
        writable: bool,
        worker: &Worker,
        sight: &mut Sight,
    ) -> Result<PathBuf, StageError> {
        let refused = |message: String| StageError::At(fail(0, message));
        let inside = self.in_context(source)?;
        let path = self.build.request.context.join(&inside);
        let path = fs::canonicalize(&path).step("find", &path)?;
        if !path.is_dir() {
            return if writable { overlay_file(&path, worker) } else { Ok(path) };
        }
        let mask = worker.place("mask", false)?;
        let hides = mask::make(&self.build.context, &inside, &self.build.ignore, &mask).map_err(refused)?;
        match (hides, writable) {
            (false, false) => Ok(path),
            (false, true) => overlay(&[&path], true, worker, sight),
            (true, writable) => overlay(&[&mask, &path], writable, worker, sight),
        }
    }

    /// A folder that later builds find again; a new one begins as what is in a stage or image, if that is said.
    fn cache_folder(
        &self,
        id: &str,
        from: Option<&str>,
        source: &str,
        (sharing, owner): (Sharing, Owner),
    ) -> Result<CacheFolder, StageError> {
        let Some(from) = from else { return self.build.cache.folder(id, sharing, owner, |_| Ok(())) };
        let layers: Vec<String> = self.layers_of(from)?.iter().map(|layer| layer.diff_id.to_string()).collect();
        let id = format!("{id}\0{}\0{source}", layers.join(","));
        self.build.cache.folder(&id, sharing, owner, |dir| self.fill(dir, from, source))
    }

    /// Puts what is in a folder of a stage or image into another one: as a layer that is unpacked there.
    fn fill(&self, dir: &Path, from: &str, source: &str) -> Result<(), StageError> {
        let refused = |message: String| StageError::At(fail(0, message));
        let store = self.build.store;
        let (root, nothing) = (self.tree(from)?, open_merged(store.layers_dir(), &[])?);
        let patterns = [source.to_owned()];
        let order = Order {
            keyword: "RUN --mount=type=cache",
            source: Source { root: &root, ignore: None, keep_owner: true },
            patterns: &patterns,
            inline: &[],
            excludes: &[],
            parents: false,
            dest: "/",
            owner: None,
            mode: None,
            extract: false,
        };
        let mut layer = LayerWriter::new(store.blobs().writer()?, None);
        copy::copy(&order, &nothing, &mut layer).map_err(refused)?;
        let Some(blob) = layer.finish()? else { return Ok(()) };
        let mut archive = TarReader::new(store.blobs().reader(&blob.digest)?);
        unpack(&mut archive, dir, &[], store.limits()).map_err(|error| refused(format!("{source}: {error}")))?;
        Ok(())
    }

    /// The socket of an SSH agent that was given.
    fn agent(&self, id: &str, required: bool) -> Result<Option<PathBuf>, StageError> {
        let refused = |message: String| StageError::At(fail(0, message));
        match self.build.request.ssh.get(id) {
            None if required => Err(refused(format!("unset ssh forward key {id}: give --ssh {id}"))),
            None => Ok(None),
            Some(path) if path.metadata().is_ok_and(|found| found.file_type().is_socket()) => Ok(Some(path.clone())),
            Some(path) => Err(refused(format!("--ssh {id}: {} is not the socket of an SSH agent", path.display()))),
        }
    }

    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, StageError> {
        let refused = |message: String| StageError::At(fail(0, message));
        let content = match self.build.request.secrets.get(id) {
            None if required => return Err(refused(format!("secret {id}: not found"))),
            None => return Ok(None),
            Some(Secret::Env(name)) => std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec),
            Some(Secret::File(path)) => {
                let mut content = Vec::new();
                let file = fs::File::open(path).step("open", path)?;
                file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content).step("read", path)?;
                Some(content)
            }
        };
        match content {
            Some(content) if content.len() as u64 > SECRET_BYTES_MAX => {
                Err(refused(format!("secret {id}: larger than {SECRET_BYTES_MAX} bytes")))
            }
            other => Ok(other),
        }
    }

    /// Places that exist in the container only because something is mounted there.
    fn stubs(&mut self, mounts: &[Mount]) -> Result<BTreeSet<PathBuf>, StageError> {
        let targets: Vec<PathBuf> = mounts.iter().map(|mount| mount.target.clone()).collect();
        Ok(diff::stubs(self.view()?, &targets))
    }
}

impl Sight {
    fn take_away(self, worker: &Worker) -> Result<(), ImageError> {
        for path in &self.mounted {
            nix::mount::umount2(path, MntFlags::MNT_DETACH).step("unmount", path)?;
        }
        self.trees.iter().try_for_each(|tree| worker.forget(tree))
    }
}

/// Folders one over the other, the topmost first. What is written, if that may be, is lost.
fn overlay(lowers: &[&Path], writable: bool, worker: &Worker, sight: &mut Sight) -> Result<PathBuf, StageError> {
    let home = worker.place("overlay", false)?;
    let (upper, work, merged) = (home.join("upper"), home.join("work"), home.join("merged"));
    for dir in [&upper, &work, &merged] {
        fs::create_dir(dir).step("make", dir)?;
    }
    // By descriptor: whatever stands in the context's path would have to be escaped.
    let open = |path: &&Path| fs::File::open(path).step("open", path);
    let files = lowers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let by_fd = |file: &fs::File| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let mut options = format!("lowerdir={}", files.iter().map(by_fd).collect::<Vec<_>>().join(":"));
    if writable {
        // The merged folder takes after the upper one.
        let like = fs::File::open(&upper).step("open", &upper)?;
        let stat = files.first().map(rustix::fs::fstat).transpose().step("look at", &merged)?;
        if let Some(stat) = stat {
            copy_attributes(std::os::fd::AsFd::as_fd(&like), &stat).step("set the attributes of", &upper)?;
        }
        options.push_str(&format!(",upperdir={},workdir={},volatile", upper.display(), work.display()));
    }
    nix::mount::mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .step("mount an overlay at", &merged)?;
    sight.mounted.push(merged.clone());
    Ok(merged)
}

/// A file that may be written, whose changes are lost.
fn overlay_file(path: &Path, worker: &Worker) -> Result<PathBuf, StageError> {
    let copy = worker.place("file", false)?.join("file");
    fs::copy(path, &copy).step("copy", path)?;
    Ok(copy)
}

fn place_file(path: &Path, content: &[u8], owner: Owner) -> Result<(), ImageError> {
    fs::write(path, content).step("write", path)?;
    cache::own(path, owner)
}

/// Names, kinds, modes and contents of a tree, in order, but for what is ignored.
fn digest_of(
    root: &Root,
    path: &Path,
    ignore: &super::glob::Ignore,
    hash: &mut Sha256,
    depth: usize,
) -> Result<(), String> {
    let at = |errno: Errno| format!("{}: {errno}", path.display());
    let name = path.to_string_lossy();
    if depth > DEPTH_MAX {
        return Err(format!("{name}: too many nested directories"));
    }
    let stat = root.lstat(path).map_err(at)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if name.is_empty() || !ignore.excludes(&name) {
        hash.update(format!("{}\0{name}\0{:o}\0{}\0", name.len(), stat.st_mode, stat.st_size));
        match kind {
            FileType::RegularFile => {
                let mut file = root.file(path).map_err(at)?;
                std::io::copy(&mut file, hash).map_err(|error| format!("{name}: {error}"))?;
            }
            FileType::Symlink => hash.update(root.link(path).map_err(at)?.as_encoded_bytes()),
            _ => {}
        }
    }
    if kind == FileType::Directory {
        for child in root.list(path).map_err(at)? {
            digest_of(root, &path.join(child), ignore, hash, depth + 1)?;
        }
    }
    Ok(())
}

/// An error with what led to it.
fn words(error: &EngineError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let mut text = error.to_string();
    for cause in causes {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
}
