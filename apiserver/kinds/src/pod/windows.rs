//! Rules for `windowsOptions`: no node of ours runs them, but their syntax is Kubernetes'.

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::json::get;
use crate::path::Path;

/// Most bytes of a credential spec.
const SPEC_MAX: usize = 64 * 1024;
/// Characters a domain must stay under, and most of a user's name.
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

/// Rules for `windowsOptions` of a security context.
pub(super) fn options(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (options, path) = (get(context, "windowsOptions"), path.child("windowsOptions"));
    if let Some(name) = get(options, "gmsaCredentialSpecName").as_str() {
        errors.invalid_each(&path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    if let Some(spec) = get(options, "gmsaCredentialSpec").as_str() {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > SPEC_MAX {
            errors.invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = get(options, "runAsUserName").as_str() {
        let path = path.child("runAsUserName");
        for complaint in user_name(name) {
            errors.invalid(&path, name, format!("runAsUserName{complaint}"));
        }
    }
}

/// What is wrong with `DOMAIN\\USER` or `USER`.
fn user_name(name: &str) -> Vec<String> {
    let only = |text: &str| vec![text.to_owned()];
    if name.is_empty() {
        return only(" cannot be an empty string");
    }
    if name.chars().any(|letter| letter.is_ascii_control()) {
        return only(" cannot contain control characters");
    }
    if name.matches('\\').count() > 1 {
        return only(" cannot contain more than one backslash");
    }
    let (domain, user) = name.split_once('\\').map_or((None, name), |(domain, user)| (Some(domain), user));
    let mut complaints = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX) {
        complaints.push(format!("'s Domain length must be under {DOMAIN_MAX} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        complaints.push("'s Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        complaints.push("'s User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        complaints.push(format!("'s User length must not be longer than {USER_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|letter| ". ".contains(letter)) {
        complaints.push("'s User cannot contain only periods or spaces".to_owned());
    }
    if user.chars().any(|letter| r#""/\:;|=,+*?<>@[]"#.contains(letter)) {
        complaints.push(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned());
    }
    complaints
}

fn is_net_bios(domain: &str) -> bool {
    let allowed = |letter: char| !r#"\/:*?"<>|"#.contains(letter);
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && domain.chars().all(allowed)
}

fn is_dns(domain: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.split('.').all(is_label)
}
