//! How many seats each level has, and how many it may use of those that others leave free.
//!
//! Source: KEP-1040, section "Assigning concurrency limits", and `conc_alloc.go` of Kubernetes v1.36.

use super::objects::{LevelSpec, Shape};

/// Least wish that is reckoned with: nothing is divided by zero.
const WISH_MIN: f64 = 0.001;
/// Differences below this are none.
const EPSILON: f64 = 1e-7;
/// Part of a level's seats that one request may take at most.
const SEATS_PART: f64 = 0.15;

/// The seats of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limits {
    /// By its shares.
    pub(super) nominal: u32,
    /// When others use all it lends.
    pub(super) min: u32,
    /// When it borrows all it may.
    pub(super) max: u32,
}

impl Limits {
    /// The part of `total` seats that the level has when all levels' shares come to `sum`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, not negative, and cut off")]
    pub(super) fn of(level: &LevelSpec, total: u32, sum: f64) -> Self {
        let nominal = (f64::from(total) * f64::from(level.shares) / sum).ceil() as u32;
        let part = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let borrowed = level.borrowing.map_or(total, part);
        Self { nominal, min: nominal.saturating_sub(part(level.lendable)), max: nominal.saturating_add(borrowed) }
    }

    /// With how many seats a level begins.
    pub(super) fn initial(self) -> u32 {
        self.nominal - (self.nominal - self.min) / 2
    }
}

/// Most seats that one request of the level may take; 0: the estimator's own limit holds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded and not negative")]
pub(super) fn seats_max(shape: Shape, limits: Limits) -> u32 {
    match shape {
        Shape::Queue { hand, .. } => {
            let part = (f64::from(limits.nominal) * SEATS_PART).ceil() as u32;
            part.min(limits.nominal / hand).max(1)
        }
        _ => 0,
    }
}

/// What a level asks for when seats are given out anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Claim {
    pub(super) is_exempt: bool,
    pub(super) limits: Limits,
    /// Most seats that it could have used at once since the last time.
    pub(super) peak: u32,
    /// How many it could have used on the whole, smoothed.
    pub(super) smoothed: f64,
}

impl Claim {
    /// Less it does not get as long as there is enough for all.
    pub(super) fn least(&self) -> u32 {
        match self.is_exempt {
            true => self.limits.min.max(self.peak),
            false => self.limits.min.max(self.limits.nominal.min(self.peak)),
        }
    }

    /// What it would like.
    pub(super) fn wish(&self) -> f64 {
        f64::from(self.least()).max(self.smoothed)
    }
}

/// What comes of the claims.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shared {
    /// For each claim its seats.
    pub(super) seats: Vec<u32>,
    /// What part of its wish everybody gets whom no bound holds; 0 when there is not enough for the least.
    pub(super) fair: f64,
}

/// Gives out all seats. `now` says how many each has, which stays so if the claims contradict each other.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded and not negative")]
pub(super) fn share(claims: &[Claim], now: &[u32]) -> Shared {
    let all: u32 = claims.iter().map(|claim| claim.limits.nominal).sum();
    let limited = || claims.iter().filter(|claim| !claim.is_exempt);
    let exempt: u32 = claims.iter().filter(|claim| claim.is_exempt).map(Claim::least).sum();
    let (lowest, least): (u32, u32) = (limited().map(|one| one.limits.min).sum(), limited().map(Claim::least).sum());
    let left = i64::from(all) - i64::from(exempt);
    let seats = |of: &dyn Fn(&Claim) -> u32| {
        claims.iter().map(|claim| if claim.is_exempt { claim.least() } else { of(claim) }).collect()
    };
    if left <= i64::from(lowest) {
        return Shared { seats: seats(&|claim| claim.limits.min), fair: 0.0 };
    }
    if left <= i64::from(least) {
        let part = (left - i64::from(lowest)) as f64 / f64::from(least - lowest);
        let between =
            |claim: &Claim| claim.limits.min + (f64::from(claim.least() - claim.limits.min) * part).round() as u32;
        return Shared { seats: seats(&between), fair: 0.0 };
    }
    let bounded: Vec<Bounded> = limited()
        .map(|claim| Bounded { wish: claim.wish(), low: f64::from(claim.least()), high: f64::from(claim.limits.max) })
        .collect();
    let Some((given, fair)) = allocate(f64::from(all), &bounded) else {
        return Shared { seats: now.to_vec(), fair: 0.0 };
    };
    let mut given = given.into_iter();
    let seats = claims.iter().map(|claim| match claim.is_exempt {
        true => claim.least(),
        false => given.next().unwrap_or(0.0).round() as u32,
    });
    Shared { seats: seats.collect(), fair }
}

