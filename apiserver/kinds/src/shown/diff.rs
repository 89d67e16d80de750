//! What differs between two texts, line by line, as kube-apiserver shows it: a unified diff with three lines around.
//!
//! Which lines count as the same is decided as Python's `difflib` does it, which the library behind kube-apiserver
//! follows: the longest run of equal lines first, then what is left of it and right of it.

use std::collections::HashMap;

/// Lines shown around a change.
const CONTEXT: usize = 3;

/// From so many lines on, lines that stand more often than one in a hundred are not started from.
const POPULAR_FROM: usize = 200;

/// A run of lines: equal when `same`, else what stands in the one text and in the other.
#[derive(Debug, Clone, Copy)]
struct Run {
    same: bool,
    old: (usize, usize),
    new: (usize, usize),
}

/// The unified diff of two texts in lines; empty when they are equal.
pub(super) fn unified(old: &[String], new: &[String]) -> String {
    let mut text = String::new();
    for group in grouped(runs(old, new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let ranges = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        text.push_str(&format!("@@ -{} +{} @@\n", ranges.0, ranges.1));
        let mut write = |sign: char, lines: &[String]| {
            for line in lines {
                text.push(sign);
                text.push_str(line);
                text.push('\n');
            }
        };
        for run in group {
            if run.same {
                write(' ', &old[run.old.0..run.old.1]);
            } else {
                write('-', &old[run.old.0..run.old.1]);
                write('+', &new[run.new.0..run.new.1]);
            }
        }
    }
    text
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    }
}

/// Equal and unequal runs that together are both texts.
fn runs(old: &[String], new: &[String]) -> Vec<Run> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(index);
    }
    if new.len() >= POPULAR_FROM {
        places.retain(|_, found| found.len() <= new.len() / 100 + 1);
    }
    let mut blocks = Vec::new();
    matching(old, new, &places, (0, old.len()), (0, new.len()), &mut blocks);
    blocks.push((old.len(), new.len(), 0));
    let (mut runs, mut at): (Vec<Run>, (usize, usize)) = (Vec::new(), (0, 0));
    for (from_old, from_new, length) in blocks {
        if at != (from_old, from_new) {
            runs.push(Run { same: false, old: (at.0, from_old), new: (at.1, from_new) });
        }
        at = (from_old + length, from_new + length);
        match runs.last_mut().filter(|last| last.same) {
            Some(last) => (last.old.1, last.new.1) = at,
            None if length > 0 => runs.push(Run { same: true, old: (from_old, at.0), new: (from_new, at.1) }),
            None => {}
        }
    }
    runs
}

/// Collects the blocks of equal lines in order: where they start in both, and how long they are.
fn matching(
    old: &[String],
    new: &[String],
    places: &HashMap<&str, Vec<usize>>,
    in_old: (usize, usize),
    in_new: (usize, usize),
    blocks: &mut Vec<(usize, usize, usize)>,
) {
    let (from_old, from_new, length) = longest(old, new, places, in_old, in_new);
    if length == 0 {
        return;
    }
    if in_old.0 < from_old && in_new.0 < from_new {
        matching(old, new, places, (in_old.0, from_old), (in_new.0, from_new), blocks);
    }
    blocks.push((from_old, from_new, length));
    let (next_old, next_new) = (from_old + length, from_new + length);
    if next_old < in_old.1 && next_new < in_new.1 {
        matching(old, new, places, (next_old, in_old.1), (next_new, in_new.1), blocks);
    }
}

fn longest(
    old: &[String],
    new: &[String],
    places: &HashMap<&str, Vec<usize>>,
    in_old: (usize, usize),
    in_new: (usize, usize),
) -> (usize, usize, usize) {
    let (mut start_old, mut start_new, mut length) = (in_old.0, in_new.0, 0);
    let mut before: HashMap<usize, usize> = HashMap::new();
    for (index, line) in old.iter().enumerate().take(in_old.1).skip(in_old.0) {
        let mut now = HashMap::new();
        let found = places.get(line.as_str()).into_iter().flatten().copied();
        for place in found.filter(|place| (in_new.0..in_new.1).contains(place)) {
            let so_far = place.checked_sub(1).and_then(|place| before.get(&place)).copied().unwrap_or_default() + 1;
            now.insert(place, so_far);
            if so_far > length {
                (start_old, start_new, length) = (index + 1 - so_far, place + 1 - so_far, so_far);
            }
        }
        before = now;
    }
    while start_old > in_old.0 && start_new > in_new.0 && old[start_old - 1] == new[start_new - 1] {
        (start_old, start_new, length) = (start_old - 1, start_new - 1, length + 1);
    }
    while start_old + length < in_old.1
        && start_new + length < in_new.1
        && old[start_old + length] == new[start_new + length]
    {
        length += 1;
    }
    (start_old, start_new, length)
}

/// The runs in groups that are shown together: equal lines beyond the context are left out.
fn grouped(mut runs: Vec<Run>) -> Vec<Vec<Run>> {
    let cut_start = |run: &mut Run| {
        run.old.0 = run.old.0.max(run.old.1.saturating_sub(CONTEXT));
        run.new.0 = run.new.0.max(run.new.1.saturating_sub(CONTEXT));
    };
    let cut_end = |run: &mut Run| {
        run.old.1 = run.old.1.min(run.old.0 + CONTEXT);
        run.new.1 = run.new.1.min(run.new.0 + CONTEXT);
    };
    if let Some(first) = runs.first_mut().filter(|run| run.same) {
        cut_start(first);
    }
    if let Some(last) = runs.last_mut().filter(|run| run.same) {
        cut_end(last);
    }
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    for mut run in runs {
        if run.same && run.old.1 - run.old.0 > 2 * CONTEXT {
            let mut end = run;
            cut_end(&mut end);
            group.push(end);
            groups.push(std::mem::take(&mut group));
            cut_start(&mut run);
        }
        group.push(run);
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|run| !run.same));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(unified(&lines(old), &lines(new)), expected.replace(' ', "\n").replace('_', " "));
    }

    #[test]
    fn changes_are_shown_with_three_lines_around() {
        check("a b c d e f g h", "a b c d e f g h", "");
        check("a b c d e f g h", "a b c d X f g h", "@@_-2,7_+2,7_@@ _b _c _d -e +X _f _g _h ");
        check(
            "1 a b c d e f g h i 2",
            "a b c d e f g h i 3 2",
            "@@_-1,4_+1,3_@@ -1 _a _b _c @@_-8,4_+7,5_@@ _g _h _i +3 _2 ",
        );
        check("a", "b", "@@_-1_+1_@@ -a +b ");
    }
}
