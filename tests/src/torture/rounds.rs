//! What is done to the servers, one round after the other. Each round checks what it expects while it lasts, and that
//! every server serves when it is over; what was acknowledged and read is checked by [`Torture::check`].

use std::collections::BTreeMap;
use std::time::Duration;

use reeve_api::rng::{RngExt as _, SeededRng};

use super::clients::Clients;
use super::disk::{OwnDisk, thaw_all};
use super::figures::Figures;
use super::history::{Op, Summary, longest_pause};
use super::network::{self, Cut};
use super::observer::{self, Leader};
use super::{clock, figures};
use crate::servers::Servers;

/// The servers.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long a server is paused or cut off: many election timeouts.
const FOR_LONG: Duration = Duration::from_secs(4);
/// How long a disk does not answer.
const STALL: Duration = Duration::from_secs(40);
/// Elections that one fault may cost: the one that it makes necessary, and some that a busy machine adds.
const TERMS_MAX: u64 = 4;
/// Mebibytes that are left on a disk that is filled: less than a store wants to be free, more than nothing.
const ALMOST_NOTHING: u64 = 24;

/// What the figures are called.
pub mod names {
    /// The goal is about this one.
    pub const LEADER_KILLED: &str = "leader killed: until the next acknowledged write";
    /// Two are still a majority.
    pub const FOLLOWER_KILLED: &str = "follower killed and started: longest pause of all writes";
    /// A crash of the whole room.
    pub const ALL_KILLED: &str = "all killed and started: until the next acknowledged write";
    /// By SIGSTOP.
    pub const LEADER_PAUSED: &str = "leader paused: until the next acknowledged write";
    /// Likewise.
    pub const FOLLOWER_PAUSED: &str = "follower paused: longest pause of all writes";
    /// In both directions or one.
    pub const LEADER_CUT: &str = "leader cut off: until the next acknowledged write";
    /// Likewise.
    pub const FOLLOWER_CUT: &str = "follower cut off: longest pause of all writes";
    /// Two members of three.
    pub const PAIR_CUT: &str = "two followers cut from each other: longest pause";
    /// By an hour in either direction.
    pub const CLOCKS: &str = "wall clocks turned by an hour: longest pause of all writes";
    /// Less than a store wants to be free.
    pub const LEADER_FULL: &str = "leader's disk full: until the next acknowledged write";
    /// Likewise.
    pub const FOLLOWER_FULL: &str = "follower's disk full: longest pause of all writes";
    /// By a frozen file system.
    pub const LEADER_STALLED: &str = "leader's disk stalled: until the next acknowledged write";
    /// Likewise.
    pub const FOLLOWER_STALLED: &str = "follower's disk stalled: longest pause of all writes";
}

/// Three servers under load.
#[derive(Debug)]
pub struct Torture {
    clients: Clients,
    servers: Servers,
    disks: BTreeMap<&'static str, OwnDisk>,
    rng: SeededRng,
    /// How long nobody could write.
    pub figures: Figures,
}

/// What the servers get besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Equipment {
    /// Disks of their own; needs mounts of one's own.
    pub disks: bool,
    /// Clocks of their own; needs libfaketime.
    pub clocks: bool,
}

impl Torture {
    /// Starts three servers and their clients.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    #[track_caller]
    pub fn begin(equipment: Equipment, seed: u64) -> Self {
        let mut disks = BTreeMap::new(); // when this fails they go after the servers that use them
        let mut servers = Servers::prepare();
        let library = clock::library().filter(|_| equipment.clocks);
        for name in NAMES {
            servers.add_machine(name);
            if equipment.disks {
                disks.insert(name, OwnDisk::of(&servers, name));
            }
            if let Some(library) = &library {
                clock::prepare(&mut servers, name, library);
            }
        }
        servers.start("a", &[]);
        let join = servers.join_arguments("a");
        let join: Vec<&str> = join.iter().map(String::as_str).collect();
        servers.start("b", &join);
        servers.start("c", &join);
        let clients = Clients::start(&servers);
        let mut figures = figures::Figures::default();
        figures.goal(names::LEADER_KILLED, Duration::from_millis(400), Duration::from_secs(1));
        Self { clients, servers, disks, rng: SeededRng::new(seed), figures }
    }

    /// Everything that was answered so far fits together.
    #[track_caller]
    pub fn check(&self) -> Summary {
        self.clients.check()
    }

    /// Ends the clients; everything fits together, and every server says the same at the end.
    #[track_caller]
    #[must_use]
    pub fn finish(self) -> (Summary, String) {
        self.clients.all_served_since(self.clients.now());
        let summary = self.clients.check();
        (summary, self.figures.to_string())
    }

    fn leader(&self) -> Leader {
        observer::leader(&self.servers, &NAMES)
    }

