//! Who may act as whom, by which right, and what is said of it.

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    map
}

/// Asks for `ann` in the group `dev`, listing pods, with these rights (`VERB RESOURCE[/PART] NAME`).
fn ask(
    asks: &UserInfo,
    claims: &[(&'static str, &'static str)],
    rights: &[&str],
    last: &Remembered,
) -> Result<(UserInfo, Mode), String> {
    let wanted = Impersonation::asked(&headers(claims)).unwrap().unwrap();
    let may = |asked: &Attributes<'_>| {
        let Target::Resource { group, resource, subresource, namespace, name, .. } = asked.target else {
            panic!("a resource was expected")
        };
        let part = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let place = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}:{name}") };
        let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap() };
        let right = format!("{} {group} {resource}{part} {place}", asked.verb);
        if rights.contains(&right.trim_end()) { Ok(()) } else { Err(asked.refusal("")) }
    };
    let target =
        Target::Resource { group: "", resource: "pods", subresource: "", namespace: "", name: "", field_selector: "" };
    wanted.user(&Attributes { user: asks, verb: "list", target }, &may, last).map_err(|error| error.message)
}

fn bob() -> UserInfo {
    UserInfo::new("bob", &[])
}

/// By all rights.
fn acting(claims: &[(&'static str, &'static str)]) -> UserInfo {
    let wanted = Impersonation::asked(&headers(claims)).unwrap().unwrap();
    let on = Attributes { user: &bob(), verb: "get", target: Target::Path("/") };
    let last = Remembered::default();
    last.set("bob", Mode::Legacy);
    wanted.user(&on, &|_| Ok(()), &last).unwrap().0
}

#[test]
fn a_user_has_the_groups_that_are_named_and_that_of_everybody_proven() {
    let user = acting(&[(USER, "ann"), (GROUP, "dev"), (GROUP, "ops"), (UID, "7"), ("impersonate-extra-a%2fb", "c")]);
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
    assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED]);
    assert_eq!(user.extra["a/b"], ["c"]);
    assert_eq!(acting(&[(USER, "ann"), (GROUP, UNAUTHENTICATED)]).groups, [UNAUTHENTICATED]);
    assert_eq!(acting(&[(USER, ANONYMOUS)]).groups, [UNAUTHENTICATED]);
}

#[test]
fn a_service_account_has_its_groups_unless_others_are_named() {
    let account = (USER, "system:serviceaccount:ns:sa");
    let user = acting(&[account]);
    assert_eq!(user.name, "system:serviceaccount:ns:sa");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
    assert_eq!(acting(&[account, (GROUP, "x")]).groups, ["x", AUTHENTICATED]);
}

#[test]
fn each_claim_needs_a_permission_of_its_own() {
    let claims = [(USER, "ann"), (GROUP, "dev"), ("impersonate-extra-k", "v"), (UID, "7")];
    let rights = [
        "impersonate core users ann",
        "impersonate authentication uids 7",
        "impersonate core groups dev",
        "impersonate authentication userextras/k v",
    ];
    assert_eq!(ask(&bob(), &claims, &rights, &Remembered::default()).unwrap().1, Mode::Legacy);
    for missing in 0..rights.len() {
        let some: Vec<_> =
            rights.into_iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, own)| own).collect();
        assert!(ask(&bob(), &claims, &some, &Remembered::default()).is_err(), "without {}", rights[missing]);
    }
}

