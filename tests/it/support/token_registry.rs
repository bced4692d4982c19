//! A faulty registry with a token server, whose tokens contain the scopes that the client asked for.

use super::fault_registry::{FaultRegistry, Reply, Seen};

/// How a registry asks for a token.
#[derive(Clone, Copy, Default)]
pub struct Asks {
    /// The scope of every challenge; `None` for a challenge without one.
    pub scope: Option<&'static str>,
    /// Whether a token for too little is answered with 403 and no challenge, rather than 401.
    pub forbids: bool,
    /// Whether anyone may read, so that the first request that needs a token is an upload.
    pub open: bool,
    /// Whether an upload without a token is answered with 403 and no challenge.
    pub silent: bool,
}

/// Starts a registry that demands the scopes which each request really needs. `serve` replies to allowed requests.
pub fn start(asks: Asks, serve: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> FaultRegistry {
    FaultRegistry::start(move |seen| {
        if seen.path() == "/token" {
            // In a form, one parameter has all scopes.
            let token = seen.parameters("scope").join("|").replace(' ', "|");
            return Reply::status(200).body(format!("{{\"token\":\"T|{token}\"}}"));
        }
        let sent = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer T|"));
        let weak = match sent {
            Some(token) if allows(token, seen) => return serve(seen),
            None if asks.open && is_read(seen) && seen.path() != "/v2/" => return serve(seen),
            None if asks.silent && seen.path() != "/v2/" => return Reply::status(403).body(""),
            sent => sent.is_some(),
        };
        if weak && asks.forbids {
            return Reply::status(403)
                .body(r#"{"errors":[{"code":"DENIED","message":"weak token"}]}"#);
        }
        let realm = format!("http://{}/token", seen.header("host").unwrap());
        let scope = asks.scope.map_or(String::new(), |scope| format!(",scope=\"{scope}\""));
        Reply::status(401)
            .header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"x\"{scope}"))
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"not with this token"}]}"#)
    })
}

fn is_read(seen: &Seen) -> bool {
    matches!(seen.method.as_str(), "GET" | "HEAD")
}

/// Returns whether the token has the scopes that the request needs.
fn allows(token: &str, seen: &Seen) -> bool {
    let has = |repository: &str, action: &str| {
        token.split('|').any(|scope| {
            let Some((name, actions)) = scope.rsplit_once(':') else { return false };
            name == format!("repository:{repository}") && actions.split(',').any(|a| a == action)
        })
    };
    let path = seen.path().trim_start_matches("/v2/");
    let Some(end) = path.find("/blobs/").or_else(|| path.find("/manifests/")) else {
        // The location of an upload, and the API's root.
        return true;
    };
    let repository = &path[..end];
    let from = seen.parameters("from");
    has(repository, "pull")
        && (is_read(seen) || has(repository, "push"))
        && from.iter().all(|from| has(from, "pull"))
}
