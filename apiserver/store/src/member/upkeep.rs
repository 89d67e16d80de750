//! Keeps view, log and snapshots in order, by jobs that run beside everything else.

use super::{Member, stopped, storage_error};
use crate::encoding::Position;
use crate::kv::KvError;
use crate::snapshot;
use crate::view::ViewError;

/// What the view holds in memory before it is handed on to disk.
const SETTLE_BYTES: usize = 512 * 1024;
/// With so much in memory nothing is applied until some of it is on disk: it cannot keep up.
const UNSETTLED_BYTES_MAX: usize = 8 * SETTLE_BYTES;
/// A snapshot is due when the log has more segments than this: each start begins one.
const SEGMENTS_MAX: usize = 64;
/// A view that fails again right after it was rebuilt so often will not get better.
const REBUILDS_MAX: u32 = 3;
/// However large the state is, the log does not grow beyond this: it is read into memory after a machine crash.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Member {
    pub(super) fn start_jobs(&mut self) {
        self.start_cut();
        self.start_serving();
        if self.space.is_full() {
            return; // what is left is the log's
        }
        self.write_members();
        self.start_install();
        if self.install.is_some() || self.install_job.is_some() {
            return; // nothing of the view that goes is worth anything any more
        }
        self.start_snapshot();
        let view = self.parts.mvcc.view();
        if self.settle_job.is_none() && view.unsettled() > SETTLE_BYTES {
            self.settle_job = Some(self.parts.jobs.spawn(move || view.settle()));
        }
        // A snapshot needs what a scrub removes.
        if self.scrubbing && self.scrub_job.is_none() && self.snapshot_job.is_none() {
            let mvcc = self.parts.mvcc.clone();
            self.scrubbing = false; // what is compacted from now on may come too late for this job
            self.scrub_job = Some(self.parts.jobs.spawn(move || mvcc.scrub()));
        }
    }

    /// Whether no job has the view.
    pub(super) fn view_is_free(&self) -> bool {
        self.settle_job.is_none() && self.scrub_job.is_none() && self.snapshot_job.is_none()
    }

    /// Whether the view has room for what would be applied.
    pub(super) fn view_keeps_up(&self) -> bool {
        let settles = self.settle_job.is_none() || self.parts.mvcc.view().unsettled() < UNSETTLED_BYTES_MAX;
        // Only while a job is at work whose end is an event.
        let waits = self.scrubbing && self.snapshot_job.is_some();
        settles && !((self.scrub_job.is_some() || waits) && self.parts.mvcc.scrub_is_behind(waits))
    }

    /// By size: writing a snapshot may cost as much as the log that it replaces, so the log may grow with the state.
    /// Or because a member needs one.
    fn start_snapshot(&mut self) {
        let Some(log) = &self.log else { return };
        let allowed = self.snapshot.1.min(LOG_BYTES_MAX).max(self.parts.log_bytes);
        let due = log.bytes() > allowed || log.segments() > SEGMENTS_MAX;
        let busy = self.snapshot_job.is_some() || self.scrub_job.is_some() || self.cut.is_some();
        if busy {
            return;
        }
        let position = self.parts.mvcc.position();
        let wanted = position.index >= self.members.index && position.index > 0 && self.node.store().take_wanted();
        if !wanted && (!due || position.index <= self.snapshot.0) {
            return;
        }
        let (disk, view) = (self.parts.folder.disk.clone(), self.parts.mvcc.view());
        let members = self.members.to_stored();
        self.outgoing.members = self.members.clone();
        self.snapshot_job = Some(self.parts.jobs.spawn(move || {
            view.settle()?; // what the log loses behind it must not be in memory alone
            snapshot::write(&*disk, &*view, position, members).map(|bytes| (position, bytes))
        }));
    }

    pub(super) fn on_snapshot(&mut self, outcome: Result<(Position, u64), snapshot::WriteError>) {
        self.parts.mvcc.excuse_scrub();
        match outcome {
            Ok((position, bytes)) => {
                tracing::debug!(index = position.index, bytes, "Wrote a snapshot.");
                self.snapshot = (position.index, bytes);
                self.cut = Some(position.index);
                self.offer(position, bytes);
            }
            Err(snapshot::WriteError::View(err)) => {
                self.parts.mvcc.report_broken(err);
            }
            Err(snapshot::WriteError::Disk(err)) => {
                // The log stays; the next try is when it has grown by half.
                tracing::warn!(%err, "Cannot write a snapshot.");
                self.parts.log_bytes += self.parts.log_bytes / 2;
            }
        }
    }

    pub(super) async fn on_settled(&mut self, outcome: Result<(), ViewError>) -> Result<(), KvError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(err) => self.on_view_broken(err).await,
        }
    }

    pub(super) async fn on_scrubbed(&mut self, outcome: Result<bool, ViewError>) -> Result<(), KvError> {
        match outcome {
            Ok(more) => self.scrubbing |= more,
            // The next compaction goes over what is left.
            Err(err) => self.on_view_broken(err).await?,
        }
        Ok(())
    }

    /// Rebuilds the view from snapshot and log; meanwhile nothing is applied and reads of the past are refused.
    pub(super) async fn on_view_broken(&mut self, err: ViewError) -> Result<(), KvError> {
        if self.install.is_some() || self.install_job.is_some() {
            return Ok(()); // a new view is on its way
        }
        let disk = self.parts.folder.disk.clone();
        let free = self.parts.jobs.spawn(move || disk.free_bytes()).await;
        self.note_space(free.map_err(|err| stopped("the disk", &err))?);
        if self.space.is_full() {
            tracing::warn!(%err, "The view is rebuilt when there is room on the disk.");
            self.view_lost = Some(err);
            return Ok(());
        }
        self.rebuilds += 1;
        if self.rebuilds > REBUILDS_MAX {
            return Err(stopped("its view", &err));
        }
        tracing::warn!(%err, "Rebuilding the view.");
        while let Some(job) = &mut self.disk_job {
            let done = job.await.map_err(|err| stopped("the log", &err))?;
            self.disk_job = None;
            self.on_disk(done)?;
        }
        if let Some(job) = self.cut_job.take() {
            let removed = job.await.map_err(|err| stopped("the log", &err))?; // it is about to be read
            removed.map_err(|err| storage_error(&err))?;
        }
        // What they make of the old view does not matter any more.
        if let Some(job) = self.settle_job.take() {
            let _ = job.await;
        }
        if let Some(job) = self.scrub_job.take() {
            let _ = job.await;
            self.scrubbing = true;
        }
        if self.install.is_some() {
            return Ok(()); // it came with what the disk has just written
        }
        let (folder, mvcc) = (self.parts.folder.clone(), self.parts.mvcc.clone());
        let stood: Position = mvcc.position();
        let rebuilt = self.parts.jobs.spawn(move || folder.rebuild(stood)).await;
        let view = rebuilt.map_err(|err| stopped("its view", &err))?.map_err(|err| stopped("its view", &err))?;
        self.parts.mvcc.replace_view(view);
        Ok(())
    }
}
