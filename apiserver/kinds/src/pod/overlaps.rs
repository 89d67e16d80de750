//! Warns of files of one volume that would lie in each other's place.

use serde_json::Value;

use crate::json::{get, has, list, text};

/// A file of a volume and, in a projected one, where it comes from.
struct File {
    path: String,
    source: String,
}

impl File {
    fn shown(&self) -> String {
        if self.source.is_empty() { format!("{:?}", self.path) } else { format!("{:?} ({})", self.path, self.source) }
    }

    /// Whether one of the two stands where the other does, or is a folder that the other lies in.
    fn collides(&self, other: &Self) -> bool {
        let is_inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        self.path == other.path || is_inside(&self.path, &other.path) || is_inside(&other.path, &self.path)
    }
}

/// Adds the warnings about all volumes of a pod spec.
pub(super) fn warnings(spec: &Value, warnings: &mut Vec<String>) {
    for volume in list(spec, "volumes") {
        for (kind, title, name) in
            [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")]
        {
            let source = get(volume, kind);
            let about = if name.is_empty() { title.to_owned() } else { format!("{title} {:?}", text(source, name)) };
            report(volume, &about, files(source, ""), warnings);
        }
        if has(volume, "projected") {
            projected(volume, warnings);
        }
    }
}

fn projected(volume: &Value, warnings: &mut Vec<String>) {
    let mut all = Vec::new();
    for source in list(get(volume, "projected"), "sources") {
        if source.as_object().is_none_or(serde_json::Map::is_empty) {
            warnings.push(format!("volume {:?} (Projected) has no sources provided", text(volume, "name")));
            continue;
        }
        let named = |kind: &str, title: &str| {
            let part = get(source, kind);
            has(part, "items").then(|| files(part, &format!("{title} {:?}", text(part, "name"))))
        };
        let token = get(source, "serviceAccountToken");
        let found = named("configMap", "ConfigMap")
            .or_else(|| named("secret", "Secret"))
            .or_else(|| has(source, "downwardAPI").then(|| files(get(source, "downwardAPI"), "DownwardAPI")))
            .or_else(|| (!token.is_null()).then(|| vec![file(text(token, "path"), "ServiceAccountToken")]));
        all.extend(found.unwrap_or_default());
    }
    report(volume, "Projected", all, warnings);
}

fn file(path: &str, source: &str) -> File {
    File { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
}

fn files(source: &Value, title: &str) -> Vec<File> {
    list(source, "items").iter().map(|item| file(text(item, "path"), title)).collect()
}

fn report(volume: &Value, about: &str, files: Vec<File>, warnings: &mut Vec<String>) {
    let mut seen: Vec<File> = Vec::new();
    for file in files {
        for other in seen.iter().filter(|other| !file.path.is_empty() && file.collides(other)) {
            let name = text(volume, "name");
            let (one, two) = (file.shown(), other.shown());
            warnings.push(format!("volume {name:?} ({about}): overlapping paths: {one} with {two}"));
        }
        seen.push(file);
    }
}
