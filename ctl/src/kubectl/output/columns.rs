//! `-o custom-columns=HEADING:path,…`

use serde_json::Value;

use super::jsonpath::Template;
use super::table::align;

/// Headings and the paths of their cells.
#[derive(Debug, Clone)]
pub(crate) struct Columns(Vec<(String, Template)>);

impl Columns {
    /// Reads `NAME:.metadata.name,NODE:.spec.nodeName`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("custom-columns format specified but no custom columns given".to_owned());
        }
        let column = |part: &str| {
            let (heading, path) = part
                .split_once(':')
                .ok_or_else(|| format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"))?;
            Self::column(heading, path)
        };
        text.split(',').map(column).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a file with a line of headings and a line of paths.
    pub(crate) fn parse_file(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let (headings, paths) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let pairs = headings.split_whitespace().zip(paths.split_whitespace());
        let columns: Vec<_> = pairs.map(|(heading, path)| Self::column(heading, path)).collect::<Result<_, _>>()?;
        if columns.is_empty() {
            Err("the file must have a line of headings and a line of paths".to_owned())
        } else {
            Ok(Self(columns))
        }
    }

    fn column(heading: &str, path: &str) -> Result<(String, Template), String> {
        let inner = path.trim_start_matches('{').trim_end_matches('}');
        let dotted =
            if inner.starts_with('.') || inner.starts_with('[') { inner.to_owned() } else { format!(".{inner}") };
        Ok((heading.to_owned(), Template::parse(&format!("{{{dotted}}}"))?))
    }

    /// The aligned table of these objects.
    pub(crate) fn print(&self, objects: &[Value]) -> String {
        let headings: Vec<String> = self.0.iter().map(|(heading, _)| heading.clone()).collect();
        let row = |object: &Value| -> Vec<String> {
            let cell = |template: &Template| {
                let values = template.values(object).unwrap_or_default();
                let texts: Vec<String> = values.iter().map(super::jsonpath::text_of).collect();
                if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
            };
            self.0.iter().map(|(_, template)| cell(template)).collect()
        };
        let rows: Vec<Vec<String>> = objects.iter().map(row).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&headings).chain(&rows).collect();
        align(&lines, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_what_the_paths_find_and_none_where_nothing_is() {
        let columns =
            Columns::parse("NAME:.metadata.name,IMAGES:spec.containers[*].image,NODE:.spec.nodeName").expect("parsed");
        let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"image": "a"}, {"image": "b"}]}});
        assert_eq!(columns.print(&[pod]), "NAME   IMAGES   NODE\nweb    a,b      <none>\n");
        assert!(Columns::parse("NAME").is_err());
    }
}
