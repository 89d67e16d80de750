//! `batch`: work that ends.

mod cron_job;
mod jobs;
mod schedule;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(cron_job::CronJobs), Arc::new(jobs::Jobs)]
}
