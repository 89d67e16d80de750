//! Whether all members hold the same: the leader's server asks each for the hash of everything at one revision, as
//! etcd's periodic corruption check does, and raises an alarm about whose hash is not that of most.
//!
//! A hash is comparable with one of the same revision and the same compaction point. Each member reads its whole store
//! for it, away from everything else that it does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reeve_store::Leadership;
use serde_json::Value;
use tokio::sync::watch;

use super::alarms::{self, Alarm};
use super::{ControlPlane, Record};
use crate::http::Page;
use crate::status::ApiError;

/// How long a member may take to read its whole store.
const HASH_TIME_MAX: Duration = Duration::from_secs(120);
/// A round in which somebody has compacted meanwhile is repeated so often.
const ATTEMPTS: u32 = 5;
/// What differs once must differ again before anybody is alarmed.
const CONFIRMATIONS: u32 = 2;

/// How often members were compared, for `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Counts {
    agreed: AtomicU64,
    differed: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    pub(super) fn report(&self, page: &mut Page) {
        let help = "Comparisons of all members' data that this server has made, by how they went.";
        page.family("reeve_store_comparisons_total", "counter", help);
        for (result, count) in [("agree", &self.agreed), ("differ", &self.differed), ("error", &self.failed)] {
            page.sample("", &format!("result=\"{result}\""), count.load(Ordering::Relaxed));
        }
    }
}

/// What was found of the members that could be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// All the same.
    Agree,
    /// Most agree; these are others.
    Corrupt(Vec<u64>),
    /// No hash is that of most members. These are all that were asked.
    Disputed(Vec<u64>),
}

/// What the hashes say; `members` is how many there are, asked or not.
fn judge(told: &BTreeMap<u64, u64>, members: usize) -> Finding {
    let mut by_hash: BTreeMap<u64, usize> = BTreeMap::new();
    told.values().for_each(|hash| *by_hash.entry(*hash).or_default() += 1);
    let Some((common, count)) = by_hash.iter().max_by_key(|(_, count)| **count) else { return Finding::Agree };
    if by_hash.len() == 1 {
        return Finding::Agree;
    }
    if *count > members / 2 {
        return Finding::Corrupt(told.iter().filter(|(_, hash)| *hash != common).map(|(id, _)| *id).collect());
    }
    Finding::Disputed(told.keys().copied().collect())
}

/// The hashes of one round.
struct Round {
    revision: u64,
    told: BTreeMap<u64, u64>,
}