    /// Somebody who does not lead.
    fn follower(&self) -> (String, Leader) {
        let leader = self.leader();
        let others = others(&leader.name);
        let n = usize::try_from(self.rng.below(others.len() as u64)).unwrap_or(0);
        (others[n].to_owned(), leader)
    }

    /// The longest pause of all writes while something lasts.
    fn pause_during(&self, what: impl FnOnce(&Self)) -> Duration {
        let since = self.clients.now();
        what(self);
        let until = self.clients.now();
        self.clients.look(|ops| longest_pause(ops, since, until))
    }

    #[track_caller]
    fn all_serve(&self) {
        self.clients.all_served_since(self.clients.now());
    }

    /// Sleeps until so long after `since`.
    fn rest(&self, since: Duration, time: Duration) {
        std::thread::sleep((since + time).saturating_sub(self.clients.now()));
    }

    /// The leader or a follower is killed and started again.
    #[track_caller]
    pub fn kill_one(&mut self) {
        if self.rng.below(2) == 0 { self.kill_leader() } else { self.kill_follower() }
    }

    /// `kill -9`, and another start.
    #[track_caller]
    pub fn kill_leader(&mut self) {
        let victim = self.leader().name;
        let killed = self.clients.now();
        self.servers.kill(&victim);
        let took = self.clients.written_since(killed, &others(&victim));
        self.figures.note(names::LEADER_KILLED, took);
        self.servers.start(&victim, &[]);
        self.all_serve();
    }

    /// `kill -9`, and another start.
    #[track_caller]
    pub fn kill_follower(&mut self) {
        let (victim, _) = self.follower();
        let since = self.clients.now();
        self.servers.kill(&victim);
        self.servers.start(&victim, &[]);
        self.all_serve();
        let until = self.clients.now();
        let pause = self.clients.look(|ops| longest_pause(ops, since, until));
        self.figures.note(names::FOLLOWER_KILLED, pause);
    }

    /// `kill -9` of all at once, and another start.
    #[track_caller]
    pub fn kill_all(&mut self) {
        let killed = self.clients.now();
        NAMES.iter().for_each(|name| self.servers.kill(name));
        NAMES.iter().for_each(|name| self.servers.spawn(name, &[]));
        NAMES.iter().for_each(|name| self.servers.up(name));
        self.figures.note(names::ALL_KILLED, self.clients.written_since(killed, &NAMES));
        self.all_serve();
    }

    /// `SIGSTOP` for many election timeouts; then `SIGCONT`.
    #[track_caller]
    pub fn pause_leader(&mut self) {
        let Leader { name, .. } = self.leader();
        let since = self.clients.now();
        self.servers.signal(&name, "STOP");
        let took = self.clients.written_since(since, &others(&name));
        self.figures.note(names::LEADER_PAUSED, took);
        self.rest(since, FOR_LONG);
        self.servers.signal(&name, "CONT");
        self.all_serve();
    }

    /// Likewise.
    #[track_caller]
    pub fn pause_follower(&mut self) {
        let (name, before) = self.follower();
        self.servers.signal(&name, "STOP");
        let pause = self.pause_during(|torture| torture.rest(torture.clients.now(), FOR_LONG));
        self.figures.note(names::FOLLOWER_PAUSED, pause);
        self.servers.signal(&name, "CONT");
        self.all_serve();
        self.has_calm_since(&before);
    }

    /// The leader alone on its side of a cut, with clients of its own.
    #[track_caller]
    pub fn cut_leader(&mut self, cut: Cut) {
        let Leader { name, .. } = self.leader();
        let others = others(&name);
        let since = self.clients.now();
        network::cut(&self.servers, &name, &others, cut);
        let is_cut = self.clients.now();
        self.figures.note(names::LEADER_CUT, self.clients.written_since(since, &others));
        self.rest(since, FOR_LONG);
        self.says_nothing(&name, is_cut);
        network::mend(&self.servers, &name);
        self.all_serve();
    }

    /// A follower alone.
    #[track_caller]
    pub fn cut_follower(&mut self, cut: Cut) {
        let (name, before) = self.follower();
        network::cut(&self.servers, &name, &others(&name), cut);
        let is_cut = self.clients.now();
        let pause = self.pause_during(|torture| torture.rest(is_cut, FOR_LONG));
        self.figures.note(names::FOLLOWER_CUT, pause);
        self.says_nothing(&name, is_cut);
        network::mend(&self.servers, &name);
        self.all_serve();
        self.has_calm_since(&before);
    }

    /// Two followers that do not reach each other, but their leader.
    #[track_caller]
    pub fn cut_pair(&mut self) {
        let before = self.leader();
        let pair = others(&before.name);
        network::cut(&self.servers, pair[0], &pair[1..], Cut::Both);
        let pause = self.pause_during(|torture| torture.rest(torture.clients.now(), FOR_LONG));
        self.figures.note(names::PAIR_CUT, pause);
        network::mend(&self.servers, pair[0]);
        self.all_serve();
        self.has_calm_since(&before);
    }

