//! `reeve backup FILE`: asks the API server for a backup, or reads the folder of a cluster that is stopped, checks what
//! comes and keeps it.

use std::io::Write as _;
use std::path::Path;

use futures::StreamExt as _;
use reeve_api::clock::{Clock as _, RealClock};
use reeve_store::backup::{Item, Summary, Unpacker};

use super::args::MakeArgs;
use super::output::{Output, STDOUT};
use super::progress::Progress;
use super::{Failed, Subject, about, passphrase, sized, store_of};
use crate::kubectl::api::{Api, Url};
use crate::kubectl::error::CliError;

/// Where the API server hands out backups.
const PATH: &str = "/reeve/v1/backup";

/// Runs it; `connect` is only called when a server is asked.
pub(crate) async fn run(args: &MakeArgs, connect: impl Future<Output = Result<Api, CliError>>) -> Result<(), CliError> {
    let Some(file) = &args.file else {
        return Err(CliError::plain("where to? `reeve backup FILE`, or `reeve backup -` for standard output"));
    };
    let plain = |err: Failed| CliError::plain(err.to_string());
    let wants_secret = args.encrypt || args.secret.key_file.is_some() || args.secret.passphrase_file.is_some();
    let secret = if wants_secret { Some(passphrase::for_sealing(&args.secret).map_err(plain)?) } else { None };
    let create = || Output::create(file, args.force, secret.as_ref()).map_err(plain);
    let mut progress = Progress::new(!args.no_progress);
    let (summary, bytes) = match &args.data_dir {
        Some(data_dir) => of_folder(data_dir, create()?).map_err(plain)?,
        None => {
            let api = connect.await?;
            let output = create()?;
            tokio::select! {
                made = of_server(&api, output, &mut progress) => made?,
                // What has been written goes.
                _ = tokio::signal::ctrl_c() => return Err(CliError::plain("interrupted; no backup was made")),
            }
        }
    };
    progress.end();
    if file != Path::new(STDOUT) {
        let (head, sealed) = (&summary.head, if secret.is_some() { ", encrypted" } else { "" });
        let (keys, revision) = (summary.keys, head.revision);
        let (file, size) = (file.display(), sized(bytes));
        let line =
            format!("Backed up cluster {:?} at revision {revision}: {keys} keys, {size}{sealed}, in {file}", head.name);
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    Ok(())
}

async fn of_server(api: &Api, mut output: Output, progress: &mut Progress) -> Result<(Summary, u64), CliError> {
    let mut pieces = api.bytes(&Url::new(PATH)).await?;
    let plain = |err: &dyn std::fmt::Display| CliError::plain(format!("no backup was made: {err}"));
    let (mut unpacker, mut all, mut bytes) = (Unpacker::default(), 0, 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|err| plain(&format!("the connection broke off: {err}")))?;
        for item in unpacker.feed(&piece).map_err(|err| plain(&err))? {
            if let Item::Head(head) = item {
                all = head.keys;
            }
        }
        output.write_all(&piece).map_err(|err| plain(&err))?;
        bytes += piece.len() as u64;
        progress.at(unpacker.keys(), all, bytes);
    }
    let summary = unpacker.finish().map_err(|err| plain(&err))?;
    let written = output.keep().map_err(|err| plain(&err))?;
    Ok((summary, written))
}

fn of_folder(data_dir: &Path, mut output: Output) -> Result<(Summary, u64), Failed> {
    let subject = Subject::of_folder(data_dir)?;
    let store = store_of(data_dir);
    if !store.is_dir() {
        return Err(Failed::Refused(format!(
            "{} has no store; where the state lies in an etcd, a server that runs makes the backup",
            data_dir.display()
        )));
    }
    let about = about(data_dir, &subject, RealClock::new().now().as_second());
    let about = about.map_err(|err| Failed::io("read", data_dir, err))?;
    let packed = reeve_store::backup::pack_folder(&store, about, &mut output);
    let summary = packed.map_err(|err| Failed::Refused(chain(&err)))?;
    Ok((summary, output.keep()?))
}

/// An error with its causes.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let own = cause.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        source = cause.source();
    }
    text
}
