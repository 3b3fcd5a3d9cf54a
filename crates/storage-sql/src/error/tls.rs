//! What rustls says of a connection that it does not encrypt.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};
use storage_core::ErrorKind;

use super::Meaning;

/// What has to be set otherwise; `None` for errors of the connection itself.
pub(super) fn meaning(e: &io::Error) -> Option<Meaning> {
    use AlertDescription as Alert;

    let message = match e.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "the server's certificate is for another name; write the name in the URI that it is for, or lower `sslmode`"
        }
        Error::InvalidCertificate(_) => {
            "the server's certificate is not trusted; name a file with the certificate of its issuer in `sslrootcert`, or \
             lower `sslmode`"
        }
        Error::AlertReceived(
            Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate,
        ) => "the server does not accept the client's certificate; check `sslcert` and `sslkey`",
        Error::AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::ProtocolVersion)
        | Error::PeerIncompatible(_) => {
            "the server offers no encryption that this program takes; let it use TLS 1.2 or newer, or lower `sslmode`"
        }
        _ => return None,
    };
    Some((ErrorKind::Config, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_settings_is_told_from_what_is_wrong_with_the_connection() {
        let of = |e: Error| meaning(&io::Error::new(io::ErrorKind::InvalidData, e)).map(|(_, message)| message);
        for (e, setting) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "`sslrootcert`"),
            (Error::InvalidCertificate(CertificateError::NotValidForName), "another name"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "`sslcert`"),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), "`sslmode`"),
        ] {
            assert!(of(e.clone()).is_some_and(|message| message.contains(setting)), "{e}");
        }
        assert_eq!(of(Error::DecryptError), None);
        assert_eq!(meaning(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
