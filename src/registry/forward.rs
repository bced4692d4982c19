//! Plain http through a proxy: the request goes to the proxy, with the whole URL as its target (RFC 9112, section
//! 3.2.2). ureq would open a tunnel, which most proxies allow only for https.

use std::fmt;
use std::io::{Read, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::Agent;
use ureq::config::{Config, ConfigBuilder};
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};

use super::credentials::Password;
use crate::error::{Error, Result};

/// Creates an agent whose requests go to `proxy`.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for a proxy that requires TLS.
pub(super) fn agent(config: ConfigBuilder<AgentScope>, proxy: &ureq::Proxy) -> Result<Agent> {
    let uri = format!("http://{}:{}", proxy.host(), proxy.port());
    let uri = uri.parse::<Uri>().ok().filter(|_| proxy.protocol() == ureq::ProxyProtocol::Http);
    let uri = uri.ok_or_else(|| {
        Error::usage("the proxy in HTTP_PROXY or ALL_PROXY can't be used for plain http")
            .hint("write it as http://[USER:PASSWORD@]HOST:PORT")
    })?;
    let login = proxy.username().map(|user| {
        let pair = format!("{user}:{}", proxy.password().unwrap_or_default());
        Password::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
    });
    // Only the first request of a connection is rewritten, so connections are not reused.
    let config = config.proxy(None).max_idle_connections(0).build();
    let chain = ().chain(TcpConnector::default()).chain(Forward { login });
    Ok(Agent::with_parts(config, chain, ProxyResolver { uri, inner: DefaultResolver::default() }))
}

/// Resolves every host to the addresses of the proxy.
struct ProxyResolver {
    uri: Uri,
    inner: DefaultResolver,
}

impl Resolver for ProxyResolver {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.inner.resolve(&self.uri, config, timeout)
    }
}

impl fmt::Debug for ProxyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProxyResolver").field(&self.uri).finish()
    }
}

/// Makes a connection to the proxy one that carries a request for another server.
#[derive(Debug)]
struct Forward {
    /// The value of `Proxy-Authorization`.
    login: Option<Password>,
}

impl<In: Transport> Connector<In> for Forward {
    type Out = ForwardTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let config = details.config;
        let server = details.uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Some(ForwardTransport {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            stream: TransportAdapter::new(transport.boxed(), details.current_time.clone()),
            target: Some((server, self.login.clone())),
        }))
    }
}

/// A connection to the proxy.
struct ForwardTransport {
    buffers: LazyBuffers,
    stream: TransportAdapter,
    /// The server and the proxy's login, until the request line is sent.
    target: Option<(String, Option<Password>)>,
}

impl Transport for ForwardTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        match self.target.take() {
            Some((server, login)) => self.stream.write_all(&rewritten(output, &server, login))?,
            None => self.stream.write_all(output)?,
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().is_open()
    }
}

impl fmt::Debug for ForwardTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardTransport").finish_non_exhaustive()
    }
}

/// Returns the begin of a request with the whole URL as its target, and with the proxy's login.
fn rewritten(output: &[u8], server: &str, login: Option<Password>) -> Vec<u8> {
    let end = output.windows(2).position(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
    let (line, rest) = output.split_at(end);
    let path = line.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
    let (method, target) = line.split_at(path);
    let login = login.map(|login| format!("Proxy-Authorization: {}\r\n", login.reveal()));
    let login = login.unwrap_or_default();
    [method, b"http://", server.as_bytes(), target, login.as_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_becomes_a_whole_url() {
        let request = b"GET /v2/?a=b HTTP/1.1\r\nHost: r.example:5\r\n\r\n";
        let login = Some(Password::new("Basic eDp5"));
        let found = rewritten(request, "r.example:5", login);
        let expected = "GET http://r.example:5/v2/?a=b HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\
            Host: r.example:5\r\n\r\n";
        assert_eq!(String::from_utf8(found).unwrap(), expected);
        let found = rewritten(b"PUT /x HTTP/1.1\r\n\r\nbody", "r", None);
        assert_eq!(found, b"PUT http://r/x HTTP/1.1\r\n\r\nbody");
    }
}
