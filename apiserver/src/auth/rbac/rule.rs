//! One rule of a role: which verbs it allows on what.
//!
//! Source: `VerbMatches` and its like in Kubernetes' `pkg/apis/rbac/v1`. A rule's words stand in one text, because a
//! cluster has many hundred rules and each request looks through some of them.

use serde::Deserialize;

use crate::auth::authorizer::{Attributes, KnownRule, Target};

/// What stands behind each word.
const END: char = '\0';

/// The lists of a rule, in the order in which they stand in its text.
#[derive(Debug, Clone, Copy)]
enum List {
    Groups,
    Resources,
    Verbs,
    Names,
    Urls,
}

/// A rule, as small as it can be kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    text: Box<str>,
    /// Where each list ends.
    ends: [u32; 5],
}

/// A rule as it stands in a role. Whoever makes a role is asked for `verbs` only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuleText {
    api_groups: Option<Vec<String>>,
    resources: Option<Vec<String>>,
    verbs: Option<Vec<String>>,
    resource_names: Option<Vec<String>>,
    #[serde(rename = "nonResourceURLs")]
    urls: Option<Vec<String>>,
}

impl Rule {
    /// `None` for a rule in which a word holds what separates words: nothing that can be asked for has such a name.
    pub(crate) fn of(written: &RuleText) -> Option<Self> {
        let lists = [&written.api_groups, &written.resources, &written.verbs, &written.resource_names, &written.urls];
        let mut text = String::new();
        let mut ends = [0; 5];
        for (list, end) in lists.into_iter().zip(&mut ends) {
            for word in list.iter().flatten() {
                if word.contains(END) {
                    return None;
                }
                text.push_str(word);
                text.push(END);
            }
            *end = u32::try_from(text.len()).ok()?;
        }
        Some(Self { text: text.into(), ends })
    }

    fn words(&self, list: List) -> impl Iterator<Item = &str> {
        let at = list as usize;
        let end_of = |list: usize| self.ends[list] as usize;
        let start = if at == 0 { 0 } else { end_of(at - 1) };
        self.text[start..end_of(at)].split_terminator(END)
    }

    fn has(&self, list: List, wanted: &str) -> bool {
        self.words(list).any(|word| word == wanted || word == "*")
    }

    /// Whether it allows what is asked.
    pub(crate) fn allows(&self, asked: &Attributes<'_>) -> bool {
        match asked.target {
            Target::Path(path) => {
                self.has(List::Verbs, asked.verb) && self.words(List::Urls).any(|url| covers_url(url, path))
            }
            Target::Resource { group, resource, subresource, name, .. } => {
                self.has(List::Groups, group)
                    && self.words(List::Resources).any(|own| is_resource(own, resource, subresource))
                    && self.has(List::Verbs, asked.verb)
                    && self.is_about(name)
            }
        }
    }

    /// Names are meant as they are: `*` is no wildcard.
    fn is_about(&self, name: &str) -> bool {
        let mut names = self.words(List::Names).peekable();
        names.peek().is_none() || names.any(|own| own == name)
    }

    /// In words, for people and for comparisons.
    pub(crate) fn known(&self) -> KnownRule {
        let words = |list| self.words(list).map(str::to_owned).collect();
        KnownRule {
            verbs: words(List::Verbs),
            groups: words(List::Groups),
            resources: words(List::Resources),
            names: words(List::Names),
            urls: words(List::Urls),
        }
    }
}

/// Whether a rule's resource (`pods`, `pods/log`, `*/scale`, `*`) is the one that is asked for.
fn is_resource(own: &str, resource: &str, subresource: &str) -> bool {
    if own == "*" {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    let of = own.strip_suffix(subresource).and_then(|rest| rest.strip_suffix('/'));
    of.is_some_and(|of| of == "*" || of == resource)
}

/// Whether a rule's URL, which may end in `*`, is a path or one that holds it.
pub(crate) fn covers_url(own: &str, path: &str) -> bool {
    own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::UserInfo;

    fn rule(text: &str) -> Rule {
        Rule::of(&serde_json::from_str(text).unwrap()).unwrap()
    }

    /// `VERB GROUP RESOURCE[/SUB] NAME`, `-` for empty, or `VERB PATH`.
    #[track_caller]
    fn check(rule: &Rule, question: &str, expected: bool) {
        let user = UserInfo::default();
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let target = match words[..] {
            [_, path] => Target::Path(path),
            [_, group, resource, name] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                Target::Resource { group, resource, subresource, namespace: "", name, field_selector: "" }
            }
            _ => panic!("{question}"),
        };
        assert_eq!(rule.allows(&Attributes { user: &user, verb: words[0], target }), expected, "{question}");
    }

    #[test]
    fn a_rule_allows_its_verbs_on_its_resources_alone() {
        let rule = rule(r#"{"apiGroups":["","apps"],"resources":["pods","deployments"],"verbs":["get","list"]}"#);
        check(&rule, "get - pods web", true);
        check(&rule, "list apps deployments -", true);
        check(&rule, "watch - pods web", false);
        check(&rule, "get batch pods web", false);
        check(&rule, "get - pods/log web", false);
        check(&rule, "get - secrets web", false);
        check(&rule, "get /pods", false);
        check(&rule, "get - - -", false);
    }

    #[test]
    fn a_star_is_everything_and_subresources_are_named() {
        let all = rule(r#"{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}"#);
        check(&all, "escalate x y/z n", true);
        check(&all, "get /metrics", false);
        let part = rule(r#"{"apiGroups":["*"],"resources":["*/scale","pods/log"],"verbs":["get"]}"#);
        check(&part, "get apps deployments/scale web", true);
        check(&part, "get - pods/log web", true);
        check(&part, "get - pods/exec web", false);
        check(&part, "get - pods -", false);
        // A star stands for a resource, never for its parts.
        check(&rule(r#"{"apiGroups":[""],"resources":["pods/*"],"verbs":["get"]}"#), "get - pods/log web", false);
    }

    #[test]
    fn names_narrow_a_rule_and_are_no_patterns() {
        let named = rule(r#"{"apiGroups":[""],"resources":["secrets"],"verbs":["get"],"resourceNames":["a","*"]}"#);
        check(&named, "get - secrets a", true);
        check(&named, "get - secrets b", false);
        check(&named, "get - secrets -", false);
        check(&named, "get - secrets *", true);
    }

    #[test]
    fn paths_end_in_a_star_or_are_meant_as_they_are() {
        let paths = rule(r#"{"nonResourceURLs":["/healthz","/api/*","/logs*"],"verbs":["get"]}"#);
        check(&paths, "get /healthz", true);
        check(&paths, "get /healthz/etcd", false);
        check(&paths, "get /api/v1", true);
        check(&paths, "get /api", false);
        check(&paths, "get /logsother", true);
        check(&paths, "post /healthz", false);
        check(&rule(r#"{"nonResourceURLs":["*"],"verbs":["*"]}"#), "put /x/y", true);
    }

    #[test]
    fn a_word_with_a_separator_in_it_allows_nothing() {
        let written = r#"{"apiGroups":[""],"resources":["secrets"],"verbs":["get"],"resourceNames":["a\u0000b"]}"#;
        assert_eq!(Rule::of(&serde_json::from_str(written).unwrap()), None);
    }
}
