//! Columns of text, aligned as kubectl aligns them.

use std::fmt::Write as _;

use serde_json::Value;

/// Narrowest column and the gap behind each, as in kubectl's tabwriter.
const COLUMN_MIN: usize = 6;
const GAP: usize = 3;

/// A server's `meta.k8s.io/v1` Table, as far as it is printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Headings, in capitals.
    pub headings: Vec<String>,
    /// The rows' cells.
    pub rows: Vec<Vec<String>>,
}

/// What is added to or left out of the server's table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableOptions {
    /// Show the columns of lower priority too.
    pub wide: bool,
    /// Show the namespace first.
    pub namespace: bool,
    /// Show all labels last.
    pub labels: bool,
    /// A column for each of these labels.
    pub label_columns: Vec<String>,
    /// Put this before each name, `deployment.apps`.
    pub kind: Option<String>,
}

impl Table {
    /// Reads the server's table. `columns` are the definitions when the table itself has none (later watch events).
    pub(crate) fn read(table: &Value, columns: &[Value], options: &TableOptions) -> Self {
        let own = table.get("columnDefinitions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let columns = if own.is_empty() { columns } else { own };
        let shown: Vec<bool> = columns
            .iter()
            .map(|column| options.wide || column.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0)
            .collect();
        let mut headings = Vec::new();
        headings.extend(options.namespace.then(|| "NAMESPACE".to_owned()));
        let visible = columns.iter().zip(&shown).filter(|(_, shown)| **shown);
        headings.extend(visible.map(|(column, _)| text(column.get("name")).to_uppercase()));
        headings.extend(options.label_columns.iter().map(|label| heading_of_label(label)));
        headings.extend(options.labels.then(|| "LABELS".to_owned()));
        let rows = table.get("rows").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Self { headings, rows: rows.iter().map(|row| row_cells(row, &shown, options)).collect() }
    }

    /// The aligned text, with headings unless told otherwise. `widths` remembers the columns' widths between calls.
    pub(crate) fn print(&self, headings: bool, widths: &mut Vec<usize>) -> String {
        let lines: Vec<&Vec<String>> = headings.then_some(&self.headings).into_iter().chain(&self.rows).collect();
        align(&lines, widths)
    }
}

/// Aligns rows of cells: every column but a row's last is padded.
pub(crate) fn align(lines: &[&Vec<String>], widths: &mut Vec<usize>) -> String {
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            if widths.len() <= index {
                widths.push(0);
            }
            let last = index + 1 == line.len();
            if !last {
                widths[index] = widths[index].max(COLUMN_MIN).max(cell.chars().count() + GAP);
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            if index + 1 == line.len() {
                text.push_str(cell);
            } else {
                let _ = write!(text, "{cell:<width$}", width = widths[index]);
            }
        }
        text.push('\n');
    }
    text
}

fn heading_of_label(label: &str) -> String {
    label.rsplit('/').next().unwrap_or(label).to_uppercase()
}

fn row_cells(row: &Value, shown: &[bool], options: &TableOptions) -> Vec<String> {
    let meta = |field: &str| row.pointer(&format!("/object/metadata/{field}"));
    let cells = row.get("cells").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut line = Vec::with_capacity(cells.len() + 2);
    line.extend(options.namespace.then(|| text(meta("namespace"))));
    for (index, (cell, _)) in cells.iter().zip(shown).enumerate().filter(|(_, (_, shown))| **shown) {
        let mut cell = first_line(&text(Some(cell)));
        if let Some(kind) = options.kind.as_ref().filter(|_| index == 0) {
            cell = format!("{kind}/{cell}");
        }
        line.push(cell);
    }
    let labels = meta("labels").and_then(Value::as_object);
    let label = |name: &String| labels.and_then(|own| own.get(name)).and_then(Value::as_str).unwrap_or_default();
    line.extend(options.label_columns.iter().map(|name| label(name).to_owned()));
    if options.labels {
        let all: Vec<String> =
            labels.into_iter().flatten().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        line.push(if all.is_empty() { "<none>".to_owned() } else { all.join(",") });
    }
    line
}

/// A cell is one line: what follows is hidden behind an ellipsis, and control characters are shown, not obeyed.
fn first_line(text: &str) -> String {
    let (line, rest) = text.split_once(['\n', '\r', '\x0c']).map_or((text, None), |(line, rest)| (line, Some(rest)));
    let safe = line.replace('\x1b', "^[").replace('\t', " ");
    if rest.is_some() { format!("{safe}...") } else { safe }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::Null) => "<none>".to_owned(),
        Some(value) => plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Value {
        json!({"columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "d", "labels": {"app": "web"}}}},
                {"cells": ["a-long-name", "0/1", null], "object": {"metadata": {"namespace": "default"}}}]})
    }

    #[track_caller]
    fn check(options: &TableOptions, expected: &str) {
        assert_eq!(Table::read(&pods(), &[], options).print(true, &mut Vec::new()), expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_spaces() {
        check(&TableOptions::default(), "NAME          READY\nweb           1/1\na-long-name   0/1\n");
    }

    #[test]
    fn wide_namespace_and_labels_add_columns() {
        let options = TableOptions { wide: true, namespace: true, labels: true, ..TableOptions::default() };
        check(
            &options,
            "NAMESPACE   NAME          READY   IP         LABELS\n\
             d           web           1/1     10.0.0.1   app=web\n\
             default     a-long-name   0/1     <none>     <none>\n",
        );
    }

    #[test]
    fn escape_sequences_in_cells_are_shown_and_not_obeyed() {
        let table = json!({"columnDefinitions": [{"name": "Name"}], "rows": [{"cells": ["\u{1b}[31mred\nmore"]}]});
        let printed = Table::read(&table, &[], &TableOptions::default()).print(false, &mut Vec::new());
        assert_eq!(printed, "^[[31mred...\n");
    }
}
