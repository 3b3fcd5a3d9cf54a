//! Credential resolution order: configuration, provider, environment, profile file, instance metadata.

use std::{collections::BTreeMap, env, ffi::OsString, path::PathBuf, sync::Arc};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential};
use storage_config::{CredentialProvider, Secret};
use storage_core::Result;
use storage_object_store::http::{Provided, is_without_login};

use crate::{
    Config,
    config::{is_visible, wrong},
};

/// What `object_store` finds credentials by on machines of Amazon's, and where the files lie that hold them.
const MACHINE: [(&str, Key); 9] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", Key::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", Key::RoleArn),
    ("AWS_ROLE_SESSION_NAME", Key::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", Key::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Key::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
    ("AWS_METADATA_ENDPOINT", Key::MetadataEndpoint),
    ("AWS_IMDSV1_FALLBACK", Key::ImdsV1Fallback),
];

/// Tells the builder who asks.
pub(crate) async fn apply(
    config: &Config,
    provider: Option<Arc<dyn CredentialProvider>>,
    builder: AmazonS3Builder,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<AmazonS3Builder> {
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let variable = |name: &str| environment(name)?.into_string().ok();
    if config.anonymous {
        return Ok(builder.with_skip_signature(true));
    }
    if let Some(name) = &config.credentials {
        let provider = provider.ok_or_else(|| {
            wrong(
                "`credentials` names credentials, but the application provides none; set `access_key_id` instead"
                    .into(),
            )
        })?;
        return Ok(builder.with_credentials(Arc::new(Provided::new(provider, name, provided))));
    }
    let configured = config.access_key_id.clone().zip(config.secret_access_key.clone());
    if let Some((id, secret)) = configured {
        return with(builder, id.expose(), &secret, config.session_token.as_ref(), "the configuration");
    }
    if config.profile.is_none()
        && let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
    {
        let token = variable("AWS_SESSION_TOKEN").map(Secret::new);
        return with(builder, &id, &Secret::new(secret), token.as_ref(), "`AWS_ACCESS_KEY_ID` and its companions");
    }
    let mut builder = builder;
    for (name, key) in MACHINE {
        let Some(value) = variable(name) else { continue };
        // Errors name the address that was asked.
        if matches!(key, Key::StsEndpoint | Key::ContainerCredentialsFullUri | Key::MetadataEndpoint)
            && !is_without_login(&value)
        {
            return Err(wrong(format!(
                "`{name}` must be an address, as in `http://host/path`, without user or password"
            )));
        }
        builder = builder.with_config(key, value);
    }
    let profile = config.profile.clone().or_else(|| variable("AWS_PROFILE"));
    let section = from_file(profile.as_deref().unwrap_or("default"), environment).await;
    match (section, profile) {
        (Some((id, secret, token)), _) => with(builder, &id, &secret, token.as_ref(), "the file of credentials"),
        (None, Some(name)) => Err(wrong(format!(
            "the profile `{name}` has no credentials in the file; write them to `~/.aws/credentials`, or change `profile`"
        ))),
        // The machine may have some.
        (None, None) => Ok(builder),
    }
}

fn with(
    builder: AmazonS3Builder,
    id: &str,
    secret: &Secret,
    token: Option<&Secret>,
    from: &str,
) -> Result<AmazonS3Builder> {
    let parts = [Some(id), Some(secret.expose()), token.map(Secret::expose)];
    if !parts.into_iter().flatten().all(is_visible) {
        return Err(wrong(format!("the credentials from {from} must be visible ASCII characters, without spaces")));
    }
    let builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
    Ok(match token {
        Some(token) => builder.with_token(token.expose()),
        None => builder,
    })
}

/// What an environment variable says, unless it is empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

type Section = (String, Secret, Option<Secret>);

/// A section of the file that Amazon's tools keep credentials in.
async fn from_file(section: &str, environment: impl Fn(&str) -> Option<OsString>) -> Option<Section> {
    let home = || Some(PathBuf::from(environment("HOME")?).join(".aws/credentials"));
    let file = environment("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(home)?;
    read(&tokio::fs::read_to_string(file).await.ok()?, section)
}

fn read(text: &str, section: &str) -> Option<Section> {
    let mut fields = BTreeMap::new();
    let mut within = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            within = name.trim_end_matches(']').trim() == section;
        } else if let (true, Some((name, value))) = (within, line.split_once('=')) {
            fields.insert(name.trim(), value.trim());
        }
    }
    let secret = |name| fields.get(name).copied().map(Secret::new);
    let id = fields.get("aws_access_key_id")?;
    Some(((*id).to_owned(), secret("aws_secret_access_key")?, secret("aws_session_token")))
}

/// What the application provides: the texts, with a space between them.
fn provided(text: &str) -> Result<AwsCredential> {
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let (key_id, secret_key, token) = match parts[..] {
        _ if !parts.iter().all(|part| is_visible(part)) => {
            return Err(wrong("the credentials that the application provides must be visible ASCII characters".into()));
        }
        [id, secret] => (id, secret, None),
        [id, secret, token] => (id, secret, Some(token)),
        _ => {
            let message =
                "credentials are the texts of `access_key_id`, `secret_access_key` and perhaps `session_token`";
            return Err(wrong(message.into()));
        }
    };
    let owned = str::to_owned;
    Ok(AwsCredential { key_id: owned(key_id), secret_key: owned(secret_key), token: token.map(owned) })
}