/// One who wishes for something, but takes no less and no more than.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bounded {
    wish: f64,
    low: f64,
    high: f64,
}

/// Divides `all` so that everybody gets the same part of his wish, or meets his bound; that part is the second answer.
/// `None` when it cannot be done.
fn allocate(all: f64, claims: &[Bounded]) -> Option<(Vec<f64>, f64)> {
    let claims: Vec<Bounded> = claims.iter().map(|one| Bounded { wish: one.wish.max(WISH_MIN), ..*one }).collect();
    if claims.iter().any(|one| one.wish < one.low || one.high < one.low) {
        return None;
    }
    let (lows, highs) = (claims.iter().map(|one| one.low).sum::<f64>(), claims.iter().map(|one| one.high).sum::<f64>());
    if lows - all > EPSILON || all - highs > EPSILON {
        return None;
    }
    // The parts at which somebody begins, or ceases, to get more.
    let mut turns: Vec<(f64, f64)> = Vec::with_capacity(2 * claims.len());
    for one in &claims {
        turns.extend([(one.low / one.wish, one.wish), (one.high / one.wish, -one.wish)]);
    }
    turns.sort_by(|one, other| one.0.total_cmp(&other.0));
    let lowest = turns.first().map_or(0.0, |turn| turn.0);
    let (mut part, mut given, mut growth) = (lowest, lows, 0.0_f64);
    for (turn, change) in turns {
        let more = (turn - part) * growth;
        if given + more >= all {
            break;
        }
        (part, given, growth) = (turn, given + more, growth + change);
    }
    if all > given && growth > EPSILON {
        part += (all - given) / growth;
    }
    Some((claims.iter().map(|one| (part * one.wish).clamp(one.low, one.high)).collect(), part))
}

#[cfg(test)]
mod tests {
    use reeve_kinds::bootstrap;

    use super::*;

    fn levels() -> Vec<LevelSpec> {
        let objects = [bootstrap::mandatory_priority_levels(), bootstrap::suggested_priority_levels()].concat();
        objects.into_iter().filter_map(LevelSpec::read).collect()
    }

    fn claims(demand: impl Fn(&str) -> (u32, f64)) -> Vec<(String, Claim)> {
        let levels = levels();
        let sum = levels.iter().map(|level| f64::from(level.shares)).sum();
        let claim = |level: LevelSpec| {
            let (peak, smoothed) = demand(&level.name);
            let limits = Limits::of(&level, 600, sum);
            let is_exempt = level.shape == Shape::Exempt;
            (level.name, Claim { is_exempt, limits, peak, smoothed })
        };
        levels.into_iter().map(claim).collect()
    }

    fn shared(demand: impl Fn(&str) -> (u32, f64)) -> Vec<(String, u32)> {
        let (names, claims): (Vec<_>, Vec<_>) = claims(demand).into_iter().unzip();
        names.into_iter().zip(share(&claims, &vec![1; claims.len()]).seats).collect()
    }

    fn of(shared: &[(String, u32)], name: &str) -> u32 {
        shared.iter().find(|(own, _)| own == name).unwrap().1
    }

    #[test]
    fn the_built_in_levels_have_the_seats_that_they_have_in_kubernetes() {
        let claims = claims(|_| (0, 0.0));
        let limits = |name: &str| {
            let Limits { nominal, min, .. } = claims.iter().find(|(own, _)| own == name).unwrap().1.limits;
            (nominal, min)
        };
        assert_eq!(limits("catch-all"), (13, 13));
        assert_eq!(limits("exempt"), (0, 0));
        assert_eq!(limits("global-default"), (49, 24));
        assert_eq!(limits("leader-election"), (25, 25));
        assert_eq!(limits("node-high"), (98, 73));
        assert_eq!(limits("system"), (74, 50));
        assert_eq!(limits("workload-high"), (98, 49));
        assert_eq!(limits("workload-low"), (245, 24));
    }

