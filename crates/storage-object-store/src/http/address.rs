//! Addresses and names from a configuration: which are taken, and what `Debug` shows of them.

use std::fmt;

/// Whether requests can be made to this address.
#[must_use]
pub fn is_address(address: &str) -> bool {
    // `object_store` reads each address both ways, and does not expect that the second fails.
    address.parse::<http::Uri>().is_ok() && reqwest::Url::parse(address).is_ok()
}

/// The address of a server, as in `https://host:port/path`, without slashes at its end. `None` for anything else, also for one with a
/// user, a password, a query or escapes, in which a secret may hide.
#[must_use]
pub fn server(text: &str) -> Option<&str> {
    let text = text.trim_end_matches('/');
    let (scheme, host) = text.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
    let is_one = matches!(scheme, "http" | "https") && !host.is_empty() && host.chars().all(plain) && is_address(text);
    is_one.then_some(text)
}

/// Whether an address is one that requests can be made to, without a user and a password.
#[must_use]
pub fn is_without_login(address: &str) -> bool {
    let plain = |url: reqwest::Url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    };
    is_address(address) && reqwest::Url::parse(address).is_ok_and(plain)
}

/// For `Debug` of a configuration: the address of a [`server`], and nothing of any other text.
#[must_use]
pub fn shown_address(text: &str) -> impl fmt::Debug {
    Shown(server(text))
}

/// For `Debug` of a configuration: a name of letters, digits and `.`, `-`, `_`, `$`, and nothing of any other text, which may be an
/// address that was put in the wrong place.
#[must_use]
pub fn shown_name(text: &str) -> impl fmt::Debug {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._$".contains(c);
    Shown(text.chars().all(plain).then_some(text))
}

struct Shown<'a>(Option<&'a str>);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => fmt::Debug::fmt(text, f),
            None => f.write_str("(hidden)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_shown_and_nothing_that_may_hold_a_secret() {
        for plain in ["http://127.0.0.1:9000", "https://host.example.org/path/", "http://[::1]:80"] {
            assert_eq!(server(plain), Some(plain.trim_end_matches('/')));
            assert!(format!("{:?}", shown_address(plain)).contains(plain.trim_end_matches('/')), "{plain}");
        }
        for hidden in [
            "hunter2",
            "host:9000",
            "ftp://host",
            "http://",
            "http://user:hunter2@host",
            "http://hunter2@host",
            "http://user%3Ahunter2%40host",
            "http://user:hunter%32@host",
            "http%3A%2F%2Fuser%3Ahunter2%40host",
            "http://user:hunter2/host",
            "http://host?sig=hunter2",
            "http://host/%3Fsig%3Dhunter2",
            "http://host#hunter2",
            "http://host/a b",
            "http://host:99999",
            "http://10.0.0.300:9000",
        ] {
            assert_eq!(server(hidden), None, "{hidden}");
            assert_eq!(format!("{:?}", shown_address(hidden)), "(hidden)", "{hidden}");
        }
        assert_eq!(format!("{:?}", shown_name("my-bucket.1_a")), "\"my-bucket.1_a\"");
        for hidden in ["key:hunter2@bucket", "key%3Ahunter2%40bucket", "bucket?sig=hunter2"] {
            assert_eq!(format!("{:?}", shown_name(hidden)), "(hidden)", "{hidden}");
        }
        assert!(is_without_login("http://host/path?query=1"));
        for login in
            ["http://user:hunter2@host", "http://user@host", "http://:hunter2@host", "user:hunter2@host", "host"]
        {
            assert!(!is_without_login(login), "{login}");
        }
    }
}
