//! Keeps container logs small: 10 MiB in a file, five files. Source: kubelet `containerLogMaxSize`,
//! `containerLogMaxFiles`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reeve_engine::engine::ContainerState;
use tokio::time::{MissedTickBehavior, interval};

use crate::pod::context::NodeContext;

/// A file that has grown to this is exchanged.
const SIZE_MAX: u64 = 10 << 20;
/// Files of one life of a container, the current one included.
const FILES_MAX: usize = 5;
/// How often sizes are looked at. Source: kubelet `containerLogMonitorInterval`. Watching every write would cost
/// more than one look at each file.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Rotates until the agent stops.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let containers = match node.engine.list_containers().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(%error, "failed to list containers for log rotation");
                continue;
            }
        };
        for container in containers {
            if !matches!(container.state, ContainerState::Running { .. }) {
                continue;
            }
            let path = &container.config.log_path;
            match exchange(path, SIZE_MAX, node.now()).await {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(error) = node.engine.reopen_log(&container.id).await {
                        tracing::warn!(%error, path = %path.display(), "failed to reopen a log");
                    }
                }
                Err(error) => tracing::warn!(%error, path = %path.display(), "failed to rotate a log"),
            }
        }
    }
}

/// Moves a log that has grown to `max` aside and removes the oldest of those; whether it did.
async fn exchange(path: &Path, max: u64, now: Timestamp) -> io::Result<bool> {
    match tokio::fs::metadata(path).await {
        Ok(meta) if meta.len() >= max => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let stamp = now.strftime("%Y%m%d-%H%M%S").to_string();
    let old = PathBuf::from(format!("{}.{stamp}", path.display()));
    tokio::fs::rename(path, &old).await?;
    let mut all = older(path).await?;
    all.sort();
    let surplus = (all.len() + 1).saturating_sub(FILES_MAX);
    for path in all.iter().take(surplus) {
        tokio::fs::remove_file(path).await?;
    }
    Ok(true)
}

async fn older(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grown_log_is_moved_aside_and_only_five_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for second in 0..8 {
            std::fs::write(&path, format!("{second} long enough")).unwrap();
            assert!(exchange(&path, 5, Timestamp::from_second(second).unwrap()).await.unwrap());
        }
        std::fs::write(&path, "x").unwrap();
        assert!(!exchange(&path, 5, Timestamp::from_second(9).unwrap()).await.unwrap());
        let names = older(&path).await.unwrap();
        assert_eq!(names.len(), FILES_MAX - 1);
        assert!(names.iter().all(|name| !name.ends_with("0.log.19700101-000003")));
    }
}