    /// Every clock an hour ahead, back, behind, each by itself and then all at once.
    #[track_caller]
    pub fn turn_clocks(&mut self) {
        let groups: [&[&str]; 4] = [&NAMES[..1], &NAMES[1..2], &NAMES[2..], &NAMES];
        let before = self.leader();
        for group in groups {
            for seconds in [3600, 0, -3600, 3600, 0] {
                group.iter().for_each(|name| clock::turn(&self.servers, name, seconds));
                let time = Duration::from_secs(1);
                let pause = self.pause_during(|torture| torture.rest(torture.clients.now(), time));
                self.figures.note(names::CLOCKS, pause);
                for name in group {
                    let shown = clock::shown(&self.servers, name);
                    assert!((shown - seconds).abs() < 30, "{name} was turned by {seconds} s, and shows {shown}");
                }
            }
            self.all_serve();
        }
        self.has_calm_since(&before);
    }

    /// The leader's disk is almost full; others have room.
    #[track_caller]
    pub fn fill_leader(&mut self) {
        let Leader { name, .. } = self.leader();
        let since = self.clients.now();
        self.disks[&*name].fill(ALMOST_NOTHING);
        let took = self.clients.written_since(since + Duration::from_secs(1), &others(&name));
        self.figures.note(names::LEADER_FULL, took);
        self.rest(since, FOR_LONG);
        self.disks[&*name].make_room();
        self.all_serve();
    }

    /// A follower's disk is full to the last byte.
    #[track_caller]
    pub fn fill_follower(&mut self) {
        let (name, _) = self.follower();
        self.disks[&*name].fill(0);
        let pause = self.pause_during(|torture| torture.rest(torture.clients.now(), FOR_LONG));
        self.figures.note(names::FOLLOWER_FULL, pause);
        self.disks[&*name].make_room();
        self.all_serve();
    }

    /// Nobody has room: reads go on, writes are refused, and go on when there is room.
    #[track_caller]
    pub fn fill_all(&mut self) {
        self.disks.values().for_each(|disk| disk.fill(ALMOST_NOTHING));
        std::thread::sleep(Duration::from_secs(3));
        let since = self.clients.now();
        std::thread::sleep(FOR_LONG);
        let (reads, writes) = self.clients.look(|ops| {
            let later: Vec<&Op> = ops.iter().filter(|op| op.began >= since && op.answered).collect();
            let reads = later.iter().filter(|op| op.kind == super::history::Kind::Read).count();
            (reads, later.len() - reads)
        });
        assert!(reads > 0 && writes == 0, "{reads} reads and {writes} writes were answered on full disks");
        self.disks.values().for_each(OwnDisk::make_room);
        self.all_serve();
    }

    /// The leader's disk does not answer: it steps down, and comes back without an election storm.
    #[track_caller]
    pub fn stall_leader(&mut self) {
        let before = self.leader();
        let others = others(&before.name);
        let since = self.clients.now();
        self.disks[&*before.name].freeze();
        let took = self.clients.written_since(since, &others);
        self.figures.note(names::LEADER_STALLED, took);
        self.rest(since, STALL);
        let now = observer::leader(&self.servers, &others);
        assert!(now.term <= before.term + TERMS_MAX, "a storm of elections: {before:?}, then {now:?}");
        self.disks[&*before.name].thaw();
        self.all_serve();
        self.has_calm_since(&now);
    }

    /// A follower's disk does not answer.
    #[track_caller]
    pub fn stall_follower(&mut self) {
        let (name, before) = self.follower();
        self.disks[&*name].freeze();
        let pause = self.pause_during(|torture| torture.rest(torture.clients.now(), STALL));
        self.figures.note(names::FOLLOWER_STALLED, pause);
        self.disks[&*name].thaw();
        self.all_serve();
        self.has_calm_since(&before);
    }

    /// Whoever is alone answers nothing that it was asked since.
    #[track_caller]
    fn says_nothing(&self, name: &str, since: Duration) {
        let said = |op: &&Op| op.began >= since && op.answered && op.server == name;
        let said: Vec<Op> = self.clients.look(|ops| ops.iter().filter(said).cloned().collect());
        assert!(said.is_empty(), "{name} is alone since {since:?}, and says: {said:?}");
    }

    /// There were few elections since.
    #[track_caller]
    fn has_calm_since(&self, before: &Leader) {
        let now = self.leader();
        assert!(now.term <= before.term + TERMS_MAX, "a storm of elections: {before:?}, then {now:?}");
    }
}

impl Drop for Torture {
    fn drop(&mut self) {
        thaw_all(self.disks.values());
        NAMES.iter().for_each(|name| self.servers.signal(name, "CONT"));
    }
}

fn others(name: &str) -> Vec<&'static str> {
    NAMES.into_iter().filter(|other| *other != name).collect()
}
