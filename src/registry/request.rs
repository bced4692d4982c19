//! Authenticated requests of a client: sends a request, answers the registry's challenges, and sends it again.

use log::debug;

use super::challenge::{self, Challenge};
use super::credentials::Password;
use super::fault::{Fault, FaultKind};
use super::http::{GetOptions, WriteRequest};
use super::response::Response;
use super::scope::Access;
use super::token::Answer;
use super::url::Url;
use super::{Client, status, token};
use crate::error::Result;
use crate::oci::Reference;

/// Maximum number of challenges answered for one request: a registry may name further scopes.
const CHALLENGES: u32 = 3;

impl Client {
    /// GETs `/v2/REPOSITORY/path`, answering challenges if necessary.
    pub(super) fn get(
        &self,
        reference: &Reference,
        path: &str,
        get: GetOptions<'_>,
    ) -> Result<Response, Fault> {
        let url = self.url_in(reference, path)?;
        let request = |authorization: Option<&str>| {
            self.0.http.get(&url, GetOptions { authorization, ..get })
        };
        self.authorized(&access(reference, false), &url, &request)
    }

    /// Sends a request of a push to `/v2/REPOSITORY/path`.
    pub(super) fn send(
        &self,
        reference: &Reference,
        path: &str,
        sent: &WriteRequest<'_>,
    ) -> Result<Response, Fault> {
        self.send_as(&access(reference, true), &self.url_in(reference, path)?, sent)
    }

    /// As [`Client::send`], for a request that also reads the repository `from`.
    pub(super) fn send_mounting(
        &self,
        reference: &Reference,
        from: &str,
        path: &str,
        sent: &WriteRequest<'_>,
    ) -> Result<Response, Fault> {
        let access = Access { mount_from: Some(from.to_owned()), ..access(reference, true) };
        self.send_as(&access, &self.url_in(reference, path)?, sent)
    }

    /// Sends a request of a push to `url` on behalf of the registry of `reference`. Credentials are sent only to that
    /// registry.
    pub(super) fn send_to(
        &self,
        reference: &Reference,
        url: &Url,
        sent: &WriteRequest<'_>,
    ) -> Result<Response, Fault> {
        if !self.url_in(reference, "")?.same_origin(url) {
            return self.0.http.send(url, &WriteRequest { authorization: None, ..*sent });
        }
        self.send_as(&access(reference, true), url, sent)
    }

    fn send_as(
        &self,
        access: &Access,
        url: &Url,
        sent: &WriteRequest<'_>,
    ) -> Result<Response, Fault> {
        let request = |authorization: Option<&str>| {
            self.0.http.send(url, &WriteRequest { authorization, ..*sent })
        };
        self.authorized(access, url, &request)
    }

    /// Sends a request to the registry at `url`, answering its challenges with the scopes that `access` needs.
    pub(super) fn authorized(
        &self,
        access: &Access,
        url: &Url,
        request: &dyn Fn(Option<&str>) -> Result<Response, Fault>,
    ) -> Result<Response, Fault> {
        let authorizer = &self.0.authorizer;
        let mut header = authorizer.header(access);
        let mut answered = 0;
        // The scopes of the token that this request obtained last.
        let mut obtained: Option<Vec<String>> = None;
        loop {
            let response = request(header.as_ref().map(Password::reveal))?;
            if !matches!(response.status, 401 | 403) {
                return Ok(response);
            }
            // The target of a redirect gets no credentials.
            let own = response.url.same_origin(url) && answered < CHALLENGES;
            let challenges = match own {
                true => self.challenges(&response, access, header.is_none()),
                false => Vec::new(),
            };
            let scopes = token::scopes(access, &challenges);
            // The registry refuses what was just obtained: it would do so forever.
            let again = obtained.is_some() && (scopes.is_none() || obtained == scopes);
            let forbidden = response.status == 403;
            // A registry answers 403 to a request without a login, or with a token for too little. Otherwise 403 is final.
            if forbidden
                && (challenges.is_empty() || again || (header.is_some() && scopes.is_none()))
            {
                return Ok(response);
            }
            if !own || again {
                return Err(self.refused(response, access, url));
            }
            let (host, asks) = (url.authority(), challenges.len());
            debug!("{host} requires a login for {:?}: {asks} challenges", access.repository);
            let answer =
                authorizer.answer(&self.0.http, url, access, &challenges, header.as_ref())?;
            match authorizer.source(access) {
                Some(from) => debug!("{host}: authorized by the login of {from:?}"),
                None => debug!("{host}: authorized without a login"),
            }
            header = match answer {
                // A token obtained by another thread may have expired already.
                Answer::Shared(granted) => Some(granted),
                Answer::Obtained(granted) => {
                    obtained = scopes;
                    answered += 1;
                    Some(granted)
                }
                Answer::Same if forbidden => return Ok(response),
                Answer::Same => return Err(self.refused(response, access, url)),
            };
            response.discard();
        }
    }

    /// Returns the challenges of `response`. If it has none, and no login was sent, returns those of the API's root,
    /// where every registry that requires a login has one.
    fn challenges(&self, response: &Response, access: &Access, anonymous: bool) -> Vec<Challenge> {
        let found = challenges_in(response);
        if !found.is_empty() || !anonymous {
            return found;
        }
        let root = self.url(&access.registry, "/v2/");
        match root.and_then(|root| self.0.http.get(&root, GetOptions::default())) {
            Ok(root) if root.status == 401 => {
                let found = challenges_in(&root);
                root.discard();
                found
            }
            _ => Vec::new(),
        }
    }

    /// Creates the error for a response that refuses the login, or the lack of one.
    fn refused(&self, response: Response, access: &Access, url: &Url) -> Fault {
        // The target of a redirect got no credentials.
        let own = response.url.same_origin(url);
        let Some(from) = self.0.authorizer.source(access).filter(|_| own) else {
            let place = format!("{}/{}", access.registry, access.repository);
            return match access.push {
                true => status::push_fault(response, &format!("a part of {place}")),
                false => status::fault(response, &place),
            };
        };
        let bearer = challenges_in(&response).iter().any(|c| matches!(c, Challenge::Bearer { .. }));
        let said = status::said(response);
        match access.push && bearer {
            // The token server accepted the login, but its token does not allow the request.
            true => Fault {
                kind: FaultKind::Forbidden,
                ..token::may_not_push(url, &from, &access.repository, &said)
            },
            false => token::refused(url, &from, &said),
        }
    }
}

fn challenges_in(response: &Response) -> Vec<Challenge> {
    let values = response.headers.get_all("www-authenticate");
    challenge::parse(values.iter().filter_map(|value| value.to_str().ok()))
}

/// Returns what a request to the repository of `reference` needs.
fn access(reference: &Reference, push: bool) -> Access {
    Access {
        registry: reference.registry().unwrap_or("docker.io").to_owned(),
        repository: reference.repository().to_owned(),
        push,
        mount_from: None,
    }
}
