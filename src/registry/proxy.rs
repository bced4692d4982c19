//! Proxy settings: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in upper or lower case.
//!
//! `HTTP_PROXY` is for plain http, which svp speaks to registries declared insecure. Loopback is reached directly.

use std::env;
use std::fmt;
use std::net::IpAddr;

use super::url::is_loopback;
use crate::error::{Error, Result};

/// The proxies for https and plain http, and the hosts that are reached without them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// The URL of the proxy for https, which may contain a password.
    https: Option<String>,
    /// The URL of the proxy for plain http.
    http: Option<String>,
    except: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// A domain with its subdomains, or an address as written; optionally only on one port.
    Domain(String, Option<u16>),
    /// A network: address and prefix length.
    Network(IpAddr, u8),
}

impl Proxies {
    /// Uses no proxy.
    pub fn none() -> Self {
        Proxies::default()
    }

    /// Reads the settings from the environment.
    pub fn from_env() -> Self {
        let get = |names: &[&str]| {
            names.iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty())
        };
        Self::new(
            get(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            &get(&["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        )
        .with_http(get(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]))
    }

    /// Creates settings from the proxy's URL, `https`, and a comma-separated list of exceptions: domains, addresses,
    /// networks (`10.0.0.0/8`) and `*`.
    pub fn new(https: Option<String>, except: &str) -> Self {
        let except = except.split(',').map(str::trim).filter(|e| !e.is_empty());
        Proxies { https, http: None, except: except.map(Exception::parse).collect() }
    }

    /// Uses `http`, a proxy's URL, for plain http.
    #[must_use]
    pub fn with_http(self, http: Option<String>) -> Self {
        Proxies { http, ..self }
    }

    /// Returns whether `host:port` is reached through a proxy, if there is one for the scheme.
    pub(super) fn applies_to(&self, host: &str, port: u16) -> bool {
        !is_loopback(host) && !self.except.iter().any(|exception| exception.matches(host, port))
    }

    /// Returns the proxy for https.
    ///
    /// # Errors
    /// If the URL is malformed or its scheme is unsupported. The message omits the URL, which may contain a password.
    pub(super) fn for_https(&self) -> Result<Option<ureq::Proxy>> {
        self.https.as_deref().map(|url| parse(url, "HTTPS_PROXY")).transpose()
    }

    /// Whether there is a proxy for plain http. It is parsed when it is first needed: hardly any registry is insecure.
    pub(super) fn has_http(&self) -> bool {
        self.http.is_some()
    }

    /// Returns the proxy for plain http.
    ///
    /// # Errors
    /// As [`Proxies::for_https`].
    pub(super) fn for_http(&self) -> Result<Option<ureq::Proxy>> {
        self.http.as_deref().map(|url| parse(url, "HTTP_PROXY")).transpose()
    }
}

/// Parses a proxy's URL from `variable`.
fn parse(url: &str, variable: &str) -> Result<ureq::Proxy> {
    let bad = || {
        Error::usage(format!("the proxy in {variable} or ALL_PROXY is invalid"))
            .hint("write it as http://[USER:PASSWORD@]HOST:PORT or https://HOST:PORT")
    };
    let proxy = ureq::Proxy::new(url).map_err(|_| bad())?;
    match proxy.protocol() {
        ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https => Ok(proxy),
        _ => Err(bad()),
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("https", &self.https.as_ref().map(|_| "…"))
            .field("http", &self.http.as_ref().map(|_| "…"))
            .field("except", &self.except)
            .finish()
    }
}

impl Exception {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Exception::All;
        }
        if let Some((address, prefix)) = text.split_once('/')
            && let (Ok(address), Ok(prefix)) = (address.parse(), prefix.parse())
        {
            return Exception::Network(address, prefix);
        }
        let text = text.to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().ok())
            }
            _ => (text.as_str(), None),
        };
        let host = host.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
        Exception::Domain(host.to_owned(), port)
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        match self {
            Exception::All => true,
            Exception::Domain(domain, only) => {
                only.is_none_or(|only| only == port)
                    && (host == *domain
                        || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
            }
            Exception::Network(network, prefix) => {
                host.parse().is_ok_and(|address| in_network(address, *network, *prefix))
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (a, b, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let prefix = u32::from(prefix);
    // `>>` by the full width of u128 overflows; checked_shr returns `None`, which means 0.
    prefix <= width && (a ^ b).checked_shr(width - prefix).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions() {
        let list = "a.example, .b.example,*.c.example,10.0.0.0/8,fd00::/16,1.2.3.4,d.example:444,";
        let proxies = Proxies::new(Some("http://p:1".into()), list);
        let cases = [
            ("r.example", true),
            ("a.example", false),
            ("x.A.example", false),
            ("xa.example", true),
            ("b.example", false),
            ("y.b.example", false),
            ("z.c.example", false),
            ("10.200.0.1", false),
            ("11.0.0.1", true),
            ("[fd00::1]", false),
            ("[fd01::1]", true),
            ("1.2.3.4", false),
            ("d.example", true),
            ("127.0.0.9", false),
            ("localhost", false),
            ("[::1]", false),
        ];
        for (host, proxied) in cases {
            assert_eq!(proxies.applies_to(host, 443), proxied, "{host}");
        }
        assert!(!proxies.applies_to("d.example", 444));
        assert!(!Proxies::new(Some("http://p:1".into()), "*").applies_to("r.example", 443));
        assert!(in_network("8.8.8.8".parse().unwrap(), "0.0.0.0".parse().unwrap(), 0));
        assert!(in_network("::8".parse().unwrap(), "::".parse().unwrap(), 0));
    }

    #[test]
    fn a_bad_proxy_is_refused_without_its_password() {
        for url in ["socks5://u:hunter2@x:1", "nonsense://u:hunter2@x", "http://u:hunter2@"] {
            let proxies = Proxies::new(Some(url.into()), "");
            let error = proxies.for_https().unwrap_err();
            assert!(!format!("{error:?} {proxies:?}").contains("hunter2"), "{url}");
        }
        assert!(Proxies::new(Some("http://u:p@x:1".into()), "").for_https().unwrap().is_some());
    }
}
