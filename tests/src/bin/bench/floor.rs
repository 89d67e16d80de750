//! What the machine itself needs: the cost that no program on it can avoid.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::sample;

const FSYNCS: usize = 200;
/// About what one write of a small object adds to the log.
const RECORD: [u8; 1024] = [b'r'; 1024];

/// Median time to start a program and see its end.
pub(crate) fn exec(program: &Path, args: &[&str], times: usize) -> anyhow::Result<Duration> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().with_context(|| format!("start {}", program.display()))?;
        anyhow::ensure!(status.success(), "{} {args:?} ended with {status}", program.display());
        took.push(started.elapsed());
    }
    Ok(sample::median(&mut took))
}

/// Median time to append a kilobyte to a file and have it on disk.
pub(crate) fn fsync(folder: &Path) -> anyhow::Result<Duration> {
    let path = folder.join("fsync");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).context("make a file")?;
    let mut took = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        let started = Instant::now();
        file.write_all(&RECORD).and_then(|()| file.sync_data()).context("write and sync")?;
        took.push(started.elapsed());
    }
    std::fs::remove_file(&path).context("remove the file")?;
    Ok(sample::median(&mut took))
}
