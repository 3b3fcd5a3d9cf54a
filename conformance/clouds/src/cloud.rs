//! The clouds, and how to connect to a server of each.

use storage_config::Secret;
use storage_core::{Result, Storage};
use storage_object_store::ObjectStoreBackend;

use crate::{Answer, Asked, Server, Store, azure, xml};

/// The bucket or container.
const BUCKET: &str = "test-bucket";

/// Whose protocol a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// The XML interface of Google Cloud Storage.
    Gcs,
}

impl Cloud {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Azure, Self::Gcs];

    /// A header that only this cloud sends.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::S3 => "x-amz-request-id",
            Self::Azure => "x-ms-request-id",
            Self::Gcs => "x-guploader-uploadid",
        }
    }

    /// How the headers begin that hold metadata.
    #[must_use]
    pub fn meta(self) -> &'static str {
        match self {
            Self::S3 => "x-amz-meta-",
            Self::Azure => "x-ms-meta-",
            Self::Gcs => "x-goog-meta-",
        }
    }

    /// A refusal as this cloud has it.
    #[must_use]
    pub fn refusal(self, status: u16, code: &str) -> Answer {
        let answer = Answer::xml(status, &format!("<Error><Code>{code}</Code><Message>no</Message></Error>"));
        let answer = answer.header(self.mark(), "1");
        if self == Self::Azure { answer.header("x-ms-error-code", code) } else { answer }
    }

    /// What it says of an object that is not there.
    #[must_use]
    pub fn absent(self) -> Answer {
        self.refusal(404, if self == Self::Azure { "BlobNotFound" } else { "NoSuchKey" })
    }

    /// What the path of the bucket is.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Self::Azure => "/devstoreaccount1/test-bucket",
            _ => "/test-bucket",
        }
    }

    pub(crate) fn serve(self, store: &mut Store, asked: &Asked) -> Answer {
        let answer = match self {
            Self::Azure => azure::serve(store, asked),
            _ => xml::serve(self, store, asked),
        };
        let marked = answer.headers.iter().any(|(name, _)| name == self.mark());
        if store.marked && !marked { answer.header(self.mark(), "1") } else { answer }
    }
}

impl Server {
    /// Connects to it.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn connect(&self) -> Result<Storage<ObjectStoreBackend>> {
        self.connect_with(|_| ()).await
    }

    /// The same with other settings of the store.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn connect_with(
        &self,
        change: impl FnOnce(&mut storage_object_store::Config),
    ) -> Result<Storage<ObjectStoreBackend>> {
        let address = format!("http://{}", self.address);
        let backend = match self.cloud {
            Cloud::S3 => {
                let mut config = storage_s3::Config::new(BUCKET);
                config.region = Some("us-east-1".into());
                config.endpoint = Some(address);
                config.access_key_id = Some(Secret::new("KEY"));
                config.secret_access_key = Some(Secret::new("SECRET"));
                change(&mut config.store);
                storage_s3::connect(config).await
            }
            Cloud::Azure => {
                let mut config = storage_azure::Config::new(BUCKET);
                config.emulator = true;
                config.endpoint = Some(format!("{address}/devstoreaccount1"));
                change(&mut config.store);
                storage_azure::connect(config).await
            }
            Cloud::Gcs => {
                let mut config = storage_gcs::Config::new(BUCKET);
                config.endpoint = Some(address);
                config.anonymous = true;
                change(&mut config.store);
                storage_gcs::connect(config).await
            }
        };
        backend.map(Storage::typed)
    }
}
