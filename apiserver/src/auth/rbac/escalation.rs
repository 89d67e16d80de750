//! Nobody grants what they do not have: which rules others do not cover, and how that is told.
//!
//! Source: `Covers` of k8s.io/component-helpers (`auth/rbac/validation`), `CompactRules` and `CompactString` of
//! Kubernetes' `pkg/registry/rbac/validation` and `pkg/apis/rbac/v1`. Pure; who is asked when is in
//! `crate::registry::grants`.

use std::collections::BTreeMap;

use super::covers_url;
use crate::auth::authorizer::KnownRule;
use crate::registry::UserInfo;

/// What of `asked`, broken down to single verbs on single things, no rule of `held` covers.
pub(crate) fn uncovered(held: &[KnownRule], asked: &[KnownRule]) -> Vec<KnownRule> {
    let single = asked.iter().flat_map(broken_down);
    single.filter(|rule| !held.iter().any(|held| covers(held, rule))).collect()
}

/// Rules with one verb, one resource and at most one name each, or one verb and one path, that come to the same.
fn broken_down(rule: &KnownRule) -> Vec<KnownRule> {
    let one = |word: &String| vec![word.clone()];
    let mut single = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let of = |names: Vec<String>| KnownRule {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    names,
                    urls: Vec::new(),
                };
                if rule.names.is_empty() {
                    single.push(of(Vec::new()));
                }
                single.extend(rule.names.iter().map(|name| of(one(name))));
            }
        }
    }
    for url in &rule.urls {
        let of = |verb| KnownRule { verbs: one(verb), urls: one(url), ..KnownRule::default() };
        single.extend(rule.verbs.iter().map(of));
    }
    single
}

/// Whether a rule allows all that a broken-down one does.
fn covers(held: &KnownRule, single: &KnownRule) -> bool {
    let has = |list: &[String], word: &str| list.iter().any(|own| own == word);
    let all = |list: &[String], words: &[String]| has(list, "*") || words.iter().all(|word| has(list, word));
    let part = |resource: &String| {
        let part = resource.split_once('/').map(|(_, part)| format!("*/{part}"));
        has(&held.resources, resource) || part.is_some_and(|part| has(&held.resources, &part))
    };
    let url = |url: &String| held.urls.iter().any(|own| covers_url(own, url));
    all(&held.verbs, &single.verbs)
        && all(&held.groups, &single.groups)
        && (has(&held.resources, "*") || single.resources.iter().all(part))
        && single.urls.iter().all(url)
        && (held.names.is_empty()
            || (!single.names.is_empty() && single.names.iter().all(|name| has(&held.names, name))))
}

/// Broken-down rules with the verbs on the same thing together, as text, in order.
fn described(missing: &[KnownRule]) -> Vec<String> {
    let mut together: BTreeMap<_, KnownRule> = BTreeMap::new();
    for rule in missing {
        // Paths stay apart.
        let verb = if rule.urls.is_empty() { None } else { Some(&rule.verbs) };
        let what = (&rule.groups, &rule.resources, &rule.names, &rule.urls, verb);
        together
            .entry(what)
            .and_modify(|known| known.verbs.extend(rule.verbs.iter().cloned()))
            .or_insert_with(|| rule.clone());
    }
    let mut all: Vec<String> = together.values().map(text).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn text(rule: &KnownRule) -> String {
    let lists = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let lists = lists.into_iter().filter(|(_, words)| !words.is_empty());
    let lists: Vec<String> = lists.map(|(name, words)| format!("{name}:{}", quoted(words))).collect();
    format!("{{{}}}", lists.join(", "))
}

/// A list of texts as Go quotes it.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// What somebody is told who grants `missing`; `unresolved` says what could not be looked at besides.
pub(crate) fn refusal(user: &UserInfo, missing: &[KnownRule], unresolved: &str) -> String {
    let (name, groups) = (&user.name, quoted(&user.groups));
    let what = "is attempting to grant RBAC permissions not currently held";
    let errors = if unresolved.is_empty() { String::new() } else { format!("; resolution errors: [{unresolved}]") };
    format!("user {name:?} (groups={groups}) {what}:\n{}{errors}", described(missing).join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `GROUPS RESOURCES VERBS [NAMES]` or `url PATHS VERBS`; `-` is the core group.
    fn rule(text: &str) -> KnownRule {
        let words: Vec<Vec<String>> = text
            .split(' ')
            .map(|words| words.split(',').map(|word| if word == "-" { "" } else { word }.to_owned()).collect())
            .collect();
        match &words[..] {
            [url, urls, verbs] if *url == ["url"] => {
                KnownRule { verbs: verbs.clone(), urls: urls.clone(), ..KnownRule::default() }
            }
            [groups, resources, verbs, names @ ..] => KnownRule {
                verbs: verbs.clone(),
                groups: groups.clone(),
                resources: resources.clone(),
                names: names.first().cloned().unwrap_or_default(),
                urls: Vec::new(),
            },
            _ => panic!("{text}"),
        }
    }

    #[track_caller]
    fn check(held: &[&str], asked: &str, missing: &[&str]) {
        let held: Vec<KnownRule> = held.iter().map(|text| rule(text)).collect();
        let found = uncovered(&held, &[rule(asked)]);
        assert_eq!(described(&found), missing, "{held:?} {asked}");
    }

    #[test]
    fn what_is_not_held_is_told_by_what_it_is_about() {
        let pods = r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#;
        check(&[], "- pods get,list", &[pods]);
        check(&["- pods list"], "- pods get,list", &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#]);
        check(&["- pods list", "- pods get"], "- pods get,list", &[]);
        check(&["* * *"], "a,b c,d/e f g", &[]);
        check(&["* * *"], "url /x get", &[r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#]);
        check(&["url /x/* get"], "url /x/y,/x/* get", &[]);
        check(&["url /x/* get"], "url /x get", &[r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#]);
    }

    #[test]
    fn a_rule_about_names_covers_these_alone() {
        check(&["- secrets get a,b"], "- secrets get a", &[]);
        let all = r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#;
        check(&["- secrets get a"], "- secrets get", &[all]);
        let c = r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["c"], Verbs:["get"]}"#;
        check(&["- secrets get a"], "- secrets get a,c", &[c]);
    }

    #[test]
    fn parts_are_covered_by_the_part_of_every_resource() {
        check(&["* */scale get"], "apps deployments/scale get", &[]);
        let scale = r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}"#;
        check(&["* */scale get"], "apps deployments get", &[scale]);
    }

    #[test]
    fn a_refusal_reads_as_in_kubernetes() {
        let user = UserInfo::new("ann", &["dev", "system:authenticated"]);
        let missing = [rule("- pods get"), rule("- nodes list"), rule("- pods watch")];
        assert_eq!(
            refusal(&user, &missing, ""),
            "user \"ann\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
             currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"list\"]}\n{APIGroups:[\"\"], \
             Resources:[\"pods\"], Verbs:[\"get\" \"watch\"]}"
        );
        assert!(refusal(&user, &missing, "x not found").ends_with("; resolution errors: [x not found]"));
    }
}
