//! Plain http through a proxy: the request goes to the proxy, with the whole URL as its target (RFC 9112, section
//! 3.2.2). ureq would open a tunnel, which most proxies allow only for https.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::http::header::{HOST, PROXY_AUTHORIZATION};
use ureq::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use ureq::http::{HeaderName, Uri};

use super::credentials::Password;
use super::fault::Fault;
use super::url::Url;
use crate::error::Error;

/// Where a request is sent, and the headers that follow from it.
pub(super) struct Route {
    pub(super) uri: Uri,
    /// The value of `Host`, if it is not the host of `uri`.
    host: Option<String>,
    proxy_authorization: Option<Password>,
}

impl Route {
    /// Returns the headers that a proxy needs.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let login = self.proxy_authorization.as_ref().map(Password::reveal);
        let headers = [(HOST, self.host.as_deref()), (PROXY_AUTHORIZATION, login)];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Sends the request to the server of `url` itself, or through ureq's tunnel.
    pub(super) fn direct(url: &Url) -> Result<Self, Fault> {
        let uri = url.full().parse().map_err(|_| malformed(url))?;
        Ok(Route { uri, host: None, proxy_authorization: None })
    }

    /// Sends the request for `url` to `proxy`.
    pub(super) fn through(proxy: &ureq::Proxy, url: &Url) -> Result<Self, Fault> {
        let mut parts = Parts::default();
        parts.scheme = Some(match proxy.protocol() {
            ureq::ProxyProtocol::Https => Scheme::HTTPS,
            _ => Scheme::HTTP,
        });
        let authority = format!("{}:{}", proxy.host(), proxy.port());
        parts.authority = Some(Authority::try_from(authority).map_err(|_| malformed(url))?);
        let target = PathAndQuery::try_from(url.full()).map_err(|_| malformed(url))?;
        parts.path_and_query = Some(target);
        let login = proxy.username().map(|user| {
            let pair = format!("{user}:{}", proxy.password().unwrap_or_default());
            Password::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
        });
        Ok(Route {
            uri: Uri::from_parts(parts).map_err(|_| malformed(url))?,
            host: Some(url.authority()),
            proxy_authorization: login,
        })
    }
}

fn malformed(url: &Url) -> Fault {
    Fault::permanent(Error::registry(format!("the URL {url} is malformed")))
}
