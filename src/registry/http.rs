//! Sends single HTTP requests: chooses the agent, sets headers, follows redirects. No authentication, no retries.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
};

use super::fault::Fault;
use super::forward;
use super::options::ClientOptions;
use super::proxy::Proxies;
use super::response::Response;
use super::slow_servers::SlowServers;
use super::tls::{self, Trust};
use super::trace;
use super::url::{Scheme, Url};
use crate::error::{Error, Kind, Result};

const REDIRECTS: usize = 8;

/// The HTTP connections of a client.
pub(super) struct Http {
    options: ClientOptions,
    /// By the servers that they trust, and whether they use the proxy.
    agents: Mutex<HashMap<(Trust, Way), Agent>>,
    proxies: Proxies,
    /// The proxy for https.
    tunnel: Option<ureq::Proxy>,
    tls: Option<tls::Maker>,
    /// Why https is unavailable, and a hint.
    no_tls: Option<(String, String)>,
    request_timeout: Duration,
    minimum_rate: u64,
    rate_window: Duration,
    slow_servers: SlowServers,
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    Direct,
    /// https through a proxy's tunnel.
    Tunnel,
    /// Plain http that a proxy forwards.
    Forward,
}

/// Options of a GET request.
#[derive(Clone, Copy, Default)]
pub(super) struct GetOptions<'a> {
    pub(super) accept: Option<&'a str>,
    /// Sent only to the origin of the first URL, never to the target of a redirect to another origin.
    pub(super) authorization: Option<&'a str>,
    /// The offset to start from, for a range request; `None` for the whole.
    pub(super) from: Option<u64>,
    /// Timeout for the body; without it, the request timeout applies to the whole request.
    pub(super) body_time: Option<Duration>,
}

/// A request that may change state.
#[derive(Default)]
pub(super) struct WriteRequest<'a> {
    pub(super) method: Method,
    /// Sent only to the origin of the URL, never to the target of a redirect to another origin.
    pub(super) authorization: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    /// `FIRST-LAST`, the form that the distribution-spec uses.
    pub(super) content_range: Option<&'a str>,
    pub(super) body: Body<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Method {
    #[default]
    Head,
    Get,
    Post,
    Patch,
    Put,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Head => "HEAD",
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Put => "PUT",
        }
    }
}

/// A request's body. It may be sent several times.
#[derive(Clone, Copy, Default)]
pub(super) enum Body<'a> {
    #[default]
    None,
    Bytes(&'a [u8]),
    /// `size` bytes of a blob, starting at the offset `from`.
    Stream {
        content: &'a Reopen<'a>,
        from: u64,
        size: u64,
    },
}

/// Opens the bytes of a blob; called for each attempt with the first offset needed.
pub type Reopen<'a> = dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Sync + 'a;

impl Http {
    pub(super) fn new(options: &ClientOptions) -> Result<Self> {
        let (tls, no_tls) = match tls::Maker::new(&options.cacert) {
            Ok(maker) => (Some(maker), None),
            // Plain http to loopback still works.
            Err(error) if error.kind() == Kind::Registry => {
                let hint = error.hint_text().unwrap_or_default().to_owned();
                (None, Some((error.message().to_owned(), hint)))
            }
            Err(error) => return Err(error),
        };
        Ok(Http {
            options: options.clone(),
            agents: Mutex::default(),
            tunnel: options.proxies.for_https()?,
            proxies: options.proxies.clone(),
            tls,
            no_tls,
            request_timeout: options.request_timeout,
            minimum_rate: options.minimum_rate,
            rate_window: options.rate_window,
            slow_servers: SlowServers::new(options.reporter.clone()),
        })
    }

