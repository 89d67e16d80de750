//! `reeve backup list PLACE`

use std::io::Write as _;

use super::args::ListArgs;
use super::place::{Place, parts};
use super::{Failed, sized};

/// Runs it to its end.
pub(crate) async fn run(args: &ListArgs) -> Result<(), Failed> {
    let kept = Place::parse(&args.place, args.credentials.as_deref())?.list().await?;
    let mut out = std::io::stdout().lock();
    let rows: Vec<[String; 4]> = kept
        .iter()
        .filter_map(|kept| {
            let (cluster, at) = parts(&kept.name)?;
            Some([cluster.to_owned(), at.to_string(), sized(kept.bytes), kept.name.clone()])
        })
        .collect();
    if rows.is_empty() {
        let _ = writeln!(out, "No backups found in {}.", args.place);
        return Ok(());
    }
    let head = ["CLUSTER", "MADE", "SIZE", "NAME"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [cluster, made, size, name] in [&head].into_iter().chain(&rows) {
        let [one, two, three] = widths;
        let _ = writeln!(out, "{cluster:one$}   {made:two$}   {size:three$}   {name}");
    }
    Ok(())
}
