//! Failures of requests to a registry: their messages, and whether a retry may help.

use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use super::complaint::Complaint;
use crate::error::{Error, Kind};

/// The hint for answers that violate the distribution-spec.
pub(super) const AT_FAULT: &str =
    "the registry, or a proxy before it, is at fault: try again later, or contact its operator";

const NOT_FOUND: &str = "check the registry's name, and this machine's network and name service";

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) retry: Retry,
    pub(super) kind: FaultKind,
}

/// The failures that matter for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The server answered a TLS ClientHello with something else.
    NotTls,
    /// The server closed the connection.
    Cut,
    /// The connection was refused.
    Refused,
    /// The host or the proxy can't be reached.
    Unreachable,
    /// The server answered with this status.
    Status(u16, Complaint),
    /// The login is valid, but does not allow the request.
    Forbidden,
    Other,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// Yes, after the client's own delay or the server's `Retry-After`, whichever is longer.
    After(Option<Duration>),
}

impl Fault {
    /// Creates a fault for which a retry won't help.
    pub(super) fn permanent(error: Error) -> Self {
        Fault { error, retry: Retry::Never, kind: FaultKind::Other }
    }

    fn unreachable(error: Error) -> Self {
        Fault { kind: FaultKind::Unreachable, ..Fault::permanent(error) }
    }

    /// Creates a fault for which a retry may help.
    pub(super) fn transient(error: Error) -> Self {
        Fault { error, retry: Retry::After(None), kind: FaultKind::Other }
    }

    /// Converts the fault into an error with a hint.
    pub(super) fn into_error(self) -> Error {
        if self.error.kind() != Kind::Registry || self.error.hint_text().is_some() {
            return self.error;
        }
        self.error.hint(match self.retry {
            Retry::Never => AT_FAULT,
            Retry::After(_) => "check the network to the registry, or try again later",
        })
    }

    /// Converts ureq's error of a connection to `server` (`HOST[:PORT]`).
    pub(super) fn of_transport(server: &str, error: ureq::Error) -> Self {
        match error {
            ureq::Error::Io(error) => Self::of_io(server, error),
            ureq::Error::Rustls(error) => Self::of_tls(server, &error),
            ureq::Error::Timeout(timeout) => Self::of_timeout(server, timeout),
            ureq::Error::HostNotFound => Fault::unreachable(
                Error::registry(format!("host {server} not found")).hint(NOT_FOUND),
            ),
            ureq::Error::ConnectProxyFailed(why) => Fault::unreachable(
                Error::registry(format!(
                    "the proxy does not connect to {server}: {}",
                    excerpt(&why, 200)
                ))
                .hint("check HTTPS_PROXY and NO_PROXY"),
            ),
            ureq::Error::Tls(why) => Fault::permanent(Error::registry(format!("{server}: {why}"))),
            other => Fault::permanent(Error::registry(format!(
                "{server} does not send valid HTTP: {}",
                excerpt(&other.to_string(), 200)
            ))),
        }
    }

    /// Converts an I/O error while connecting to, writing to or reading from `server`.
    pub(super) fn of_io(server: &str, error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let error = match error.downcast::<ureq::Error>() {
            Ok(ureq::Error::Io(error)) | Err(error) => error,
            Ok(inner) => return Self::of_transport(server, inner),
        };
        let error = match error.downcast::<rustls::Error>() {
            Ok(tls) => return Self::of_tls(server, &tls),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::ConnectionRefused => Fault {
                kind: FaultKind::Refused,
                ..Fault::permanent(
                    Error::registry(format!("{server} refuses the connection"))
                        .hint("is the registry running, and is the port right?"),
                )
            },
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Fault {
                kind: FaultKind::Cut,
                ..Fault::transient(Error::registry(format!("{server} cut the connection")))
            },
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                Fault::transient(Error::registry(format!("{server} does not answer in time")))
            }
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied => Fault::unreachable(
                Error::registry(format!("{server} can't be reached"))
                    .hint("check this machine's network and firewall, and HTTPS_PROXY")
                    .source(error),
            ),
            // The standard library has no kind for failures of getaddrinfo.
            _ if error.to_string().contains("failed to lookup address") => {
                let passing = error.to_string().contains("emporary failure");
                let error = Error::registry(format!("host {server} not found"))
                    .hint(NOT_FOUND)
                    .source(error);
                let retry = if passing { Retry::After(None) } else { Retry::Never };
                Fault { retry, ..Fault::unreachable(error) }
            }
            _ => Fault::transient(
                Error::registry(format!("the connection to {server} failed"))
                    .hint("check this machine's network")
                    .source(error),
            ),
        }
    }

    fn of_timeout(server: &str, timeout: ureq::Timeout) -> Self {
        use ureq::Timeout;
        let what = match timeout {
            Timeout::Resolve | Timeout::Connect => "can't be reached in time",
            Timeout::PerRead | Timeout::RecvResponse => "stopped answering",
            Timeout::PerWrite | Timeout::SendRequest => "stopped reading",
            _ => "answers too slowly",
        };
        let error = Error::registry(format!("{server} {what}"))
            .hint("check the network to the registry, or try again later");
        match timeout {
            // Do not wait as long again for an unreachable host.
            Timeout::Resolve | Timeout::Connect => Fault::unreachable(error),
            _ => Fault::transient(error),
        }
    }

    fn of_tls(server: &str, error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(_) => Fault {
                kind: FaultKind::NotTls,
                ..Fault::permanent(
                    Error::registry(format!("{server} does not speak TLS"))
                        .hint(
                            "svp speaks plain http to loopback, and to registries that registries.conf \
                             marks as `insecure`",
                        ),
                )
            },
            rustls::Error::InvalidCertificate(why) => Fault::permanent(
                Error::registry(format!("the certificate of {server} is not trusted: {why}"))
                    .hint(hint_for(why)),
            ),
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied,
            ) => Fault::permanent(
                Error::registry(format!("{server} requires another client certificate: {error}"))
                    .hint(
                        "put NAME.cert and NAME.key into ~/.config/containers/certs.d/HOST:PORT, or \
                         into a directory that --cert-dir names",
                    ),
            ),
            other => Fault::permanent(
                Error::registry(format!("TLS with {server} failed: {other}"))
                    .hint("svp supports TLS 1.2 and 1.3: contact the registry's operator"),
            ),
        }
    }
}

/// Returns the hint for a certificate that was rejected because of `why`.
fn hint_for(why: &CertificateError) -> &'static str {
    use CertificateError as Why;
    match why {
        Why::Expired
        | Why::ExpiredContext { .. }
        | Why::NotValidYet
        | Why::NotValidYetContext { .. } => {
            "check this machine's clock (`date`); if it is right, the registry's operator must renew the certificate"
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "use a name that the certificate covers (its subjectAltName), or have one issued for this name"
        }
        _ => {
            "if the registry has its own certificate authority, name it with --cacert FILE, or put it into \
             ~/.config/containers/certs.d/HOST:PORT/ca.crt; if none is trusted, install ca-certificates"
        }
    }
}

/// Shortens a server's text to one line of at most `limit` characters, without control characters.
pub(super) fn excerpt(text: &str, limit: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if clean.chars().count() <= limit {
        return clean;
    }
    clean.chars().take(limit).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_have_no_control_characters() {
        assert_eq!(excerpt("a\n\x1b[31mb\t \u{9b} c\0", 99), "a [31mb c");
        assert_eq!(excerpt(&"x".repeat(500), 3), "xxx…");
    }
}