    fn new_agent(&self, trust: &Trust, way: Way) -> Result<Agent> {
        let options = &self.options;
        let config = Agent::config_builder()
            .user_agent(concat!("svp/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(self.tunnel.clone().filter(|_| way == Way::Tunnel))
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_send_request(Some(options.idle_timeout))
            .timeout_recv_response(Some(options.idle_timeout))
            .timeout_per_read(Some(options.idle_timeout))
            .timeout_per_write(Some(options.idle_timeout))
            .max_response_header_size(64 << 10);
        if way == Way::Forward
            && let Some(proxy) = self.proxies.for_http()?
        {
            return forward::agent(config, &proxy);
        }
        match &self.tls {
            Some(tls) => tls.agent(config, trust),
            None => Ok(config.build().new_agent()),
        }
    }

    /// Returns whether https is available.
    pub(super) fn has_tls(&self) -> bool {
        self.no_tls.is_none()
    }

    /// GETs `url`, following redirects as far as [`Url::may_send_to`] allows.
    pub(super) fn get(&self, url: &Url, get: GetOptions<'_>) -> Result<Response, Fault> {
        follow_redirects(url, |at| {
            let authorization = get.authorization.filter(|_| at.same_origin(url));
            Ok((self.get_once(at, &get, authorization)?, true))
        })
    }

    fn get_once(
        &self,
        at: &Url,
        get: &GetOptions<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, Fault> {
        let mut request = self.agent_for(at)?.get(at.full());
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = get.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(from) = get.from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let config = request.config();
        let config = match get.body_time {
            Some(time) => config.timeout_recv_body(Some(time)),
            None => config.timeout_global(Some(self.request_timeout)),
        };
        let request = config.build();
        let answer = self
            .slow_servers
            .watch(at, || trace::request("GET", at, http_status, || request.call()));
        let answer = answer.map_err(|error| Fault::of_transport(&self.peer(at), error))?;
        Response::new(at.clone(), answer)
    }

    /// POSTs a form to `url`; does not follow redirects, because the form may contain a token.
    pub(super) fn post_form(&self, url: &Url, form: &str) -> Result<Response, Fault> {
        let request = self
            .agent_for(url)?
            .post(url.full())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT_ENCODING, "identity");
        let request = request.config().timeout_global(Some(self.request_timeout)).build();
        let send = || trace::request("POST", url, http_status, || request.send(form));
        let answer = self.slow_servers.watch(url, send);
        let answer = answer.map_err(|error| Fault::of_transport(&self.peer(url), error))?;
        Response::new(url.clone(), answer)
    }

    /// Returns the name of the peer for messages; mentions the proxy, which may be the one that fails.
    fn peer(&self, url: &Url) -> String {
        let variable = match self.way(url) {
            Way::Direct => return url.authority(),
            Way::Tunnel => "HTTPS_PROXY",
            Way::Forward => "HTTP_PROXY",
        };
        format!("{} (through the proxy that {variable} names)", url.authority())
    }

    /// Sends a request, following redirects as far as [`Url::may_send_to`] allows; with a body, only redirects that
    /// keep the method (307 and 308).
    pub(super) fn send(&self, url: &Url, sent: &WriteRequest<'_>) -> Result<Response, Fault> {
        let with_body = !matches!(sent.method, Method::Head | Method::Get);
        follow_redirects(url, |at| {
            let authorization = sent.authorization.filter(|_| at.same_origin(url));
            let response = trace::request(
                sent.method.name(),
                at,
                |response: &Response| response.status,
                || self.send_once(at, sent, authorization),
            )?;
            let keeps_method = !with_body || matches!(response.status, 307 | 308);
            Ok((response, keeps_method))
        })
    }

    fn send_once(
        &self,
        at: &Url,
        sent: &WriteRequest<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, Fault> {
        let agent = self.agent_for(at)?;
        let uri = at.full();
        let server = self.peer(at);
        let headers = [
            (ACCEPT_ENCODING, Some("identity")),
            (AUTHORIZATION, authorization),
            (CONTENT_TYPE, sent.content_type),
            (CONTENT_RANGE, sent.content_range),
        ];
        let given = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let failed = |error| Fault::of_transport(&server, error);
        let mut request = match sent.method {
            Method::Head | Method::Get => {
                let request = match sent.method {
                    Method::Head => agent.head(uri),
                    _ => agent.get(uri),
                };
                let request =
                    given.fold(request, |request, (name, value)| request.header(name, value));
                let request = request.config().timeout_global(Some(self.request_timeout)).build();
                let answer = self.slow_servers.watch(at, || request.call());
                return Response::new(at.clone(), answer.map_err(failed)?);
            }
            Method::Post => agent.post(uri),
            Method::Patch => agent.patch(uri),
            Method::Put => agent.put(uri),
        };
        for (name, value) in given {
            request = request.header(name, value);
        }
        let (content, from, size) = match sent.body {
            Body::None => return self.with_bytes(at, request, b""),
            Body::Bytes(bytes) => return self.with_bytes(at, request, bytes),
            Body::Stream { content, from, size } => (content, from, size),
        };
        let slowest = Duration::from_secs(size / self.minimum_rate.max(1)) + self.rate_window;
        let request = request
            .header(CONTENT_LENGTH, size.to_string())
            .config()
            .timeout_send_body(Some(slowest))
            // A registry may have to move the uploaded data into place before it answers.
            .timeout_recv_response(Some(self.request_timeout.saturating_mul(5)))
            .build();
        let mut body =
            Watched { inner: content(from).map_err(Fault::permanent)?.take(size), failure: None };
        let answer = request.send(ureq::SendBody::from_reader(&mut body));
        match body.failure {
            Some(error) => Err(Fault::permanent(Error::io("read", "the blob", error))),
            None => Response::new(at.clone(), answer.map_err(failed)?),
        }
    }

    fn with_bytes(
        &self,
        at: &Url,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        bytes: &[u8],
    ) -> Result<Response, Fault> {
        let request = request.config().timeout_global(Some(self.request_timeout)).build();
        let answer = self.slow_servers.watch(at, || request.send(bytes));
        let answer = answer.map_err(|error| Fault::of_transport(&self.peer(at), error))?;
        Response::new(at.clone(), answer)
    }

    fn agent_for(&self, url: &Url) -> Result<Agent, Fault> {
        if url.scheme() == Scheme::Https
            && let Some((why, hint)) = &self.no_tls
        {
            return Err(Fault::permanent(Error::registry(why.clone()).hint(hint.clone())));
        }
        let way = self.way(url);
        // The server of a forwarded request is the proxy.
        let trust = match way {
            Way::Forward => Trust::default(),
            _ => Trust::of(url, &self.options.cert_dirs),
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&(trust.clone(), way)) {
            return Ok(agent.clone());
        }
        let agent = self.new_agent(&trust, way).map_err(Fault::permanent)?;
        agents.insert((trust, way), agent.clone());
        Ok(agent)
    }

    /// Returns whether a proxy forwards requests for `url`, which is plain http.
    pub(super) fn is_forwarded(&self, url: &Url) -> bool {
        self.way(url) == Way::Forward
    }

    fn way(&self, url: &Url) -> Way {
        let applies = || self.proxies.applies_to(url.host(), url.port());
        match url.scheme() {
            Scheme::Https if self.tunnel.is_some() && applies() => Way::Tunnel,
            Scheme::Http if self.proxies.has_http() && applies() => Way::Forward,
            _ => Way::Direct,
        }
    }
}

/// Sends a request to `url` and follows redirects as far as [`Url::may_send_to`] allows. `send` returns the response,
/// and whether to follow its redirect.
fn follow_redirects(
    url: &Url,
    send: impl Fn(&Url) -> Result<(Response, bool), Fault>,
) -> Result<Response, Fault> {
    let mut at = url.clone();
    for _ in 0..=REDIRECTS {
        let (response, may_follow) = send(&at)?;
        if !may_follow {
            return Ok(response);
        }
        match response.redirect()? {
            Some(next) => {
                response.discard();
                at = next;
            }
            None => return Ok(response),
        }
    }
    Err(Fault::permanent(Error::registry(format!("{url} redirects more than {REDIRECTS} times"))))
}

/// A body's source that keeps its read error, which the transport would report as a connection failure.
struct Watched {
    inner: io::Take<Box<dyn Read + Send>>,
    failure: Option<io::Error>,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failure = Some(error);
            }
            kind.into()
        })
    }
}

fn http_status(answer: &ureq::http::Response<ureq::Body>) -> u16 {
    answer.status().as_u16()
}
