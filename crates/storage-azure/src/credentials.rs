//! Account, endpoint and credentials. Resolution order: configuration, provider, environment.

use std::sync::Arc;

use object_store::{
    CredentialProvider as CloudExtensions, StaticCredentialProvider,
    azure::{AzureAccessKey, AzureCredential, split_sas},
};
use storage_config::CredentialProvider;
use storage_core::{Error, ErrorKind, Result};
use storage_object_store::http::{Provided, server};

use crate::{Config, config::wrong};

/// The account that Microsoft has published for its emulators, with its key.
const EMULATOR: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");
const EMULATED: &str = "http://127.0.0.1:10000/devstoreaccount1";

pub(crate) type Credentials = Arc<dyn CloudExtensions<Credential = AzureCredential>>;

/// An account. It has no `Debug`, since that of its credentials shows them.
pub(crate) struct Account {
    pub(crate) name: String,
    /// Where its blobs are, without a slash at its end.
    pub(crate) endpoint: String,
    pub(crate) credentials: Credentials,
}

impl Account {
    /// Finds out which account is meant.
    pub(crate) fn new(
        config: &Config,
        provider: Option<Arc<dyn CredentialProvider>>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        if config.emulator {
            let endpoint = config.endpoint.as_deref().unwrap_or(EMULATED);
            return Self::at(EMULATOR.0.to_owned(), endpoint, by_key(EMULATOR.1, "emulator")?);
        }
        if let Some(text) = &config.connection_string {
            return Self::parse(text.expose(), "connection_string");
        }
        let alone = config.account.is_none() && config.credentials.is_none() && !config.anonymous;
        if alone
            && config.account_key.is_none()
            && config.sas.is_none()
            && config.endpoint.is_none()
            && let Some(text) = variable("AZURE_STORAGE_CONNECTION_STRING")
        {
            return Self::parse(&text, "AZURE_STORAGE_CONNECTION_STRING");
        }
        let derived = config.endpoint.as_deref().and_then(account_of);
        let name = config.account.clone().or(derived).or_else(|| variable("AZURE_STORAGE_ACCOUNT"));
        let name = name.ok_or_else(|| {
            wrong("no storage account configured; set `account`, `connection_string` or `emulator`".to_owned())
        })?;
        let endpoint = config.endpoint.clone().unwrap_or_else(|| format!("https://{name}.blob.core.windows.net"));
        Self::at(name, &endpoint, who(config, provider, variable)?)
    }

    fn at(name: String, endpoint: &str, credentials: Credentials) -> Result<Self> {
        let unusable = || {
            wrong(
                "the option `endpoint` must be a server, as in `https://account.blob.core.windows.net`, without `?`, `#`, user or \
                 password"
                    .to_owned(),
            )
        };
        let endpoint = server(endpoint).ok_or_else(unusable)?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(wrong("the option `account` must be a name of letters and digits".to_owned()));
        }
        Ok(Self { name, endpoint: endpoint.to_owned(), credentials })
    }

    /// Reads a connection string.
    fn parse(text: &str, option: &str) -> Result<Self> {
        let mut fields = Fields::default();
        for field in text.split(';').map(str::trim).filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').ok_or_else(|| {
                wrong(format!("`{option}` must be fields like `AccountName=…` with a `;` between them"))
            })?;
            fields.set(name, value, option)?;
        }
        if fields.emulator {
            let endpoint = fields.endpoint.unwrap_or(EMULATED);
            return Self::at(EMULATOR.0.to_owned(), endpoint, by_key(EMULATOR.1, option)?);
        }
        let name = fields.account.map(str::to_owned).or_else(|| account_of(fields.endpoint?));
        let name = name.ok_or_else(|| wrong(format!("`{option}` lacks `AccountName`")))?;
        let credentials = match (fields.key, fields.sas) {
            (Some(key), None) => by_key(key, option)?,
            (None, Some(sas)) => by_sas(sas, option)?,
            _ => return Err(wrong(format!("`{option}` needs either `AccountKey` or `SharedAccessSignature`"))),
        };
        let protocol = fields.protocol.unwrap_or("https");
        let suffix = fields.suffix.unwrap_or("core.windows.net");
        let usual = format!("{protocol}://{name}.blob.{suffix}");
        let endpoint = fields.endpoint.map_or(usual, str::to_owned);
        Self::at(name, &endpoint, credentials)
    }
}

/// What a connection string says.
#[derive(Default)]
struct Fields<'a> {
    protocol: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    sas: Option<&'a str>,
    suffix: Option<&'a str>,
    endpoint: Option<&'a str>,
    emulator: bool,
}

