//! URLs of registries, and the rules for redirects.
//!
//! A [`Url`] is displayed without its query: a redirect's query is often a signature that grants access.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

/// The supported schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// An absolute http or https URL without user information.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Url {
    scheme: Scheme,
    /// Lower case; IPv6 addresses with their brackets.
    host: String,
    port: u16,
    /// Starts with `/`; includes the query.
    path: String,
    /// Whether this host may be reached without verified TLS.
    insecure: bool,
}

impl Url {
    /// Creates `SCHEME://AUTHORITY/PATH`, where `authority` is a validated `HOST[:PORT]`.
    pub(super) fn new(scheme: Scheme, authority: &str, path: &str) -> Result<Self, String> {
        let scheme = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        Url::parse(&format!("{scheme}://{authority}{path}"))
    }

    /// Parses an absolute URL.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, _) = text.split_once("://").ok_or("it is not an absolute URL")?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            _ => return Err("svp follows only http and https".into()),
        };
        // A fragment is for the client and never sent.
        let text = text.split('#').next().unwrap_or(text);
        let uri: Uri = text.parse().map_err(|_| "it is malformed")?;
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it contains a user name".into());
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err("it has no host".into());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Url {
            scheme,
            host,
            port: authority.port_u16().unwrap_or(default_port),
            path,
            insecure: false,
        })
    }

    /// Returns the URL, allowing plain http and any certificate for its host.
    pub(super) fn insecure(self) -> Self {
        Url { insecure: true, ..self }
    }

    /// Returns whether plain http and any certificate are allowed for this host.
    pub(super) fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// Parses an absolute URL that this server sent. It is insecure only if this URL is insecure and has the same host.
    pub(super) fn named(&self, text: &str) -> Result<Self, String> {
        let next = Url::parse(text)?;
        let insecure = self.insecure && next.host == self.host;
        Ok(Url { insecure, ..next })
    }

    /// Resolves a `Location` against this URL (RFC 3986, section 5.2, dot segments left to the server).
    pub(super) fn join(&self, location: &str) -> Result<Self, String> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return self.named(location);
        }
        let has_scheme = location
            .split(['/', '?', '#'])
            .next()
            .is_some_and(|head| head.contains(':') && !head.starts_with(':'));
        if has_scheme {
            return Err("svp follows only http and https".into());
        }
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return self.named(&format!("{scheme}://{rest}"));
        }
        let own_path = self.path.split('?').next().unwrap_or("/");
        let path = if location.starts_with('/') {
            location.to_owned()
        } else if location.starts_with('?') {
            format!("{own_path}{location}")
        } else {
            let directory = own_path.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{location}")
        };
        self.named(&format!("{scheme}://{}{path}", self.authority()))
    }

    /// Returns the URL with `pairs` added to its query.
    pub(super) fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let mut path = self.path.clone();
        for (name, value) in pairs {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("{name}={}", percent_encode(value)));
        }
        Url { path, ..self.clone() }
    }

    /// Returns `HOST[:PORT]`, with the port unless it is the scheme's default.
    pub(super) fn authority(&self) -> String {
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Returns the host in lower case, IPv6 addresses with their brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns whether both have the same scheme, host and port. Credentials are only sent within an origin.
    pub(super) fn same_origin(&self, other: &Url) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// Returns the whole URL with its query: for requests, not for messages.
    pub(super) fn full(&self) -> String {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Checks that this server may direct svp to `next`, by a redirect or as a token server.
    ///
    /// Plain http is allowed only for loopback, and for an insecure registry that already uses it. A remote registry
    /// may not name this host's loopback: it could use svp to reach services that only listen locally.
    pub(super) fn may_send_to(&self, next: &Url) -> Result<(), String> {
        if is_loopback(&next.host) {
            if is_loopback(&self.host) {
                return Ok(());
            }
            return Err("a remote registry may not direct svp to this host's loopback".into());
        }
        // Never downgrade from TLS.
        let stays = next.insecure && self.scheme == Scheme::Http;
        if next.scheme == Scheme::Http && !stays {
            return Err("svp uses plain http only for loopback".into());
        }
        Ok(())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or("/");
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns whether `host` (no port; IPv6 with or without brackets) is loopback: 127.0.0.0/8, `::1`, `localhost`.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the host of a validated `HOST[:PORT]`.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_hides_the_query() {
        let url = Url::parse("HTTPS://Example.com:8443/a/b?X-Signature=secret#f").unwrap();
        assert_eq!(url.full(), "https://example.com:8443/a/b?X-Signature=secret");
        assert_eq!(url.to_string(), "https://example.com:8443/a/b");
        assert_eq!(format!("{url:?}"), "https://example.com:8443/a/b");
        let bad =
            ["file:///etc/passwd", "ftp://x/y", "//x/y", "/x", "", "http://", "http://u:p@x/y"];
        for text in bad {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resolves_locations() {
        let base = Url::parse("https://r.example:5000/v2/a/blobs/x?y=1").unwrap();
        let cases = [
            ("https://cdn.example/z?s=1", "https://cdn.example/z?s=1"),
            ("//cdn.example/z", "https://cdn.example/z"),
            ("/z?u=https://other/", "https://r.example:5000/z?u=https://other/"),
            ("z", "https://r.example:5000/v2/a/blobs/z"),
            ("?q=2", "https://r.example:5000/v2/a/blobs/x?q=2"),
        ];
        for (location, expected) in cases {
            assert_eq!(base.join(location).unwrap().full(), expected, "{location}");
        }
        for location in ["file:///etc/passwd", "file:/etc/passwd", "data:,x", "javascript:1"] {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn plain_http_and_loopback_are_restricted() {
        let url = |text: &str| Url::parse(text).unwrap();
        let cases = [
            ("https://r.example/", "https://cdn.example/", true),
            ("https://r.example/", "http://cdn.example/", false),
            ("https://r.example/", "http://127.0.0.1/", false),
            ("https://r.example/", "https://localhost/", false),
            ("https://r.example/", "https://[::1]:1/", false),
            ("http://localhost:5000/", "http://127.8.9.1:80/", true),
            ("http://localhost:5000/", "http://[::1]:80/", true),
            ("http://localhost:5000/", "https://cdn.example/", true),
            ("http://localhost:5000/", "http://cdn.example/", false),
            ("http://localhost:5000/", "http://localhost.example/", false),
        ];
        for (from, to, allowed) in cases {
            assert_eq!(url(from).may_send_to(&url(to)).is_ok(), allowed, "{from} -> {to}");
        }
    }

    #[test]
    fn insecure_applies_only_to_the_registrys_host() {
        let registry = Url::parse("http://r.example:5000/v2/").unwrap().insecure();
        let next = |location: &str| {
            let next = registry.join(location).unwrap();
            (registry.may_send_to(&next).is_ok(), next.is_insecure())
        };
        assert_eq!(next("/x"), (true, true));
        assert_eq!(next("http://r.example:5001/token"), (true, true));
        assert_eq!(next("https://r.example/x"), (true, true));
        assert_eq!(next("http://cdn.example/x"), (false, false));
        assert_eq!(next("https://cdn.example/x"), (true, false));
        assert_eq!(next("http://127.0.0.1/x"), (false, false));
        let tls = Url::parse("https://r.example/v2/").unwrap().insecure();
        assert!(tls.may_send_to(&tls.join("http://r.example/x").unwrap()).is_err());
    }

    #[test]
    fn origins_and_encoding() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(url("https://a/x").same_origin(&url("https://A:443/y")));
        assert!(!url("https://a/x").same_origin(&url("https://a:444/x")));
        assert!(!url("https://a:80/x").same_origin(&url("http://a:80/x")));
        let realm = url("https://a/token?x=1").with_query(&[("scope", "repository:b/c:pull")]);
        assert_eq!(realm.full(), "https://a/token?x=1&scope=repository%3Ab%2Fc%3Apull");
        assert_eq!(host_of("[::1]:5000"), "[::1]");
        assert_eq!(host_of("[::1]"), "[::1]");
        assert_eq!(host_of("a.b:1"), "a.b");
    }
}
