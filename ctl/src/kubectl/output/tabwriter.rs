//! Text in columns, as Go's `text/tabwriter` makes them: a column is a run of lines with a cell at that place.

/// Gap behind a cell, as kubectl's describers use it.
const PADDING: usize = 2;

/// Aligns cells that are separated by tabs.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len().saturating_sub(1)]).collect();
    measure(&lines, &mut widths, 0, 0..lines.len());
    let mut out = String::with_capacity(text.len() * 2);
    for (line, widths) in lines.iter().zip(&widths) {
        for (index, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(index) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

/// Gives every run of lines that have a cell in this column one width, then does the next column inside the run.
fn measure(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, range: std::ops::Range<usize>) {
    let mut at = range.start;
    while at < range.end {
        if lines[at].len() <= column + 1 {
            at += 1;
            continue;
        }
        let end = (at..range.end).find(|line| lines[*line].len() <= column + 1).unwrap_or(range.end);
        let widest = lines[at..end].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        // A column without text is as wide as the gap.
        let width = widest + PADDING;
        widths[at..end].iter_mut().for_each(|own| own[column] = width);
        measure(lines, widths, column + 1, at..end);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_ends_where_a_line_has_no_cell_in_it() {
        let text = "Name:\tweb\nNamespace:\tdefault\nContainers:\n  Image:\tx\n  Port:\t80/TCP\n";
        let expected = "Name:       web\nNamespace:  default\nContainers:\n  Image:  x\n  Port:   80/TCP\n";
        assert_eq!(align(text), expected);
    }
}