impl<'a> Fields<'a> {
    fn set(&mut self, name: &str, value: &'a str, option: &str) -> Result<()> {
        let place = match name {
            "DefaultEndpointsProtocol" => &mut self.protocol,
            "AccountName" => &mut self.account,
            "AccountKey" => &mut self.key,
            "SharedAccessSignature" => &mut self.sas,
            "EndpointSuffix" => &mut self.suffix,
            "BlobEndpoint" => &mut self.endpoint,
            "UseDevelopmentStorage" => {
                self.emulator = value == "true";
                return Ok(());
            }
            // Those of other services, and of copies of this one that can only be read.
            name if name.ends_with("Endpoint") => return Ok(()),
            // The name may be a part of a secret that was torn apart.
            _ => return Err(wrong(format!("`{option}` has a field that is not known here; see the README"))),
        };
        *place = Some(value);
        Ok(())
    }
}

/// Who asks, if the configuration or the environment says that apart from the account.
fn who(
    config: &Config,
    provider: Option<Arc<dyn CredentialProvider>>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Credentials> {
    if let Some(name) = &config.credentials {
        let provider = provider.ok_or_else(|| {
            wrong(
                "`credentials` names credentials, but the application provides none; set `account_key` or `sas` instead"
                    .to_owned(),
            )
        })?;
        return Ok(Arc::new(Provided::new(provider, name, provided)));
    }
    if let Some(key) = &config.account_key {
        return by_key(key.expose(), "account_key");
    }
    if let Some(sas) = &config.sas {
        return by_sas(sas.expose(), "sas");
    }
    if config.anonymous {
        // A signature of nothing adds nothing.
        return Ok(Arc::new(StaticCredentialProvider::new(AzureCredential::SASToken(Vec::new()))));
    }
    match (variable("AZURE_STORAGE_KEY"), variable("AZURE_STORAGE_SAS_TOKEN")) {
        (Some(key), _) => by_key(&key, "AZURE_STORAGE_KEY"),
        (None, Some(sas)) => by_sas(&sas, "AZURE_STORAGE_SAS_TOKEN"),
        (None, None) => Err(Error::new(
            ErrorKind::Unauthenticated,
            "no credentials were found; set `connection_string`, `account_key` or `sas`, or `anonymous` for a public container",
        )),
    }
}

fn by_key(key: &str, option: &str) -> Result<Credentials> {
    Ok(Arc::new(StaticCredentialProvider::new(access_key(key, option)?)))
}

fn by_sas(sas: &str, option: &str) -> Result<Credentials> {
    Ok(Arc::new(StaticCredentialProvider::new(signature(sas, option)?)))
}

/// The cause is left out of both errors, since it may quote a part of the secret.
fn access_key(key: &str, option: &str) -> Result<AzureCredential> {
    let key =
        AzureAccessKey::try_new(key).map_err(|_| wrong(format!("the account key in `{option}` is not base64")))?;
    Ok(AzureCredential::AccessKey(key))
}

fn signature(sas: &str, option: &str) -> Result<AzureCredential> {
    let pairs = split_sas(sas).ok().filter(|pairs| pairs.iter().any(|(name, _)| name == "sig"));
    let pairs = pairs.ok_or_else(|| {
        wrong(format!("the shared access signature in `{option}` must be like `sv=…&sig=…`, with `sig` among it"))
    })?;
    Ok(AzureCredential::SASToken(pairs))
}

/// The account is the first name of the path, as at emulators; without one, of the host.
fn account_of(endpoint: &str) -> Option<String> {
    let (_, rest) = endpoint.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.split('/').next().filter(|name| !name.is_empty());
    let host = host.split_once('.').map(|(name, _)| name).filter(|name| !name.bytes().all(|c| c.is_ascii_digit()));
    path.or(host).map(str::to_owned)
}

/// What the application provides: a signature or a key.
fn provided(text: &str) -> Result<AzureCredential> {
    if text.contains("sig=") { signature(text, "credentials") } else { access_key(text, "credentials") }
}

#[cfg(test)]
mod tests {
    use storage_config::Secret;

    use super::*;

    fn parse(text: &str) -> Result<(String, String)> {
        Account::parse(text, "connection_string").map(|account| (account.name, account.endpoint))
    }

    #[test]
    fn connection_strings_say_which_account_and_where() {
        let both = |name: &str, endpoint: &str| (name.to_owned(), endpoint.to_owned());
        for (text, expected) in [
            ("AccountName=a;AccountKey=aGk=", both("a", "https://a.blob.core.windows.net")),
            (
                "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=aGk=;EndpointSuffix=core.chinacloudapi.cn;",
                both("a", "http://a.blob.core.chinacloudapi.cn"),
            ),
            (
                "BlobEndpoint=https://b.blob.core.windows.net/;QueueEndpoint=https://q;SharedAccessSignature=sv=1&sig=x%3D",
                both("b", "https://b.blob.core.windows.net"),
            ),
            (
                "AccountName=a;AccountKey=aGk=;BlobEndpoint=http://127.0.0.1:10000/a",
                both("a", "http://127.0.0.1:10000/a"),
            ),
            ("UseDevelopmentStorage=true", both(EMULATOR.0, EMULATED)),
        ] {
            assert_eq!(parse(text).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn account_and_credentials_are_looked_for_in_order() {
        let string = ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=inthestring;AccountKey=c3RyaW5n");
        let account = ("AZURE_STORAGE_ACCOUNT", "variable");
        let key = ("AZURE_STORAGE_KEY", "a2V5");
        let sas = ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=variable");
        let all = [string, account, key, sas];
        let by_key = |key| AzureCredential::AccessKey(AzureAccessKey::try_new(key).unwrap());
        let by_sas = |text| AzureCredential::SASToken(split_sas(text).unwrap());
        let find = async |change: fn(&mut Config), variables: &[(&str, &str)]| {
            let mut config = Config::new("c");
            change(&mut config);
            let environment = |name: &str| {
                let set = variables.iter().find(|(known, _)| *known == name);
                set.map(|(_, value)| (*value).to_owned())
            };
            let account = Account::new(&config, None, environment)?;
            let who = account.credentials.get_credential().await.unwrap();
            Ok::<_, Error>((account.name, who))
        };
        let is = |name: &str, who: AzureCredential| (name.to_owned(), Arc::new(who));

        // The environment alone.
        let nobody = find(|_| (), &[]).await.unwrap_err();
        assert!(nobody.kind() == ErrorKind::Config && nobody.message().contains("`account`"), "{nobody:?}");
        assert_eq!(find(|_| (), &[account]).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
        assert_eq!(find(|_| (), &[account, sas]).await.unwrap(), is("variable", by_sas("sv=1&sig=variable")));
        assert_eq!(find(|_| (), &[account, key, sas]).await.unwrap(), is("variable", by_key("a2V5")));
        assert_eq!(find(|_| (), &all).await.unwrap(), is("inthestring", by_key("c3RyaW5n")));
        // What is empty is not there.
        let empty = ("AZURE_STORAGE_CONNECTION_STRING", "");
        let found = find(|_| (), &[empty, account, ("AZURE_STORAGE_KEY", ""), sas]).await.unwrap();
        assert_eq!(found, is("variable", by_sas("sv=1&sig=variable")));

        // A configuration that says something of an account does without the connection string of the environment.
        let named = |config: &mut Config| config.account = Some("option".into());
        assert_eq!(find(named, &all).await.unwrap(), is("option", by_key("a2V5")));
        let place = |config: &mut Config| config.endpoint = Some("https://place.blob.core.windows.net".into());
        assert_eq!(find(place, &all).await.unwrap(), is("place", by_key("a2V5")));
        let with_key = |config: &mut Config| config.account_key = Some(Secret::new("b3B0aW9u"));
        assert_eq!(find(with_key, &all).await.unwrap(), is("variable", by_key("b3B0aW9u")));
        let with_sas = |config: &mut Config| config.sas = Some(Secret::new("sig=option"));
        assert_eq!(find(with_sas, &all).await.unwrap(), is("variable", by_sas("sig=option")));
        let anonymous = |config: &mut Config| config.anonymous = true;
        assert_eq!(find(anonymous, &all).await.unwrap(), is("variable", AzureCredential::SASToken(Vec::new())));
        let whole =
            |config: &mut Config| config.connection_string = Some(Secret::new("AccountName=whole;AccountKey=b3B0aW9u"));
        assert_eq!(find(whole, &all).await.unwrap(), is("whole", by_key("b3B0aW9u")));
        let emulator = |config: &mut Config| config.emulator = true;
        assert_eq!(find(emulator, &all).await.unwrap(), is(EMULATOR.0, by_key(EMULATOR.1)));
    }

    #[test]
    fn what_is_no_connection_string_is_refused_without_its_secret() {
        for text in [
            "hunter2",
            "AccountName=a",
            "AccountKey=aHVudGVyMg==",
            "AccountName=a;AccountKey=hunter2!",
            "AccountName=a;AccountKey=aHVudGVyMg==;SharedAccessSignature=sig=hunter2",
            "AccountName=a;SharedAccessSignature=hunter2",
            "AccountName=a;hunter2=hunter2",
            "AccountName=a/b;AccountKey=aHVudGVyMg==",
            "AccountName=a;AccountKey=aHVudGVyMg==;BlobEndpoint=https://u:hunter2@host",
            "AccountName=a;AccountKey=aHVudGVyMg==;BlobEndpoint=https://u%3Ahunter2%40host",
            "AccountName=a;AccountKey=aHVudGVyMg==;BlobEndpoint=https://host?sig=hunter2",
            "AccountKey=aHVudGVyMg==;BlobEndpoint=https://u:hunter2@host",
            "AccountName=a;AccountKey=aHVudGVyMg==;BlobEndpoint=http://localhost:99999",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        }
    }

    #[test]
    fn an_address_names_its_account() {
        for (endpoint, expected) in [
            ("https://a.blob.core.windows.net", Some("a")),
            ("http://127.0.0.1:10000/b", Some("b")),
            ("http://localhost", None),
            ("http://127.0.0.1:10000", None),
        ] {
            assert_eq!(account_of(endpoint).as_deref(), expected);
        }
    }
}
