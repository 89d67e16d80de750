//! How the members are, for `/metrics` and `/readyz?verbose`. The names are etcd's where etcd has the figure.

use reeve_store::{MemberStatus, PeerFigures, Role};

use super::alarms::{self, Alarm};
use super::{ControlPlane, Record};
use crate::http::Page;

/// How the connections to the other members are.
pub trait Network: Send + Sync + 'static {
    /// All, in the order of the members' numbers.
    fn figures(&self) -> Vec<PeerFigures>;
}

/// What the store says of the group.
#[derive(Debug, Default)]
pub(crate) struct Told {
    group: Option<MemberStatus>,
    alarms: Vec<Alarm>,
}

/// What a server says of itself and the others for `/readyz`.
#[derive(Debug, Default)]
pub(crate) struct Neighbourhood {
    /// Lines of the report.
    pub(crate) lines: String,
    /// Whether this server is fit to be asked.
    pub(crate) healthy: bool,
}

impl ControlPlane {
    /// How the group is, if the store says.
    pub(crate) async fn told(&self) -> Told {
        if self.etcd.is_some() {
            return Told::default(); // its members have figures of their own
        }
        Told { group: self.group.status().await.ok(), alarms: alarms::all(&*self.kv).await.unwrap_or_default() }
    }

    /// Adds what is counted of the group.
    pub(crate) fn report(&self, told: &Told, page: &mut Page) {
        if self.etcd.is_some() {
            return;
        }
        told.group.iter().for_each(|status| of_group(status, page));
        of_network(&self.network.figures(), page);
        self.compared.report(page);
        let help = "Members whose data differs from that of the others: 1 where most agree against it, else 0.5.";
        page.family("reeve_store_corrupt", "gauge", help);
        for alarm in &told.alarms {
            let value = if alarm.certain { "1" } else { "0.5" };
            page.sample("", &format!("member=\"{}\",name=\"{}\"", alarm.id, alarm.name), value);
        }
    }

    /// What the server says of itself for `/readyz` because it is one of several.
    pub(crate) async fn health(&self, verbose: bool) -> Neighbourhood {
        if self.etcd.is_some() {
            let lines = if verbose { self.members(&[]).await } else { String::new() };
            return Neighbourhood { lines, healthy: true };
        }
        let alarms = alarms::all(&*self.kv).await.unwrap_or_default();
        let status = self.group.status().await.ok();
        let is_own = |alarm: &Alarm| status.as_ref().is_some_and(|status| alarm.id == format!("{:x}", status.id));
        let healthy = !alarms.iter().any(|alarm| alarm.certain && is_own(alarm));
        let own = if healthy { "[+]store-hash ok\n" } else { "[-]store-hash failed: reason withheld\n" };
        let members = if verbose { self.members(&alarms).await } else { String::new() };
        Neighbourhood { lines: format!("{own}{members}"), healthy }
    }

    /// A line about each member: whether it can be reached from here, and whether there is an alarm about it. None of
    /// them decides whether this server is ready.
    async fn members(&self, alarms: &[Alarm]) -> String {
        let (Ok(status), Ok(records)) = (self.group.status().await, self.records().await) else {
            return String::new();
        };
        let figures = self.network.figures();
        let line = |record: &Record| {
            let own = record.id == status.id;
            let reached = own || figures.iter().any(|figure| figure.id == record.id && figure.connected);
            let leads = if status.leadership.leader == Some(record.id) { ", leader" } else { "" };
            let votes = |id| status.members.iter().any(|member| member.id == id && member.voter);
            let learns = self.etcd.is_none() && !votes(record.id);
            let learns = if learns { ", learner" } else { "" };
            let is_corrupt = alarms.iter().any(|alarm| alarm.id == format!("{:x}", record.id));
            let (mark, said) = match (is_corrupt, reached) {
                (true, _) => ("[-]", "alarm CORRUPT"),
                (false, true) => ("[+]", "ok"),
                (false, false) => ("[-]", "not reached"),
            };
            format!("{mark}member/{} {said}{leads}{learns}\n", record.name)
        };
        records.iter().map(line).collect()
    }
}

fn of_group(status: &MemberStatus, page: &mut Page) {
    let leadership = status.leadership;
    let gauges = [
        ("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", {
            u64::from(leadership.leader.is_some())
        }),
        ("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", {
            u64::from(leadership.is_leader())
        }),
        ("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", {
            u64::from(leadership.role == Role::Learner)
        }),
        ("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", status.commit),
        ("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", status.applied),
        ("etcd_server_proposals_pending", "The current number of pending proposals to commit.", {
            status.proposals_pending as u64
        }),
        ("reeve_store_reads_pending", "Requests to read that wait for the leader.", status.reads_pending as u64),
        ("reeve_store_log_bytes", "Bytes of the log on disk.", status.log_bytes),
        ("reeve_store_disk_full", "Whether the disk is too full for writes.", u64::from(status.disk_full)),
    ];
    for (name, help, value) in gauges {
        page.family(name, "gauge", help);
        page.sample("", "", value);
    }
    let counters = [
        ("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", status.leader_changes),
        (
            "reeve_store_slow_disk_appends_total",
            "Appends to the log that took longer than half an election timeout.",
            status.slow_disk_appends,
        ),
    ];
    for (name, help, value) in counters {
        page.family(name, "counter", help);
        page.sample("", "", value);
    }
    page.family(
        "etcd_server_id",
        "gauge",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
    );
    page.sample("", &format!("server_id=\"{:x}\"", status.id), 1);
    page.family("reeve_store_member_behind", "gauge", "Entries that a member lacks, as the leader knows.");
    for member in &status.members {
        if let Some(progress) = member.progress {
            page.sample("", &format!("member=\"{:x}\"", member.id), status.last.saturating_sub(progress.matched));
        }
    }
}

fn of_network(figures: &[PeerFigures], page: &mut Page) {
    page.family("etcd_network_peer_sent_bytes_total", "counter", "The total number of bytes sent to peers.");
    for figure in figures {
        page.sample("", &format!("To=\"{:x}\"", figure.id), figure.sent_bytes);
    }
    page.family("etcd_network_peer_sent_failures_total", "counter", "The total number of send failures from peers.");
    for figure in figures {
        page.sample("", &format!("To=\"{:x}\"", figure.id), figure.dropped);
    }
    page.family("etcd_network_active_peers", "gauge", "The current number of active peer connections.");
    for figure in figures {
        page.sample("", &format!("Remote=\"{:x}\"", figure.id), u64::from(figure.connected));
    }
    page.family("etcd_network_disconnected_peers_total", "counter", "The total number of disconnected peers.");
    for figure in figures {
        page.sample("", &format!("Remote=\"{:x}\"", figure.id), figure.disconnects);
    }
}
