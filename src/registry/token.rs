//! Answers a registry's challenges: with basic credentials, or with a bearer token from its token server.
//!
//! A grant is cached for each kind of access to a repository, sent with every further request of that kind, and renewed
//! when the registry rejects it (distribution's "Token Authentication Specification").

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::auth::{AuthFiles, GIVEN};
use super::challenge::Challenge;
use super::credentials::{Login, Password};
use super::fault::Fault;
use super::http::{GetOptions, Http};
use super::response::Response;
use super::scope::Access;
use super::status;
use super::url::{Url, percent_encode};
use crate::error::{Error, Result};

const LARGEST_TOKEN: u64 = 1 << 20;
/// The token specification's default, in seconds.
const DEFAULT_LIFE: u64 = 60;

/// The cache of grants.
pub(super) struct Authorizer {
    files: AuthFiles,
    granted: Mutex<HashMap<Access, Grant>>,
}

#[derive(Clone)]
struct Grant {
    /// The value of `Authorization`.
    header: Password,
    until: Option<Instant>,
    /// The origin of the login; `None` for an anonymous grant.
    from: Option<String>,
    /// Whether it has a scope. Passwords and tokens of auth files have none: they serve every kind of access.
    scoped: bool,
}

/// The result of answering a challenge.
pub(super) enum Answer {
    /// An `Authorization` that this call obtained.
    Obtained(Password),
    /// One that another thread obtained since.
    Shared(Password),
    /// The credentials are those that the registry has just refused.
    Same,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Password>,
    access_token: Option<Password>,
    expires_in: Option<Value>,
}

impl Grant {
    fn alive(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Authorizer {
    pub(super) fn new(files: AuthFiles) -> Self {
        Authorizer { files, granted: Mutex::default() }
    }

    /// Returns the `Authorization` to send for `access`, if one was granted and has not expired.
    pub(super) fn header(&self, access: &Access) -> Option<Password> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        find(&granted, access).filter(|grant| grant.alive()).map(|grant| grant.header.clone())
    }

    /// Returns the origin of the login behind the grant for `access`; `None` if it is anonymous.
    pub(super) fn source(&self, access: &Access) -> Option<String> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        find(&granted, access)?.from.clone()
    }

    /// Obtains a new `Authorization` for `access` after `registry` refused `used` with `challenges`. Of several threads
    /// refused at the same time, one obtains it and the others wait.
    pub(super) fn answer(
        &self,
        http: &Http,
        registry: &Url,
        access: &Access,
        challenges: &[Challenge],
        used: Option<&Password>,
    ) -> Result<Answer, Fault> {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        // Use a grant that another thread has obtained since, unless it has expired.
        let other =
            granted.get(access).filter(|grant| grant.alive() && Some(&grant.header) != used);
        if let Some(grant) = other {
            return Ok(Answer::Shared(grant.header.clone()));
        }
        let found =
            self.files.find(&access.registry, &access.repository).map_err(Fault::permanent)?;
        let grant = match (best(challenges), found) {
            (Some(Challenge::Bearer { realm, service, scope }), found) => {
                let scopes = access.scopes(scope.as_deref());
                let asked = BearerRequest { registry, access, realm, service: service.as_deref() };
                asked.token(http, &scopes, found)?
            }
            (Some(Challenge::Basic), Some((Login::Basic { username, password }, from))) => {
                let header = basic(&username, &password);
                Grant { header, until: None, from: Some(from), scoped: false }
            }
            (Some(Challenge::Basic), Some((_, from))) => {
                return Err(Fault::permanent(
                    Error::registry(format!(
                        "{} requires a user name and a password, but {from} has a token",
                        registry.authority()
                    ))
                    .hint(status::LOG_IN),
                ));
            }
            (Some(Challenge::Basic), None) => {
                let error =
                    format!("{} requires a login for {}", registry.authority(), access.repository);
                return Err(Fault::permanent(Error::registry(error).hint(status::LOG_IN)));
            }
            (None, _) => {
                return Err(Fault::permanent(
                    Error::registry(format!(
                        "{} requires an authentication scheme that svp does not support",
                        registry.authority()
                    ))
                    .hint("svp supports basic and bearer authentication"),
                ));
            }
        };
        let header = grant.header.clone();
        let same = !grant.scoped && used == Some(&header);
        granted.insert(access.clone(), grant);
        Ok(if same { Answer::Same } else { Answer::Obtained(header) })
    }
}

/// Returns the grant for `access`: its own, or one without a scope for the same repository.
fn find<'a>(granted: &'a HashMap<Access, Grant>, access: &Access) -> Option<&'a Grant> {
    granted.get(access).or_else(|| {
        let same =
            |(other, grant): &(&Access, &Grant)| !grant.scoped && access.same_repository(other);
        granted.iter().find(same).map(|(_, grant)| grant)
    })
}

/// Returns the scopes that the answer to `challenges` requests; `None` unless a token is requested.
pub(super) fn scopes(access: &Access, challenges: &[Challenge]) -> Option<Vec<String>> {
    match best(challenges)? {
        Challenge::Bearer { scope, .. } => Some(access.scopes(scope.as_deref())),
        Challenge::Basic => None,
    }
}

