//! Requests that anybody can send for a while, without credentials.

use std::{fmt, time::Duration};

use crate::{BackendInfo, Error, ErrorKind, Result, check::need};

/// What a presigned request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PresignMethod {
    /// Reads the value.
    Get,
    /// Writes the value; what is written so has no metadata.
    Put,
    /// Asks whether there is a value, and how large it is.
    Head,
    /// Removes the value.
    Delete,
}

impl PresignMethod {
    /// The method of HTTP.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Head => "HEAD",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it leaves what is stored as it is.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

impl fmt::Display for PresignMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which request to presign.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresignOptions {
    /// What it does.
    pub method: PresignMethod,
    /// How long it can be sent, from now. Stores round it and have limits of their own, such as seven days.
    pub expires_in: Duration,
    /// The content type that a `PUT` must carry.
    pub content_type: Option<String>,
    /// The bytes that a `PUT` must have, exactly.
    pub content_length: Option<u64>,
}

impl PresignOptions {
    fn new(method: PresignMethod, expires_in: Duration) -> Self {
        Self { method, expires_in, content_type: None, content_length: None }
    }

    /// A request that reads the value.
    #[must_use]
    pub fn get(expires_in: Duration) -> Self {
        Self::new(PresignMethod::Get, expires_in)
    }

    /// A request that writes the value.
    #[must_use]
    pub fn put(expires_in: Duration) -> Self {
        Self::new(PresignMethod::Put, expires_in)
    }

    /// A request that asks whether there is a value.
    #[must_use]
    pub fn head(expires_in: Duration) -> Self {
        Self::new(PresignMethod::Head, expires_in)
    }

    /// A request that removes the value.
    #[must_use]
    pub fn delete(expires_in: Duration) -> Self {
        Self::new(PresignMethod::Delete, expires_in)
    }

    /// The content type that a `PUT` must carry. `Unsupported` where the store cannot bind it.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// The bytes that a `PUT` must have, exactly. `Unsupported` where the store cannot bind it.
    #[must_use]
    pub fn content_length(mut self, content_length: u64) -> Self {
        self.content_length = Some(content_length);
        self
    }

    /// Whether this backend presigns such a request.
    ///
    /// # Errors
    /// `Unsupported`, `InvalidInput` or `TooLarge`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { method, expires_in, content_type, content_length } = self;
        need(info.capabilities.presign, "presigned requests")?;
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidInput, message));
        if expires_in.is_zero() {
            return invalid("a presigned request that has already expired is of no use; set a lifetime");
        }
        if *method != PresignMethod::Put && (content_type.is_some() || content_length.is_some()) {
            return invalid("only a presigned PUT has a content type or a content length");
        }
        if let Some(content_type) = content_type
            && (content_type.is_empty() || !content_type.bytes().all(|byte| matches!(byte, b' '..=b'~')))
        {
            return invalid("the content type of a presigned request must be visible ASCII, for it is a header");
        }
        match content_length {
            Some(length) if *length > info.limits.value => Err(Error::new(
                ErrorKind::TooLarge,
                format!("the content length is {length}, this backend takes at most {} bytes", info.limits.value),
            )),
            _ => Ok(()),
        }
    }
}

/// A request that anybody can send until it expires. It is a secret: `Debug` leaves out the query of the URL.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresignedRequest {
    /// The method of HTTP with which it must be sent.
    pub method: PresignMethod,
    /// Where to send it.
    pub url: String,
    /// Headers that it must carry, with these values.
    pub headers: Vec<(String, String)>,
    /// How long it can be sent, from when it was made. The credentials that signed it may expire before.
    pub expires_in: Duration,
}

impl PresignedRequest {
    /// A request without headers of its own.
    #[must_use]
    pub fn new(method: PresignMethod, url: impl Into<String>, expires_in: Duration) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), expires_in }
    }

    /// One more header that it must carry.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, headers, expires_in } = self;
        let public = url.split_once('?').map_or(url.as_str(), |(public, _)| public);
        // The names alone: an encryption key of the caller is a header, too.
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("PresignedRequest")
            .field("method", method)
            .field("url", &format_args!("\"{public}?…\""))
            .field("headers", &names)
            .field("expires_in", expires_in)
            .finish()
    }
}
