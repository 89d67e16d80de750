//! The query string: every option of every verb, checked as Kubernetes checks it.
//!
//! Source: Kubernetes API reference, "Common parameters"; the texts of `apimachinery/pkg/apis/meta/*/validation`.

use std::time::Duration;

use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::Value;

use crate::registry::{FieldValidation, Options, VersionMatch};
use crate::status::ApiError;

/// Longest query string that is read.
const QUERY_BYTES_MAX: usize = 64 * 1024;

/// The decoded parameters, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query string.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(ApiError::new(414, "", "the query string is too long"));
        }
        Ok(Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect()))
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// All parameters, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Every value of that name.
    pub(crate) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether the flag is set: there with any value but `false` and `0`, as Kubernetes converts booleans.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// How long the client gives the server (`timeout=34s`); `None` when it leaves that to the server.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get("timeout").filter(|text| !text.is_empty()) else { return Ok(None) };
        let found = super::duration::parse(text)
            .map_err(|why| ApiError::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
        Ok(found.filter(|asked| !asked.is_zero()))
    }

    /// A whole number; an empty value counts as absent.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
    }
}

/// Reads the options of a verb (`get`, `list`, `create`, …).
pub(crate) fn options(query: &Query, verb: &str) -> Result<Options, ApiError> {
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let deletes = matches!(verb, "delete" | "deletecollection");
    let writes = !deletes && !matches!(verb, "get" | "list" | "watch");
    let mut options = Options {
        field_manager: text("fieldManager"),
        force: query.get("force").map(|_| query.flag("force")),
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        limit: query.integer("limit")?.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0),
        continue_token: text("continue"),
        resource_version: text("resourceVersion"),
        send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
        timeout: query
            .integer("timeoutSeconds")?
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        ..Options::default()
    };
    if writes {
        let kind = options_kind(verb);
        if matches!(verb, "create" | "update" | "patch") {
            field_manager(&options.field_manager, kind)?;
        }
        options.dry_run = dry_run(query, kind)?;
        options.field_validation = field_validation(query, kind)?;
        options.field_validation_stated = query.get("fieldValidation").is_some_and(|stated| !stated.is_empty());
    } else if !matches!(verb, "get" | "delete") {
        // What else a deletion says stands in its body, or is read from here when there is none.
        let is_watch = verb == "watch";
        let given = query.get("resourceVersionMatch").unwrap_or_default();
        let from_any = matches!(options.resource_version.as_str(), "" | "0");
        if is_watch && from_any && given.is_empty() && options.send_initial_events.is_none() {
            // As old as the API: such a watch begins with what there is.
            options.send_initial_events = Some(true);
            options.version_match = Some(VersionMatch::NotOlderThan);
        } else {
            options.version_match = version_match(given, &options, is_watch)?;
        }
    }
    Ok(options)
}

fn options_kind(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => "ListOptions",
    }
}

fn invalid(kind: &str, what: FieldErrorKind, field: &str, value: impl Into<Value>, detail: &str) -> ApiError {
    ApiError::invalid_kind(kind, "meta.k8s.io", "", &[FieldError::new(what, field, value, detail)])
}

/// Longest name of a manager, in bytes.
const MANAGER_BYTES_MAX: usize = 128;

fn field_manager(name: &str, kind: &str) -> Result<(), ApiError> {
    let error = |what, value: Value, detail: String| FieldError::new(what, "fieldManager", value, detail);
    let mut errors = Vec::new();
    if name.len() > MANAGER_BYTES_MAX {
        let detail = format!("may not be more than {MANAGER_BYTES_MAX} bytes");
        errors.push(error(FieldErrorKind::TooLong, "".into(), detail));
    }
    for (at, letter) in name.char_indices().filter(|(_, letter)| !is_printable(*letter)) {
        let detail = format!("invalid character U+{:04X} (at position {at})", letter as u32);
        errors.push(error(FieldErrorKind::Invalid, name.into(), detail));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid_kind(kind, "meta.k8s.io", "", &errors)) }
}

/// What Go's `unicode.IsPrint` takes for printable, as far as it matters: no control characters, and of all the spaces
/// only the common one.
fn is_printable(letter: char) -> bool {
    let is_invisible = matches!(
        letter,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e000}'..='\u{f8ff}'
    );
    letter == ' ' || (!letter.is_control() && !letter.is_whitespace() && !is_invisible)
}

/// Checks what only patches have: an apply names its manager, and only an apply may be forced.
pub(crate) fn patch_options(options: &Options, is_apply: bool) -> Result<(), ApiError> {
    if is_apply && options.field_manager.is_empty() {
        return Err(invalid_as(
            "PatchOptions",
            FieldErrorKind::Required,
            "fieldManager",
            "is required for apply patch",
        ));
    }
    if !is_apply && options.force.is_some() {
        return Err(invalid_as(
            "PatchOptions",
            FieldErrorKind::Forbidden,
            "force",
            "may not be specified for non-apply patch",
        ));
    }
    Ok(())
}

fn invalid_as(kind: &str, what: FieldErrorKind, field: &str, detail: &str) -> ApiError {
    ApiError::invalid_kind(kind, "meta.k8s.io", "", &[FieldError::new(what, field, Value::Null, detail)])
}

/// As [`client`], of a request.
pub(crate) fn client_of(headers: &http::HeaderMap) -> String {
    let agent = headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.map(client).unwrap_or_default()
}

