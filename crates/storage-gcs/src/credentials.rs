//! Credential resolution order: configuration, provider, credentials file of Google's tools, instance metadata.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::{
    StaticCredentialProvider,
    gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder},
};
use serde::{Deserialize, Serialize};
use storage_config::{CredentialProvider, Secret};
use storage_core::{Error, Result};
use storage_object_store::http::Provided;

use crate::{Config, config::wrong, error};

/// Names a file of credentials, to all of Google's tools.
const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Where Google's command line keeps those of the person who uses it.
const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";

/// Whoever asks.
pub(crate) enum Who {
    /// Nobody that has a name.
    Nobody,
    /// The application knows.
    Application { provider: Arc<dyn CredentialProvider>, name: String },
    /// A service account, by what object_store reads of its file, and where that was.
    ServiceAccount { key: Secret, from: String },
    /// A person, by a file of Google's command line.
    Person(PathBuf),
    /// Whom the metadata server of the machine names.
    Machine,
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Application { .. } => "Application",
            Self::ServiceAccount { .. } => "ServiceAccount",
            Self::Person(_) => "Person",
            Self::Machine => "Machine",
        })
    }
}

impl Who {
    /// Looks where credentials may be, in the order of the README.
    pub(crate) async fn find(
        config: &Config,
        emulated: bool,
        provider: Option<Arc<dyn CredentialProvider>>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        if config.anonymous {
            return Ok(Self::Nobody);
        }
        if let Some(name) = &config.credentials {
            let provider = provider.ok_or_else(|| {
                wrong(
                    "`credentials` names credentials, but the application provides none; set `service_account_file` instead"
                        .into(),
                )
            })?;
            return Ok(Self::Application { provider, name: name.clone() });
        }
        if let Some(key) = &config.service_account_key {
            return service_account(key.expose(), "`service_account_key`");
        }
        if let Some(file) = &config.service_account_file {
            return service_account(&read(file, "`service_account_file`").await?, "`service_account_file`");
        }
        if emulated {
            return Ok(Self::Nobody);
        }
        if let Some(file) = environment(VARIABLE).filter(|file| !file.is_empty()) {
            let from = format!("`{VARIABLE}`");
            return default(Path::new(&file), &read(Path::new(&file), &from).await?, &from);
        }
        let home = environment("HOME").filter(|home| !home.is_empty());
        if let Some(file) = home.map(|home| Path::new(&home).join(WELL_KNOWN))
            && tokio::fs::try_exists(&file).await.unwrap_or(false)
        {
            let from = format!("`~/{WELL_KNOWN}`");
            return default(&file, &read(&file, &from).await?, &from);
        }
        Ok(Self::Machine)
    }
}

/// Makes the client for whoever asks.
pub(crate) fn build(who: Who, builder: GoogleCloudStorageBuilder) -> Result<GoogleCloudStorage> {
    let token = |bearer: &str| GcpCredential { bearer: bearer.to_owned() };
    let (builder, from) = match who {
        // Writes carry the token all the same, and an empty one is left out on the way.
        Who::Nobody => {
            let nobody = Arc::new(StaticCredentialProvider::new(token("")));
            (builder.with_credentials(nobody).with_skip_signature(true), None)
        }
        Who::Application { provider, name } => {
            (builder.with_credentials(Arc::new(Provided::new(provider, &name, provided))), None)
        }
        Who::ServiceAccount { key, from } => (builder.with_service_account_key(key.expose()), Some(from)),
        Who::Person(file) => (builder.with_application_credentials(file.to_string_lossy()), None),
        Who::Machine => (builder, None),
    };
    builder.build().map_err(|e| match from {
        // The cause is left out, since it may quote a part of the key.
        Some(from) => wrong(format!(
            "the `private_key` in {from} is not a valid PEM key; use the service-account file unmodified"
        )),
        None => error::build(e),
    })
}

async fn read(file: &Path, from: &str) -> Result<String> {
    let text = tokio::fs::read_to_string(file).await;
    text.map_err(|e| {
        wrong(format!("the file that {from} names cannot be read; correct its name or its rights")).with_source(e)
    })
}

/// What Google's files say of themselves.
#[derive(Deserialize)]
struct Kind {
    r#type: Option<String>,
}

/// Of the file of a service account, what is needed.
#[derive(Deserialize, Serialize)]
struct ServiceAccount {
    private_key: String,
    private_key_id: String,
    client_email: String,
}

/// Of the file of a person, what is needed.
#[derive(Deserialize)]
struct Person {
    #[serde(rename = "client_id")]
    _id: String,
    #[serde(rename = "client_secret")]
    _secret: String,
    #[serde(rename = "refresh_token")]
    _token: String,
}

/// A file that may be of any kind.
fn default(file: &Path, text: &str, from: &str) -> Result<Who> {
    match kind(text, from)?.as_str() {
        "authorized_user" => {
            // The causes of these are left out, since they may quote a secret.
            let complete = serde_json::from_str::<Person>(text).is_ok();
            complete.then(|| Who::Person(file.to_owned())).ok_or_else(|| {
                wrong(format!(
                    "the credentials in {from} are not complete; run `gcloud auth application-default login` again"
                ))
            })
        }
        _ => service_account(text, from),
    }
}

