//! `reeve store verify`: what is damaged on disk, where, and what leads out of it; `reeve backup check`: the same of a
//! backup.

use std::io::Write as _;

use serde_json::Value;

use super::args::{CheckArgs, VerifyArgs};
use super::{Failed, restore, sized, store_of};
use crate::kubectl::api::{Api, Url};
use crate::kubectl::error::CliError;

/// Where the API server looks at its disk.
const PATH: &str = "/reeve/v1/store/verify";

/// Something that is not as it was written.
struct Finding {
    what: String,
    way_out: String,
}

/// What was read, and what is wrong with it.
struct Report {
    files: u64,
    records: u64,
    bytes: u64,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

/// Runs it; `connect` is only called when a server is asked. Fails when something is damaged.
pub(crate) async fn run(
    args: &VerifyArgs,
    connect: impl Future<Output = Result<Api, CliError>>,
) -> Result<(), CliError> {
    let report = match &args.data_dir {
        Some(data_dir) => {
            let report = reeve_store::verify::folder(&store_of(data_dir));
            of_store(report.map_err(|err| CliError::plain(super::make::chain(&err)))?)
        }
        None => of_answer(&connect.await?.get(&Url::new(PATH)).await?),
    };
    print(&report)
}

fn print(report: &Report) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    for note in &report.notes {
        let _ = writeln!(out, "{note}");
    }
    for found in &report.findings {
        let _ = writeln!(out, "DAMAGED: {}\n  way out: {}", found.what, found.way_out);
    }
    let (files, records, size) = (report.files, report.records, sized(report.bytes));
    let read = format!("{records} records in {files} files were read ({size} of log and snapshot)");
    match report.findings.len() {
        0 => {
            let _ = writeln!(out, "{read}: all are as they were written.");
            Ok(())
        }
        1 => Err(CliError::plain(format!("{read}: one place is damaged"))),
        n => Err(CliError::plain(format!("{read}: {n} places are damaged"))),
    }
}

fn of_store(report: reeve_store::verify::Report) -> Report {
    let finding = |found: &reeve_store::verify::Finding| Finding {
        what: found.damage.to_string(),
        way_out: found.way_out.to_owned(),
    };
    Report {
        files: report.files,
        records: report.records,
        bytes: report.bytes,
        findings: report.findings.iter().map(finding).collect(),
        notes: report.notes,
    }
}

fn of_answer(answer: &Value) -> Report {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let finding = |found: &Value| Finding {
        what: format!("{} is damaged at offset {}: {}", text(&found["path"]), found["offset"], text(&found["what"])),
        way_out: text(&found["wayOut"]),
    };
    Report {
        files: number("files"),
        records: number("records"),
        bytes: number("bytes"),
        findings: answer["findings"].as_array().into_iter().flatten().map(finding).collect(),
        notes: answer["notes"].as_array().into_iter().flatten().map(text).collect(),
    }
}

/// `reeve backup check`
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failed> {
    let summary = restore::read(&args.file, &args.secret, |_| Ok(()))?;
    let head = &summary.head;
    let made = jiff::Timestamp::from_second(head.created).unwrap_or_default();
    let line = format!(
        "A whole backup of cluster {:?}, made {made} by {}: {} keys at revision {}.",
        head.name, head.program, summary.keys, head.revision
    );
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}