impl ControlPlane {
    /// Compares all members from time to time while this server's member leads. Runs while the server does.
    pub(crate) async fn compare(&self, mut leadership: watch::Receiver<Leadership>) {
        let Some(every) = self.compared_every else { return };
        loop {
            // It ends with the store.
            if leadership.wait_for(Leadership::is_leader).await.is_err() {
                return;
            }
            tokio::time::sleep(every).await;
            if !leadership.borrow().is_leader() {
                continue;
            }
            match self.compare_once().await {
                Ok(Finding::Agree) => self.compared.agreed.fetch_add(1, Ordering::Relaxed),
                Ok(_) => self.compared.differed.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(%error, "The members could not be compared; trying again later.");
                    self.compared.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }

    async fn compare_once(&self) -> Result<Finding, ApiError> {
        let records = self.records().await?;
        let mut round = self.hashes(&records).await?;
        for _ in 1..CONFIRMATIONS {
            if judge(&round.told, records.len()) != Finding::Agree {
                round = self.hashes(&records).await?;
            }
        }
        let finding = judge(&round.told, records.len());
        let before = alarms::all(&*self.kv).await?;
        let raised = raised(&finding, &before, &records, &round);
        for alarm in raised.iter().filter(|alarm| !before.contains(alarm)) {
            tell(alarm);
        }
        alarms::set(&*self.kv, &before, &raised).await?;
        Ok(finding)
    }

    /// The hashes of all that can be reached, at one revision and compaction point.
    async fn hashes(&self, records: &[Record]) -> Result<Round, ApiError> {
        let own = self.status().await?.id;
        for _ in 0..ATTEMPTS {
            let hash = self.kv.hash_kv(None).await.map_err(|err| ApiError::store(&err))?;
            let path = &format!("/reeve/v1/store/hash?revision={}", hash.revision.0);
            let others = records.iter().filter(|record| record.id != own && !record.api_address.is_empty());
            let asked = others.map(|record| async move { (record, self.ask(record, path, HASH_TIME_MAX).await) });
            let answers = futures::future::join_all(asked).await;
            let mut told: BTreeMap<u64, u64> = [(own, u64::from(hash.hash))].into();
            let mut comparable = true;
            for (record, answer) in answers {
                match answer {
                    Ok(answer) => {
                        comparable &= answer["compacted"].as_u64() == Some(hash.compacted.0);
                        told.insert(record.id, answer["hash"].as_u64().unwrap_or(u64::MAX));
                    }
                    Err(error) if is_compaction(&error) => comparable = false,
                    Err(error) => tracing::debug!(member = record.name, error, "A member has told no hash."),
                }
            }
            if comparable {
                return Ok(Round { revision: hash.revision.0, told });
            }
        }
        Err(ApiError::internal("the store is compacted all the time"))
    }

    async fn ask(&self, record: &Record, path: &str, time_max: Duration) -> Result<Value, String> {
        let neighbours = self.neighbours.as_ref().ok_or("this server asks nobody")?;
        neighbours.get(&record.api_address, path, time_max).await
    }

    /// What the leader's server says to that path.
    pub(super) async fn ask_leader(&self, leader: u64, path: &str) -> Option<Value> {
        /// Whoever wants a list waits for it.
        const TIME_MAX: Duration = Duration::from_secs(2);
        let records = self.records().await.ok()?;
        let record = records.iter().find(|record| record.id == leader)?;
        let answer = self.ask(record, path, TIME_MAX).await;
        answer.map_err(|error| tracing::debug!(leader = record.name, error, "The leader says nothing.")).ok()
    }
}

/// The server that was asked has compacted what was asked for.
fn is_compaction(error: &str) -> bool {
    error.contains("has been compacted")
}

/// The alarms that there are to be, after those before.
fn raised(finding: &Finding, before: &[Alarm], records: &[Record], round: &Round) -> Vec<Alarm> {
    let (ids, certain) = match finding {
        Finding::Agree => (&[][..], true),
        Finding::Corrupt(ids) => (&ids[..], true),
        Finding::Disputed(ids) => (&ids[..], false),
    };
    let of = |record: &Record| {
        let id = format!("{:x}", record.id);
        let old = before.iter().find(|old| old.id == id).cloned();
        match (ids.contains(&record.id), old) {
            (true, Some(old)) if old.certain == certain => Some(old),
            (true, _) => Some(Alarm { id, name: record.name.clone(), revision: round.revision, certain }),
            // Whoever was not reached keeps the alarm that it has.
            (false, old) => old.filter(|_| !round.told.contains_key(&record.id)),
        }
    };
    records.iter().filter_map(of).collect()
}

fn tell(alarm: &Alarm) {
    let Alarm { name, revision, .. } = alarm;
    if alarm.certain {
        tracing::error!(
            member = name,
            revision,
            "Alarm CORRUPT: the data of a member differs from that of the others. Do not use its server; `reeve member \
             replace {name}` says how another one takes its place."
        );
    } else {
        tracing::error!(
            member = name,
            revision,
            "Alarm CORRUPT: the members hold different data, and no version is that of most. `reeve store verify` on \
             each may say which is damaged; `reeve member replace {name}` would take this one's place."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(hashes: &[u64], members: usize) -> Finding {
        judge(&(1..).zip(hashes.iter().copied()).collect(), members)
    }

    #[test]
    fn who_differs_from_most_members_is_named_and_nobody_where_there_is_no_most() {
        assert_eq!(found(&[7, 7, 7], 3), Finding::Agree);
        assert_eq!(found(&[7, 7, 8], 3), Finding::Corrupt(vec![3]));
        // The leader, who asks, is no better than others.
        assert_eq!(found(&[8, 7, 7], 3), Finding::Corrupt(vec![1]));
        assert_eq!(found(&[7, 8, 7, 9, 7], 5), Finding::Corrupt(vec![2, 4]));
        assert_eq!(found(&[7, 8], 2), Finding::Disputed(vec![1, 2]));
        assert_eq!(found(&[7, 8, 9], 3), Finding::Disputed(vec![1, 2, 3]));
        // Two of three that were reached are not most of five.
        assert_eq!(found(&[7, 7, 8], 5), Finding::Disputed(vec![1, 2, 3]));
        assert_eq!((found(&[7], 3), found(&[], 3)), (Finding::Agree, Finding::Agree));
    }

    #[test]
    fn an_alarm_stays_until_its_member_agrees_again_or_is_gone() {
        let record = |name: &str, id| Record {
            name: name.to_owned(),
            id,
            peer_address: String::new(),
            api_address: String::new(),
            replaces: None,
        };
        let records = [record("a", 1), record("b", 0xbeef)];
        let round = |revision, told: &[u64]| Round { revision, told: told.iter().map(|id| (*id, 7)).collect() };
        let both = round(9, &[1, 0xbeef]);
        let alarm = Alarm { id: "beef".to_owned(), name: "b".to_owned(), revision: 9, certain: true };
        let first = raised(&Finding::Corrupt(vec![0xbeef]), &[], &records, &both);
        assert_eq!(first, [alarm]);
        // It is found again, later: the same alarm.
        let again = raised(&Finding::Corrupt(vec![0xbeef]), &first, &records, &round(12, &[1, 0xbeef]));
        assert_eq!(again, first);
        let unreached = raised(&Finding::Agree, &first, &records, &round(13, &[1]));
        assert_eq!(unreached, first);
        assert!(raised(&Finding::Agree, &first, &records, &both).is_empty());
        assert!(raised(&Finding::Agree, &first, &records[..1], &round(14, &[1])).is_empty());
        let disputed = raised(&Finding::Disputed(vec![1, 0xbeef]), &first, &records, &both);
        assert!(disputed.len() == 2 && disputed.iter().all(|alarm| !alarm.certain));
    }
}