fn service_account(text: &str, from: &str) -> Result<Who> {
    match kind(text, from)?.as_str() {
        "service_account" => {}
        known @ ("authorized_user"
        | "external_account"
        | "impersonated_service_account"
        | "external_account_authorized_user") => {
            return Err(wrong(format!(
                "{from} has credentials of the kind `{known}`, which are not supported here; use the key of a service account"
            )));
        }
        _ => return Err(no_account(from)),
    }
    let account: ServiceAccount = serde_json::from_str(text).map_err(|_| no_account(from))?;
    // Only this is passed on: object_store would take an address and more from the file.
    let key = serde_json::to_string(&account).map_err(|_| no_account(from))?;
    Ok(Who::ServiceAccount { key: Secret::new(key), from: from.to_owned() })
}

fn kind(text: &str, from: &str) -> Result<String> {
    let kind: Kind = serde_json::from_str(text).map_err(|_| no_account(from))?;
    Ok(kind.r#type.unwrap_or_default())
}

fn no_account(from: &str) -> Error {
    wrong(format!(
        "{from} is not the key of a service account, which is JSON with `type`, `private_key`, `private_key_id` and `client_email`"
    ))
}

/// What the application provides: a token.
fn provided(text: &str) -> Result<GcpCredential> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(wrong("a token is visible ASCII characters, without `Bearer` before it".into()));
    }
    Ok(GcpCredential { bearer: token.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = r#"{"type":"service_account","private_key":"hush","private_key_id":"i","client_email":"e","disable_oauth":true}"#;
    const PERSON: &str = r#"{"type":"authorized_user","client_id":"i","client_secret":"hush","refresh_token":"hush"}"#;

    #[tokio::test]
    async fn the_environment_is_asked_in_order() {
        let home = tempfile::tempdir().unwrap();
        let named = home.path().join("named.json");
        let config = Config::new("b");
        let find = async |emulated, variable: bool| {
            let environment = |name: &str| match name {
                "HOME" => Some(home.path().into()),
                VARIABLE if variable => Some(named.clone().into()),
                _ => None,
            };
            Who::find(&config, emulated, None, environment).await.map(|who| format!("{who:?}"))
        };
        assert_eq!(find(false, false).await.unwrap(), "Machine");
        let missing = find(false, true).await.unwrap_err();
        assert!(missing.message().contains(VARIABLE), "{missing:?}");
        let well_known = home.path().join(WELL_KNOWN);
        std::fs::create_dir_all(well_known.parent().unwrap()).unwrap();
        std::fs::write(&well_known, PERSON).unwrap();
        assert_eq!(find(false, false).await.unwrap(), "Person");
        std::fs::write(&named, ACCOUNT).unwrap();
        assert_eq!(find(false, true).await.unwrap(), "ServiceAccount");
        assert_eq!(find(true, true).await.unwrap(), "Nobody");
        std::fs::write(&well_known, r#"{"type":"external_account"}"#).unwrap();
        let other = find(false, false).await.unwrap_err();
        assert!(other.message().contains("`external_account`") && other.message().contains("gcloud"), "{other:?}");
        let explicit = Config { service_account_file: Some(named.clone()), ..Config::new("b") };
        let who = Who::find(&explicit, true, None, |_| None).await.unwrap();
        assert_eq!(format!("{who:?}"), "ServiceAccount");
    }

    #[test]
    fn files_are_told_apart_and_nothing_of_them_is_repeated() {
        let Who::ServiceAccount { key, .. } = service_account(ACCOUNT, "x").unwrap() else { panic!("an account") };
        assert_eq!(key.expose(), r#"{"private_key":"hush","private_key_id":"i","client_email":"e"}"#);
        assert!(matches!(default(Path::new("f"), PERSON, "x").unwrap(), Who::Person(_)));
        assert!(matches!(default(Path::new("f"), ACCOUNT, "x").unwrap(), Who::ServiceAccount { .. }));
        for wrong in [
            PERSON,
            "hush",
            "\"hush\"",
            "{}",
            r#"{"type":"hush"}"#,
            r#"{"type":"service_account","private_key":{"hush":1}}"#,
            r#"{"type":"external_account","private_key":"hush"}"#,
        ] {
            let error = service_account(wrong, "`here`").unwrap_err();
            let text = format!("{error:?}");
            assert!(text.contains("`here`") && !text.contains("hush"), "{text}");
        }
        let error = default(Path::new("f"), r#"{"type":"authorized_user","client_secret":["hush"]}"#, "x").unwrap_err();
        assert!(!format!("{error:?}").contains("hush"));
    }

    #[test]
    fn a_key_that_is_none_is_said_to_be_none() {
        for key in ["hush", "-----BEGIN PRIVATE KEY-----\naHVzaA==\n-----END PRIVATE KEY-----\n", "-----BEGIN hush\n"] {
            let text = serde_json::json!({
                "type": "service_account", "private_key": key, "private_key_id": "i", "client_email": "e",
            });
            let who = service_account(&text.to_string(), "`here`").unwrap();
            let error = build(who, GoogleCloudStorageBuilder::new().with_bucket_name("b")).unwrap_err();
            let text = format!("{error:?}");
            assert!(text.contains("`private_key`") && text.contains("`here`"), "{text}");
            assert!(!text.contains("hush") && !text.contains("aHVzaA"), "{text}");
        }
    }
}
