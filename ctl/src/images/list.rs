//! The table of `reeve image ls`, with Docker's columns and words. Pure.

use jiff::Timestamp;
use reeve_engine::engine::Image;
use reeve_engine::images::Reference;
use serde_json::Value;

use crate::kubectl::output::table;

/// What stands for a name that is not there.
const NONE: &str = "<none>";
/// Characters of a step that a table shows.
const STEP_LEN_MAX: usize = 45;

/// Names as people write them, `nginx:1.27`.
pub(super) fn names(image: &Image) -> Vec<String> {
    let familiar = |name: &String| Reference::parse(name).map_or_else(|_| name.clone(), |own| own.familiar());
    image.tags.iter().map(familiar).collect()
}

/// The first twelve digits of the id.
pub(super) fn short_id(image: &Image) -> &str {
    let digits = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    digits.get(..12).unwrap_or(digits)
}

/// In Docker's order.
pub(super) fn newest_first(mut images: Vec<Image>) -> Vec<Image> {
    images.sort_by_key(|image| std::cmp::Reverse(image.created_at));
    images
}

/// One row per name; an image without a name has one row all the same.
pub(super) fn table(images: &[Image], now: Timestamp) -> String {
    let mut lines = vec![["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned).to_vec()];
    for image in images {
        let created = image.created_at.map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", age(now, at)));
        let row = |repository: &str, tag: &str| {
            [repository, tag, short_id(image), &created, &size(image.size_bytes)].map(str::to_owned).to_vec()
        };
        let names = names(image);
        lines.extend(names.iter().map(|name| {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, NONE));
            row(repository, tag)
        }));
        if names.is_empty() {
            lines.push(row(NONE, NONE));
        }
    }
    table::align(&lines.iter().collect::<Vec<_>>(), &mut Vec::new())
}

/// The steps of an image, the last first, with Docker's columns. `sizes` are those of its layers, lowest first.
pub(super) fn history(config: &Value, sizes: &[u64], whole: bool, now: Timestamp) -> String {
    let text = |step: &Value, key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut sizes, mut rows) = (sizes.iter(), Vec::new());
    for step in config.get("history").and_then(Value::as_array).into_iter().flatten() {
        let empty = step.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
        let bytes = if empty { 0 } else { sizes.next().copied().unwrap_or(0) };
        let at: Option<Timestamp> = text(step, "created").parse().ok();
        let created = at.map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", age(now, at)));
        let by = text(step, "created_by");
        let by = if whole { by } else { shortened(&by) };
        rows.push(vec![created, by, size(bytes), text(step, "comment")]);
    }
    rows.push(["CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec());
    table::align(&rows.iter().rev().collect::<Vec<_>>(), &mut Vec::new())
}

/// At most 45 characters, on one line.
fn shortened(text: &str) -> String {
    let text = text.replace(['\n', '\t'], " ");
    if text.chars().count() <= STEP_LEN_MAX {
        return text;
    }
    text.chars().take(STEP_LEN_MAX - 1).chain(['…']).collect()
}

/// `7.84MB`: three digits, units of a thousand.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut amount = bytes as f64 / 1000.0;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    let decimals = if amount >= 99.95 { 0 } else { usize::from(amount < 9.995) + 1 };
    let text = format!("{amount:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// `About an hour`, `3 weeks`: Docker's rough durations.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (7_841_000, "7.84MB"),
            (72_800_000, "72.8MB"),
            (187_400_000, "187MB"),
            (999_900, "1MB"),
            (2_500_000_000, "2.5GB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn ages_are_dockers() {
        let check = |seconds: i64, expected: &str| {
            let now = Timestamp::from_second(10_i64.pow(9)).expect("a time");
            let then = Timestamp::from_second(10_i64.pow(9) - seconds).expect("a time");
            assert_eq!(age(now, then), expected);
        };
        check(-5, "Less than a second");
        check(59, "59 seconds");
        check(90, "About a minute");
        check(3600, "About an hour");
        check(47 * 3600, "47 hours");
        check(13 * 86400, "13 days");
        check(15 * 86400, "2 weeks");
        check(90 * 86400, "3 months");
    }

    #[test]
    fn history_shows_the_last_step_first_and_the_size_of_its_layer() {
        let config = serde_json::json!({ "history": [
            { "created": "1970-01-01T00:00:00Z", "created_by": "COPY a /\tx", "comment": "reeve build" },
            { "created_by": "CMD ".to_owned() + &"x".repeat(60), "empty_layer": true },
        ]});
        let now = Timestamp::from_second(120).expect("a time");
        let expected = format!(
            "CREATED         CREATED BY                                      SIZE   COMMENT\n\
             N/A             CMD {}…   0B     \n\
             2 minutes ago   COPY a / x                                      2kB    reeve build\n",
            "x".repeat(40)
        );
        assert_eq!(history(&config, &[2000], false, now), expected);
        assert!(history(&config, &[2000], true, now).contains(&"x".repeat(60)));
    }

    #[test]
    fn every_name_has_a_row_and_an_image_without_one_is_shown_too() {
        let image = |tags: &[&str]| Image {
            id: format!("sha256:{}", "0123456789ab".repeat(5)),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            digests: Vec::new(),
            size_bytes: 5_000_000,
            created_at: None,
            user: String::new(),
        };
        let images = [image(&["docker.io/library/web:1", "localhost:5000/web:2"]), image(&[])];
        let expected = "REPOSITORY           TAG      IMAGE ID       CREATED   SIZE\n\
                        web                  1        0123456789ab   N/A       5MB\n\
                        localhost:5000/web   2        0123456789ab   N/A       5MB\n\
                        <none>               <none>   0123456789ab   N/A       5MB\n";
        assert_eq!(table(&images, Timestamp::UNIX_EPOCH), expected);
    }
}
