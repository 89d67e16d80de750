//! Which tokens are good.

use base64::Engine as _;
use reeve_api::rng::SeededRng;
use serde_json::json;

use super::token::{self, JoinToken};
use super::*;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

/// The Secret as the registry keeps it.
fn stored(secret: &Value) -> Value {
    let mut stored = secret.clone();
    for (name, text) in secret["stringData"].as_object().unwrap() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap());
        stored["data"][name] = encoded.into();
    }
    stored
}

fn token() -> JoinToken {
    JoinToken::generate(&SeededRng::new(1), "ab".repeat(32))
}

#[test]
fn a_token_reads_as_it_was_written_and_other_texts_are_refused() {
    let token = token();
    assert_eq!(token.to_string().parse(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains(token.to_string().split_once('.').unwrap().1), "{token:?}");
    let text = token.to_string();
    for wrong in ["", "a.b:sha256:c", &text[1..], &text[..text.len() - 1], &text.replace("sha256", "md5")] {
        assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
    }
}

#[test]
fn a_token_is_good_until_it_expires_for_whoever_knows_its_secret() {
    let token = token();
    let shown = token.bearer();
    let (_, secret) = token::split(&shown).unwrap();
    let later = now() + std::time::Duration::from_secs(60);
    let there = stored(&bootstrap_secret(&token, "", Some(later)));
    assert_eq!(token::judge(Some(&there), secret, now()), Ok(()));
    assert!(token::judge(Some(&there), secret, later).unwrap_err().contains("expired at 2026-06-01T12:01:00Z"));
    let unknown = token::judge(None, secret, now()).unwrap_err();
    assert_eq!(token::judge(Some(&there), &"x".repeat(16), now()).unwrap_err(), unknown);
    assert_eq!(token::judge(Some(&there), &"x".repeat(16), later).unwrap_err(), unknown);
    assert_eq!(token::judge(Some(&there), "", now()).unwrap_err(), unknown);
}

#[test]
fn tokens_of_other_uses_and_secrets_of_other_types_let_nobody_join() {
    let token = token();
    let shown = token.bearer();
    let (_, secret) = token::split(&shown).unwrap();
    let mut of_nodes = stored(&bootstrap_secret(&token, "", None));
    of_nodes["data"]["usage-reeve-server-join"] = json!(null);
    assert!(token::judge(Some(&of_nodes), secret, now()).unwrap_err().contains("not for servers"));
    let mut opaque = stored(&bootstrap_secret(&token, "", None));
    opaque["type"] = "Opaque".into();
    assert!(token::judge(Some(&opaque), secret, now()).is_err());
    let mut ending = stored(&bootstrap_secret(&token, "", None));
    ending["metadata"]["deletionTimestamp"] = "2026-06-01T12:00:00Z".into();
    assert!(token::judge(Some(&ending), secret, now()).is_err());
}

#[test]
fn names_that_cannot_name_a_server_are_refused() {
    assert!(check_name("server-1.example").is_ok());
    for wrong in ["", "A", "-a", "a.", "a/b", &"x".repeat(64)] {
        assert!(check_name(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn what_is_refused_names_the_member_and_the_way_out() {
    let address = "192.0.2.1:1".to_owned();
    let (peer_address, api_address) = (address.clone(), address);
    let record = Record { name: "b".to_owned(), id: u64::MAX, peer_address, api_address, replaces: None };
    let id = record.id;
    let unanswered = MemberError::Unavailable { reason: format!("member {id} did not take over") };
    for (error, wanted) in [
        (
            MemberError::LosesQuorum { voters: 2, reachable: 1, needed: 2 },
            "\"b\" stays what it is: of the 2 that would",
        ),
        (MemberError::LosesQuorum { voters: 0, reachable: 0, needed: 1 }, "\"b\" is the only one that votes"),
        (MemberError::Behind { id, entries: 7 }, "\"b\" is behind by 7 entries: it votes by itself as soon as"),
        (MemberError::Voter { id }, "\"b\" votes already"),
        (MemberError::Learner { id }, "\"b\" does not vote yet"),
        (unanswered, "the members cannot be changed now: member \"b\" did not take over"),
    ] {
        let told = refusal_of(&record, &error).message;
        assert!(told.contains(wanted) && !told.contains(&id.to_string()), "{told}");
    }
}
