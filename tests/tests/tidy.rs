//! The style of the project as tests: each message says what to do instead.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test that calls them")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use reeve_tests::source::{files, functions, root, without_tests};

/// No function may be longer.
const FUNCTION_LINES_MAX: usize = 70;
/// No file may be longer.
const FILE_LINES_MAX: usize = 800;
/// Longest line, as rustfmt is set; texts that cannot be broken may be longer.
const LINE_CHARS_MAX: usize = 120;

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).expect("a source file is readable")
}

#[track_caller]
fn report(rule: &str, offences: &[String]) {
    let mut text = String::new();
    for offence in offences {
        let _ = writeln!(text, "  {offence}");
    }
    assert!(offences.is_empty(), "{rule}\n{text}");
}

fn is_test_code(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with("tests/") || text.contains("/tests/") || text.ends_with("tests.rs") || text.contains("/benches/")
}

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    let offences: Vec<String> = files(".rs")
        .iter()
        .filter(|path| !read(path).starts_with("//! "))
        .map(|path| path.display().to_string())
        .collect();
    report("the first line of a file is `//! …`: what it is for, in a sentence", &offences);
}

#[test]
fn functions_stay_short() {
    let mut offences = Vec::new();
    for path in files(".rs").iter().filter(|path| !is_test_code(path)) {
        for function in functions(without_tests(&read(path))) {
            if function.lines > FUNCTION_LINES_MAX {
                offences.push(format!("{}:{} {} has {}", path.display(), function.line, function.name, function.lines));
            }
        }
    }
    report("no function over 70 lines: move decisions up and loops down", &offences);
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let mut offences = Vec::new();
    for path in files(".rs").iter().filter(|path| !is_test_code(path)) {
        let lines = without_tests(&read(path)).lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{} has {lines}", path.display()));
        }
    }
    report("no file over 800 lines: split it by what its parts are about", &offences);
}

#[test]
fn lines_fit_the_width_rustfmt_is_set_to() {
    let mut offences = Vec::new();
    for path in files(".rs").iter().filter(|path| !is_test_code(path)) {
        for (index, line) in read(path).lines().enumerate() {
            let breakable = !line.contains('"') && !line.contains("://");
            if line.chars().count() > LINE_CHARS_MAX && breakable {
                offences.push(format!("{}:{}", path.display(), index + 1));
            }
        }
    }
    report("lines have at most 120 characters", &offences);
}

#[test]
fn what_is_left_to_do_is_an_issue_and_not_a_mark_in_the_code() {
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
    ];
    let mut offences = Vec::new();
    for path in files(".rs") {
        for (index, line) in read(&path).lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                offences.push(format!("{}:{} {mark}", path.display(), index + 1));
            }
        }
    }
    report("finish it, or open an issue and leave it out", &offences);
}

/// The allowed crate graph: who may depend on whom, as in ARCHITECTURE.md. `reeve` and `reeve-tests` may use all.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("reeve-proto", &[][..]),
        ("reeve-api", &[][..]),
        ("reeve-client", &["reeve-api"][..]),
        ("reeve-store", &["reeve-api", "reeve-proto"][..]),
        ("reeve-peer", &["reeve-proto", "reeve-store"][..]),
        ("reeve-etcd", &["reeve-api", "reeve-proto", "reeve-store"][..]),
        ("reeve-cel", &["reeve-api"][..]),
        ("reeve-kinds", &["reeve-api", "reeve-cel"][..]),
        ("reeve-apiserver", &["reeve-api", "reeve-cel", "reeve-kinds", "reeve-store"][..]),
        ("reeve-scheduler", &["reeve-api", "reeve-client"][..]),
        ("reeve-controller-manager", &["reeve-api", "reeve-client"][..]),
        ("reeve-engine", &["reeve-api"][..]),
        ("reeve-streaming", &["reeve-engine"][..]),
        ("reeve-cri", &["reeve-api", "reeve-engine", "reeve-proto", "reeve-streaming"][..]),
        ("reeve-nft", &[][..]),
        ("reeve-node-agent", &["reeve-api", "reeve-client", "reeve-engine", "reeve-nft", "reeve-streaming"][..]),
        ("reeve-proxy", &["reeve-api", "reeve-client", "reeve-nft"][..]),
        ("guestbook", &[][..]),
    ])
}

struct Manifest {
    path: String,
    name: String,
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let mut found = Vec::new();
    for path in files("Cargo.toml") {
        let text = read(&path);
        let Some(name) = text.lines().find_map(|line| line.strip_prefix("name = ")) else { continue };
        let mut section = "";
        let mut dependencies = Vec::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section == "[dependencies]" && !line.trim().is_empty() && !line.starts_with('#') {
                let key = line.split(['.', ' ', '=']).next().unwrap_or_default();
                dependencies.push(key.to_owned());
            }
        }
        found.push(Manifest {
            path: path.display().to_string(),
            name: name.trim_matches('"').to_owned(),
            dependencies,
        });
    }
    found
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let allowed = allowed();
    let mut offences = Vec::new();
    for manifest in manifests() {
        let Some(may) = allowed.get(manifest.name.as_str()) else { continue };
        for dependency in manifest.dependencies.iter().filter(|name| name.starts_with("reeve-")) {
            if !may.contains(&dependency.as_str()) {
                offences.push(format!("{} -> {dependency}", manifest.name));
            }
        }
    }
    report("a new arrow between crates is an architecture change: ARCHITECTURE.md and this table first", &offences);
}

#[test]
fn dependencies_are_sorted() {
    let offences: Vec<String> = manifests()
        .into_iter()
        .filter(|manifest| !manifest.dependencies.is_sorted())
        .map(|manifest| manifest.path)
        .collect();
    report("[dependencies] is in alphabetical order", &offences);
}

#[test]
fn every_crate_inherits_the_lints() {
    let offences: Vec<String> = manifests()
        .into_iter()
        .filter(|manifest| !read(Path::new(&manifest.path)).contains("[lints]\nworkspace = true"))
        .map(|manifest| manifest.path)
        .collect();
    report("each Cargo.toml has `[lints]` with `workspace = true`", &offences);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let link =
        regex::Regex::new(r"\]\(([^)#:\s]+)\)|`((?:[a-z-]+/)+[\w.-]+\.(?:rs|sh|md|yaml|toml))`").expect("a pattern");
    let mut offences = Vec::new();
    for path in files(".md") {
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for found in link.captures_iter(&read(&path)) {
            let target = found.get(1).or_else(|| found.get(2)).map_or("", |target| target.as_str());
            if !root().join(folder).join(target).exists() && !root().join(target).exists() {
                offences.push(format!("{} -> {target}", path.display()));
            }
        }
    }
    report("a document names a file that is not there", &offences);
}

#[test]
fn the_function_finder_sees_bodies_and_skips_declarations() {
    let text = "fn a() {\n    1\n}\ntrait T {\n    fn b(&self);\n    async fn c(\n        &self,\n    ) {\n        2\n    }\n}\npub(crate) fn d() {}\n";
    let found: Vec<(String, usize)> =
        functions(text).into_iter().map(|function| (function.name, function.lines)).collect();
    assert_eq!(found, [("a".to_owned(), 3), ("c".to_owned(), 5)]);
}
