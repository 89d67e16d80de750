//! Images, and who pulls them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reeve_engine::engine::{Image, RegistryAuth};
use reeve_proto::cri::{AuthConfig, Image as CriImage, ImageSpec, Int64Value};

use super::Refused;

/// The user under whose name an identity token is handed on, as in Docker's configuration.
const TOKEN_USER: &str = "<token>";

/// An image as it is told.
#[must_use]
pub fn to_cri(image: &Image) -> CriImage {
    // The group, if it says one, is not part of this.
    let user = image.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    CriImage {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size_bytes,
        uid: if user.is_empty() { Some(Int64Value { value: 0 }) } else { uid.map(|value| Int64Value { value }) },
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: Some(ImageSpec { image: image.id.clone(), ..ImageSpec::default() }),
        pinned: false,
    }
}

/// An image of another runtime.
#[must_use]
pub fn to_engine(image: CriImage) -> Image {
    Image {
        user: image
            .uid
            .map_or(image.username, |uid| if uid.value == 0 { String::new() } else { uid.value.to_string() }),
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size_bytes: image.size,
        created_at: None,
    }
}

/// Who pulls. `None`: nobody in particular.
///
/// # Errors
/// For an `auth` that is not base64 of user and password, and for a token that only its giver can exchange.
pub fn auth(given: Option<&AuthConfig>) -> Result<Option<RegistryAuth>, Refused> {
    let Some(given) = given else { return Ok(None) };
    let (mut username, mut password) = (given.username.clone(), given.password.clone());
    if username.is_empty() && !given.auth.is_empty() {
        let decoded = STANDARD.decode(&given.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, secret) = pair.ok_or_else(|| Refused::new("invalid auth: not base64 of USER:PASSWORD"))?;
        // Some clients pad with zeros.
        (username, password) = (user.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    if username.is_empty() && !given.identity_token.is_empty() {
        (username, password) = (TOKEN_USER.to_owned(), given.identity_token.clone());
    }
    if username.is_empty() && !given.registry_token.is_empty() {
        return Err(Refused::new("registry tokens are not supported: give user and password, or an identity token"));
    }
    Ok((!username.is_empty()).then_some(RegistryAuth { username, password }))
}

/// Who pulls, for another runtime.
#[must_use]
pub fn to_auth(own: RegistryAuth) -> AuthConfig {
    if own.username == TOKEN_USER {
        return AuthConfig { identity_token: own.password, ..AuthConfig::default() };
    }
    AuthConfig { username: own.username, password: own.password, ..AuthConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_an_image_is_a_number_or_a_name() {
        let of = |user: &str| {
            let image = Image {
                id: "sha256:1".to_owned(),
                tags: Vec::new(),
                digests: Vec::new(),
                size_bytes: 1,
                created_at: None,
                user: user.to_owned(),
            };
            let told = to_cri(&image);
            (told.uid.map(|uid| uid.value), told.username)
        };
        assert_eq!(of(""), (Some(0), String::new()));
        assert_eq!(of("1002:7"), (Some(1002), String::new()));
        assert_eq!(of("www-data"), (None, "www-data".to_owned()));
    }

    #[test]
    fn credentials_are_read_from_all_their_places() {
        let read = |given: AuthConfig| {
            auth(Some(&given)).map(|auth| auth.map(|auth| (auth.username, auth.password))).map_err(|refused| refused.0)
        };
        let pair = |user: &str, secret: &str| Ok(Some((user.to_owned(), secret.to_owned())));
        assert_eq!(
            read(AuthConfig { username: "u".into(), password: "p".into(), ..AuthConfig::default() }),
            pair("u", "p")
        );
        assert_eq!(read(AuthConfig { auth: STANDARD.encode("u:p:q"), ..AuthConfig::default() }), pair("u", "p:q"));
        assert_eq!(read(AuthConfig { identity_token: "t".into(), ..AuthConfig::default() }), pair(TOKEN_USER, "t"));
        assert_eq!(read(AuthConfig::default()), Ok(None));
        assert!(read(AuthConfig { auth: "!".into(), ..AuthConfig::default() }).is_err());
    }
}
