//! Lists of indexes of an Indexed Job: `1,3-5,7`.

/// How many indexes a list names, each below `completions`.
///
/// # Errors
/// What is wrong with the list, in Kubernetes' words.
pub(super) fn count(list: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<_> = part.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts \
             separated by '-'"
        ));
    }
    let number = |text: &str| {
        let number: i64 = text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    let first = number(limits[0])?;
    let Some(end) = limits.get(1) else { return Ok((first, first)) };
    let end = number(end)?;
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}

/// The first index that two lists share; parts that cannot be read count as nothing.
pub(super) fn overlap(some: &str, others: &str, completions: i64) -> Option<i64> {
    let parts =
        |list: &str| -> Vec<_> { list.split(',').filter_map(|part| interval(part, completions).ok()).collect() };
    let (some, others) = (parts(some), parts(others));
    let (mut one, mut other) = (some.iter().peekable(), others.iter().peekable());
    while let (Some((first, end)), Some((other_first, other_end))) = (one.peek(), other.peek()) {
        if first <= other_end && other_first <= end {
            return Some(*first.max(other_first));
        }
        if first <= other_first {
            one.next();
        } else {
            other.next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_indexes_is_counted_or_refused() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("0,2-4,7", 8), Ok(5));
        for (list, complaint) in [
            ("8", "too large index: \"8\""),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("3-3", "non-increasing order, previous: 3, current: 3"),
            ("3,2", "non-increasing order, previous: 3, current: 2"),
        ] {
            assert_eq!(count(list, 8), Err(complaint.to_owned()), "{list}");
        }
    }

    #[test]
    fn what_two_lists_share_is_found() {
        assert_eq!(overlap("0,2-4", "1,5", 8), None);
        assert_eq!(overlap("0,2-4", "4-6", 8), Some(4));
        assert_eq!(overlap("x,2", "2", 8), Some(2));
        assert_eq!(overlap("", "2", 8), None);
    }
}