    #[test]
    fn without_demand_the_seats_are_given_out_as_in_kubernetes() {
        // What kube-apiserver 1.36.2 with its defaults tells of itself while one request at a time is exempt.
        let given = shared(|name| if name == "exempt" { (1, 21.35) } else { (0, 0.0) });
        for (name, seats) in [
            ("catch-all", 30),
            ("exempt", 1),
            ("global-default", 56),
            ("leader-election", 58),
            ("node-high", 170),
            ("system", 117),
            ("workload-high", 114),
            ("workload-low", 56),
        ] {
            assert_eq!(of(&given, name), seats, "{name}");
        }
    }

    #[test]
    fn a_level_under_load_borrows_what_others_lend_and_leaves_them_what_they_do_not() {
        let given = shared(|name| if name == "global-default" { (600, 600.0) } else { (0, 0.0) });
        let claims = claims(|_| (0, 0.0));
        for (name, claim) in &claims {
            assert!(of(&given, name) >= claim.limits.min, "{name}");
        }
        assert!(of(&given, "global-default") > 300, "{given:?}");
        assert!(given.iter().map(|(_, seats)| seats).sum::<u32>() <= 610);
    }

    #[test]
    fn everybody_under_load_has_his_nominal_seats() {
        let given = shared(|name| if name == "exempt" { (0, 0.0) } else { (600, 600.0) });
        for (name, claim) in claims(|_| (0, 0.0)) {
            assert_eq!(of(&given, &name), claim.limits.nominal, "{name}");
        }
    }

    #[test]
    fn what_exempt_requests_take_is_missing_elsewhere_but_never_more_than_what_is_lent() {
        let busy =
            |exempt: u32| shared(move |name| if name == "exempt" { (exempt, f64::from(exempt)) } else { (600, 600.0) });
        let some = busy(100);
        assert!(of(&some, "workload-low") < 245 && of(&some, "workload-low") > 24);
        assert_eq!(of(&some, "leader-election"), 25);
        let all = busy(5000);
        for (name, claim) in claims(|_| (0, 0.0)).into_iter().filter(|(name, _)| name != "exempt") {
            assert_eq!(of(&all, &name), claim.limits.min, "{name}");
        }
    }

    #[test]
    fn seats_are_divided_by_wishes_within_bounds() {
        let one = |wish, low, high| Bounded { wish, low, high };
        let (given, part) = allocate(10.0, &[one(2.0, 0.0, 20.0), one(3.0, 0.0, 20.0)]).unwrap();
        assert_eq!((given, part), (vec![4.0, 6.0], 2.0));
        let (given, _) = allocate(10.0, &[one(2.0, 0.0, 20.0), one(3.0, 0.0, 5.0)]).unwrap();
        assert_eq!(given, [5.0, 5.0]);
        let (given, _) = allocate(10.0, &[one(8.0, 8.0, 20.0), one(8.0, 1.0, 20.0)]).unwrap();
        assert_eq!(given, [8.0, 2.0]);
        assert_eq!(allocate(10.0, &[one(2.0, 0.0, 3.0)]), None);
        assert_eq!(allocate(1.0, &[one(2.0, 2.0, 3.0)]), None);
        assert_eq!(allocate(5.0, &[one(1.0, 2.0, 9.0)]), None);
    }

    #[test]
    fn one_request_takes_no_more_than_a_part_of_a_level() {
        let of = |hand, nominal| {
            seats_max(Shape::Queue { queues: 64, hand, length: 50 }, Limits { nominal, min: 0, max: 0 })
        };
        assert_eq!((of(6, 98), of(6, 49), of(6, 245), of(6, 3)), (15, 8, 37, 1));
        assert_eq!(seats_max(Shape::Reject, Limits { nominal: 100, min: 0, max: 0 }), 0);
    }
}