#[test]
fn a_constrained_right_needs_one_about_the_request_too() {
    let last = Remembered::default();
    let rights = ["impersonate-on:user-info:list core pods", "impersonate:user-info authentication users ann"];
    let (user, mode) = ask(&bob(), &[(USER, "ann")], &rights, &last).unwrap();
    assert_eq!((user.name.as_str(), mode), ("ann", Mode::UserInfo));
    let refused = |claims: &[_], rights: &[&str]| ask(&bob(), claims, rights, &Remembered::default()).unwrap_err();
    assert_eq!(
        refused(&[(USER, "ann")], &rights[1..]),
        "pods is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at \
         the cluster scope"
    );
    assert_eq!(
        refused(&[(USER, "ann")], &rights[..1]),
        "users.authentication.k8s.io \"ann\" is forbidden: User \"bob\" cannot impersonate:user-info resource \"users\" \
         in API group \"authentication.k8s.io\" at the cluster scope"
    );
    let masters = refused(&[(USER, "ann"), (GROUP, MASTERS)], &rights);
    assert!(masters.ends_with(": impersonating the system:masters group is not allowed"), "{masters}");
    let key = refused(&[(USER, "ann"), ("impersonate-extra-k", "v")], &rights);
    assert!(key.ends_with("Invalid value: \"k\": must be a domain-prefixed path (such as \"acme.io/foo\")"), "{key}");
}

#[test]
fn a_service_account_acts_as_the_node_it_runs_on() {
    let mut agent = UserInfo::new("system:serviceaccount:ns:agent", &[]);
    agent.extra.insert(NODE_NAME.to_owned(), vec!["n1".to_owned()]);
    let rights =
        ["impersonate-on:associated-node:list core pods", "impersonate:associated-node authentication nodes *"];
    let (user, mode) = ask(&agent, &[(USER, "system:node:n1")], &rights, &Remembered::default()).unwrap();
    assert_eq!((mode, user.groups), (Mode::AssociatedNode, vec![NODES.to_owned(), AUTHENTICATED.to_owned()]));
    assert!(ask(&agent, &[(USER, "system:node:n2")], &rights, &Remembered::default()).is_err());
    assert!(ask(&bob(), &[(USER, "system:node:n1")], &rights, &Remembered::default()).is_err());
    let others = ["impersonate-on:arbitrary-node:list core pods", "impersonate:arbitrary-node authentication nodes n2"];
    let by = |claims: &[_]| ask(&bob(), claims, &others, &Remembered::default()).map(|(_, mode)| mode);
    assert_eq!(by(&[(USER, "system:node:n2")]), Ok(Mode::ArbitraryNode));
    assert!(by(&[(USER, "system:node:n2"), (GROUP, "x")]).is_err());
    let account = [
        "impersonate-on:serviceaccount:list core pods",
        "impersonate:serviceaccount authentication serviceaccounts ns:sa",
    ];
    let (user, mode) = ask(&bob(), &[(USER, "system:serviceaccount:ns:sa")], &account, &Remembered::default()).unwrap();
    assert_eq!((mode, user.groups.len()), (Mode::ServiceAccount, 3));
}

#[test]
fn the_way_that_last_led_there_is_tried_first() {
    let last = Remembered::default();
    ask(&bob(), &[(USER, "ann")], &["impersonate core users ann"], &last).unwrap();
    assert_eq!(
        ask(&bob(), &[(USER, "eve")], &[], &last).unwrap_err(),
        "users \"eve\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the cluster \
         scope"
    );
}

#[test]
fn many_groups_may_be_claimed_by_one_right() {
    let claims = [(USER, "ann"), (GROUP, "a"), (GROUP, "b"), (GROUP, "c"), (GROUP, "d")];
    let rights = [
        "impersonate-on:user-info:list core pods",
        "impersonate:user-info authentication users ann",
        "impersonate:user-info authentication groups *",
    ];
    assert!(ask(&bob(), &claims, &rights, &Remembered::default()).is_ok());
    assert!(ask(&bob(), &claims[..4], &rights, &Remembered::default()).is_err());
}

#[test]
fn claims_about_nobody_are_refused_and_no_claims_are_none() {
    assert!(Impersonation::asked(&headers(&[])).unwrap().is_none());
    assert!(Impersonation::asked(&headers(&[(USER, "")])).unwrap().is_none());
    let error = Impersonation::asked(&headers(&[(GROUP, "dev"), ("impersonate-extra-k", "v")])).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            400,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, \
             Extra:map[string][]string{\"k\":[]string{\"v\"}}} without impersonating a user name"
        )
    );
}