/// Prefers bearer to basic: a leaked token does less harm than a leaked password.
fn best(challenges: &[Challenge]) -> Option<&Challenge> {
    let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    bearer.or_else(|| challenges.first())
}

/// Creates the error for a login that the server refused; `said` is its explanation.
pub(super) fn refused(registry: &Url, from: &str, said: &str) -> Fault {
    let error = format!("{} refuses {}{said}", registry.authority(), login_of(from));
    Fault::permanent(Error::registry(error).hint(status::LOG_IN))
}

/// Creates the error for a login whose token does not allow a push to `repository`.
pub(super) fn may_not_push(registry: &Url, from: &str, repository: &str, said: &str) -> Fault {
    let error = format!(
        "{} accepts {}, but does not let it push to {repository}{said}",
        registry.authority(),
        login_of(from)
    );
    Fault::permanent(Error::registry(error).hint(
        "log in as a user who may write there, or ask the repository's owner for access; some registries answer the \
         same for a repository that must be created first",
    ))
}

fn login_of(from: &str) -> String {
    match from {
        GIVEN => "this user name and password".to_owned(),
        from => format!("the login in {from}"),
    }
}

/// A bearer challenge being answered.
struct BearerRequest<'a> {
    registry: &'a Url,
    access: &'a Access,
    realm: &'a str,
    service: Option<&'a str>,
}

impl BearerRequest<'_> {
    fn token(
        &self,
        http: &Http,
        scopes: &[String],
        login: Option<(Login, String)>,
    ) -> Result<Grant, Fault> {
        let realm = self.realm_url()?;
        let scope = scopes.join(" ");
        let mut query: Vec<(&str, &str)> =
            self.service.map(|service| ("service", service)).into_iter().collect();
        let (login, from) = login.unzip();
        let response = match login {
            Some(Login::RegistryToken(token)) => {
                return Ok(Grant { header: bearer(&token)?, until: None, from, scoped: false });
            }
            Some(Login::IdentityToken(token)) => {
                // In a form, one parameter has all scopes; in a URL, each has its own.
                query.extend((!scope.is_empty()).then_some(("scope", scope.as_str())));
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "svp"),
                    ("refresh_token", token.reveal()),
                ]);
                let form: Vec<_> = query
                    .iter()
                    .map(|(name, value)| format!("{name}={}", percent_encode(value)))
                    .collect();
                http.post_form(&realm, &form.join("&"))?
            }
            Some(Login::Basic { username, password }) => {
                query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                query.push(("account", &username));
                let header = basic(&username, &password);
                let get =
                    GetOptions { authorization: Some(header.reveal()), ..GetOptions::default() };
                http.get(&realm.with_query(&query), get)?
            }
            None => {
                query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                http.get(&realm.with_query(&query), GetOptions::default())?
            }
        };
        self.read(response, &realm, from)
    }

    fn realm_url(&self) -> Result<Url, Fault> {
        let refuse = |why: String| {
            Fault::permanent(Error::registry(format!(
                "{} names a token server that svp does not contact: {why}",
                self.registry.authority()
            )))
        };
        let realm = self.registry.named(self.realm).map_err(refuse)?;
        self.registry.may_send_to(&realm).map_err(|why| refuse(format!("{realm}: {why}")))?;
        Ok(realm)
    }

    fn read(&self, response: Response, realm: &Url, from: Option<String>) -> Result<Grant, Fault> {
        match response.status {
            200 => {}
            400 | 401 | 403 => {
                let server = realm.authority();
                let said = status::said(response);
                let error = match &from {
                    Some(from) => format!("{server} refuses {}{said}", login_of(from)),
                    None => {
                        format!("{server} requires a login for {}{said}", self.access.repository)
                    }
                };
                return Err(Fault::permanent(Error::registry(error).hint(status::LOG_IN)));
            }
            _ => return Err(status::fault(response, "a token")),
        }
        let text = response.read(LARGEST_TOKEN, "a token")?;
        let bad =
            || Fault::permanent(Error::registry(format!("{} sends no token", realm.authority())));
        let answer: TokenAnswer = serde_json::from_slice(&text).map_err(|_| bad())?;
        let token = answer.token.filter(|token| !token.reveal().is_empty());
        let token = token.or(answer.access_token).ok_or_else(bad)?;
        let until = Some(Instant::now() + life(answer.expires_in.as_ref()));
        Ok(Grant { header: bearer(&token)?, until, from, scoped: true })
    }
}

/// Returns how long to use a token, given the server's `expires_in`. Invalid values (servers send 0, negative numbers
/// or text) count as the default: a registry whose token expires earlier answers 401.
fn life(expires_in: Option<&Value>) -> Duration {
    let said = expires_in.and_then(|said| match said {
        Value::String(text) => text.parse().ok(),
        said => said.as_u64(),
    });
    let seconds = said.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_LIFE).min(86_400);
    // Renew a little early: a token that expires in transit would be refused.
    Duration::from_secs(seconds - (seconds / 2).min(5))
}

fn basic(username: &str, password: &Password) -> Password {
    let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.reveal()));
    Password::new(format!("Basic {pair}"))
}

fn bearer(token: &Password) -> Result<Password, Fault> {
    let token = token.reveal();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Fault::permanent(Error::registry("the registry's token is malformed")));
    }
    Ok(Password::new(format!("Bearer {token}")))
}