#[cfg(test)]
mod tests {
    use storage_core::Error;

    use super::*;

    #[test]
    fn a_section_of_the_file_is_found() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key = B=\n\n[ other ]\naws_access_key_id=C\n\
                    aws_secret_access_key=D\naws_session_token=E\n[broken]\naws_access_key_id=F\n";
        let found = |section| {
            read(text, section).map(|(id, secret, token)| {
                (id, secret.expose().to_owned(), token.map(|token| token.expose().to_owned()))
            })
        };
        assert_eq!(found("default"), Some(("A".into(), "B=".into(), None)));
        assert_eq!(found("other"), Some(("C".into(), "D".into(), Some("E".into()))));
        assert_eq!((found("broken"), found("absent")), (None, None));
    }

    #[tokio::test]
    async fn who_asks_is_looked_for_in_order() {
        let home = tempfile::tempdir().unwrap();
        let section = |name: &str, id: &str| format!("[{name}]\naws_access_key_id={id}\naws_secret_access_key=S\n");
        let find = async |change: fn(&mut Config), variables: &[(&str, &str)]| {
            let mut config = Config::new("b");
            change(&mut config);
            let environment = |name: &str| {
                let set = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
                set.or_else(|| (name == "HOME").then(|| home.path().into()))
            };
            let builder = apply(&config, None, AmazonS3Builder::new(), environment).await?;
            let found = [Key::AccessKeyId, Key::Token, Key::WebIdentityTokenFile];
            Ok::<_, Error>(found.map(|key| builder.get_config_value(&key).unwrap_or_default()))
        };
        let identity = ("AWS_WEB_IDENTITY_TOKEN_FILE", "identity");
        let named = ("AWS_PROFILE", "work");
        let keys = [("AWS_ACCESS_KEY_ID", "variable"), ("AWS_SECRET_ACCESS_KEY", "S"), ("AWS_SESSION_TOKEN", "token")];
        let all = [identity, named, keys[0], keys[1], keys[2]];

        // While there is no file, the machine is asked, unless a section of the file is named.
        assert_eq!(find(|_| (), &[]).await.unwrap(), ["", "", ""]);
        assert_eq!(find(|_| (), &[identity]).await.unwrap(), ["", "", "identity"]);
        let error = find(|_| (), &[identity, named]).await.unwrap_err();
        assert!(error.message().contains("`work`"), "{error:?}");

        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let text = section("default", "file") + &section("work", "profile");
        std::fs::write(home.path().join(".aws/credentials"), text).unwrap();
        assert_eq!(find(|_| (), &[identity]).await.unwrap()[0], "file");
        assert_eq!(find(|_| (), &[identity, named]).await.unwrap()[0], "profile");
        let other = home.path().join("other");
        std::fs::write(&other, section("default", "other")).unwrap();
        let place = ("AWS_SHARED_CREDENTIALS_FILE", other.to_str().unwrap());
        assert_eq!(find(|_| (), &[identity, place]).await.unwrap()[0], "other");

        let login = ["http://user:hunter2@host", "http://user%3Ahunter2%40host", "user:hunter2@host"];
        for name in ["AWS_ENDPOINT_URL_STS", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_METADATA_ENDPOINT"] {
            for address in login {
                let error = find(|_| (), &[(name, address)]).await.unwrap_err();
                assert!(error.message().contains(name) && !format!("{error:?}").contains("unter2"), "{error:?}");
            }
            find(|_| (), &[(name, "http://127.0.0.1:51679/path?query=1")]).await.unwrap();
        }

        // What the environment says in part, or says nothing by, it does not say.
        assert_eq!(find(|_| (), &keys[..1]).await.unwrap()[0], "file");
        assert_eq!(find(|_| (), &[keys[0], ("AWS_SECRET_ACCESS_KEY", "")]).await.unwrap()[0], "file");
        assert_eq!(find(|_| (), &all).await.unwrap(), ["variable", "token", ""]);

        let profile = |config: &mut Config| config.profile = Some("default".into());
        assert_eq!(find(profile, &all).await.unwrap()[..2], ["file", ""]);
        let configured = |config: &mut Config| {
            (config.access_key_id, config.secret_access_key) = (Some(Secret::new("option")), Some(Secret::new("S")));
        };
        assert_eq!(find(configured, &all).await.unwrap(), ["option", "", ""]);
        assert_eq!(find(|config| config.anonymous = true, &all).await.unwrap(), ["", "", ""]);
    }

    #[test]
    fn what_no_header_can_hold_is_refused_and_not_repeated() {
        let apply = |id: &str, secret: &str, token: Option<&str>| {
            let token = token.map(Secret::new);
            with(AmazonS3Builder::new(), id, &Secret::new(secret), token.as_ref(), "`HERE`").map(drop)
        };
        apply("A", "B=", Some("C")).unwrap();
        let (id, secret, token) =
            (apply("hush\u{e9}", "B", None), apply("A", "hush B", None), apply("A", "B", Some("hush\u{1}")));
        for refused in [id, secret, token] {
            let error = refused.unwrap_err();
            assert!(error.message().contains("`HERE`") && !format!("{error:?}").contains("hush"), "{error:?}");
        }
        let error = provided("A hush\u{e9}").unwrap_err();
        assert!(error.message().contains("the application") && !format!("{error:?}").contains("hush"), "{error:?}");
    }
}