/// Whose fields they are when the client does not say: the program that `User-Agent` begins with.
pub(crate) fn client(agent: &str) -> String {
    let mut name = String::new();
    for letter in agent.split('/').next().unwrap_or_default().chars().filter(|letter| is_printable(*letter)) {
        if name.len() + letter.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(letter);
    }
    name
}

fn dry_run(query: &Query, kind: &str) -> Result<bool, ApiError> {
    let mut asked = false;
    for value in query.all("dryRun") {
        if value != "All" {
            return Err(invalid(
                kind,
                FieldErrorKind::NotSupported,
                "dryRun",
                vec![value],
                "supported values: \"All\"",
            ));
        }
        asked = true;
    }
    Ok(asked)
}

fn field_validation(query: &Query, kind: &str) -> Result<FieldValidation, ApiError> {
    match query.get("fieldValidation").unwrap_or_default() {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => {
            let supported = "supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"";
            Err(invalid(kind, FieldErrorKind::NotSupported, "fieldValidation", other, supported))
        }
    }
}

/// All complaints at once, in Kubernetes' order.
fn version_match(given: &str, options: &Options, is_watch: bool) -> Result<Option<VersionMatch>, ApiError> {
    let errors = match_errors(given, options, is_watch);
    if !errors.is_empty() {
        return Err(ApiError::invalid_kind("ListOptions", "meta.k8s.io", "", &errors));
    }
    Ok(match given {
        "Exact" => Some(VersionMatch::Exact),
        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
        _ => None,
    })
}

fn match_errors(given: &str, options: &Options, is_watch: bool) -> Vec<FieldError> {
    const FIELD: &str = "resourceVersionMatch";
    let forbidden = |why: &str| FieldError::new(FieldErrorKind::Forbidden, FIELD, Value::Null, why);
    let unsupported = |values: &str| {
        let detail = format!("supported values: {values}");
        FieldError::new(FieldErrorKind::NotSupported, FIELD, Value::from(given), detail)
    };
    let with_initial = options.send_initial_events.is_some();
    let with_token = !options.continue_token.is_empty();
    let token = || forbidden("resourceVersionMatch is forbidden when continue is provided");
    let mut errors = Vec::new();
    if is_watch {
        if with_initial && given != "NotOlderThan" {
            errors.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        if given.is_empty() {
            return errors;
        }
        if !with_initial {
            errors.push(forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        if given != "NotOlderThan" {
            errors.push(unsupported("\"NotOlderThan\""));
        }
        errors.extend(with_token.then(token));
        return errors;
    }
    if !given.is_empty() {
        if options.resource_version.is_empty() {
            errors.push(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        errors.extend(with_token.then(token));
        if !matches!(given, "Exact" | "NotOlderThan") {
            errors.push(unsupported("\"Exact\", \"NotOlderThan\", \"\""));
        }
        if given == "Exact" && options.resource_version == "0" {
            errors.push(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if with_initial {
        let why = "sendInitialEvents is forbidden for list";
        errors.push(FieldError::new(FieldErrorKind::Forbidden, "sendInitialEvents", Value::Null, why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, verb: &str) -> Result<Options, ApiError> {
        options(&Query::parse(text).unwrap(), verb)
    }

    #[test]
    fn every_option_is_read() {
        let found = parse(
            "labelSelector=a%3Db%2Cc&fieldSelector=metadata.name%3Dx&limit=500&continue=t&timeoutSeconds=9",
            "list",
        )
        .unwrap();
        assert_eq!((found.label_selector.as_str(), found.field_selector.as_str()), ("a=b,c", "metadata.name=x"));
        assert_eq!(
            (found.limit, found.continue_token.as_str(), found.timeout),
            (500, "t", Some(Duration::from_secs(9)))
        );
        let found = parse("dryRun=All&fieldValidation=Strict&fieldManager=kubectl", "create").unwrap();
        assert!(found.dry_run && found.field_validation == FieldValidation::Strict && found.field_manager == "kubectl");
        let watch = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let found = parse(watch, "watch").unwrap();
        assert_eq!((found.allow_watch_bookmarks, found.send_initial_events), (true, Some(true)));
    }

    #[test]
    fn a_manager_has_a_short_printable_name_and_only_an_apply_may_be_forced() {
        let long = format!("fieldManager={}", "a".repeat(129));
        let text = |query: &str| parse(query, "update").unwrap_err().message;
        assert_eq!(
            text(&long),
            r#"UpdateOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#
        );
        assert_eq!(
            text("fieldManager=a%0A"),
            "UpdateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\n\": invalid character U+000A \
             (at position 1)"
        );
        let refused =
            |query: &str, is_apply| patch_options(&parse(query, "patch").unwrap(), is_apply).unwrap_err().message;
        assert_eq!(
            refused("", true),
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#
        );
        assert_eq!(
            refused("force=true", false),
            r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#
        );
        assert_eq!(parse("force=1&fieldManager=a", "patch").unwrap().force, Some(true));
        assert_eq!(client("kubectl/v1.36 (linux)"), "kubectl");
        assert_eq!(client(&"é".repeat(100)).len(), 128);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_kubernetes_words() {
        let text = |query, verb| parse(query, verb).unwrap_err().message;
        assert_eq!(
            text("dryRun=some", "patch"),
            r#"PatchOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["some"]: supported values: "All""#
        );
        assert_eq!(
            text("resourceVersionMatch=Exact", "list"),
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#
        );
        assert_eq!(parse("limit=many", "list").unwrap_err().code, 400);
    }
}
