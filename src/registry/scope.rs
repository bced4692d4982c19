//! The scopes of tokens: what a request needs, merged with what the registry's challenge names
//! (distribution's "Token Scope Documentation").

/// What a request needs at a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Access {
    /// `HOST[:PORT]`, as the reference names it.
    pub(super) registry: String,
    /// Empty for a login test, which needs no scope.
    pub(super) repository: String,
    /// Whether the request belongs to a push. Registries also ask for less: no scope, or only `pull`.
    pub(super) push: bool,
    /// Another repository, which a blob is mounted from.
    pub(super) mount_from: Option<String>,
}

/// `TYPE:NAME:ACTION,…`; the name may contain a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    kind: String,
    name: String,
    actions: Vec<String>,
}

impl Access {
    /// Returns whether a grant for `other` may serve this request if its scope does not matter.
    pub(super) fn same_repository(&self, other: &Access) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// Returns the scopes to request from the token server, given the `scope` of the registry's challenge: those that
    /// this request needs, and those that the registry names.
    pub(super) fn scopes(&self, challenged: Option<&str>) -> Vec<String> {
        let mut wanted = Vec::new();
        if !self.repository.is_empty() {
            let actions: &[&str] = if self.push { &["pull", "push"] } else { &["pull"] };
            wanted.push(Scope::repository(&self.repository, actions));
        }
        wanted.extend(self.mount_from.iter().map(|from| Scope::repository(from, &["pull"])));
        let own = wanted.len();
        let mut foreign = Vec::new();
        for scope in challenged.unwrap_or_default().split_whitespace() {
            match Scope::parse(scope) {
                Some(scope) => match wanted.iter_mut().find(|wanted| wanted.same(&scope)) {
                    Some(wanted) => wanted.add(&scope.actions),
                    None => wanted.push(scope),
                },
                None => foreign.push(scope.to_owned()),
            }
        }
        // Some registries name a repository differently in scopes than in paths.
        if let [other] = &mut wanted[own..]
            && self.push
            && self.mount_from.is_none()
            && other.kind == "repository"
        {
            other.add(&["pull".to_owned(), "push".to_owned()]);
        }
        wanted.iter().map(Scope::text).chain(foreign).collect()
    }
}

impl Scope {
    fn repository(name: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Scope { kind: "repository".into(), name: name.into(), actions }
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let actions: Vec<_> =
            actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
        (!kind.is_empty() && !name.is_empty()).then(|| Scope {
            kind: kind.into(),
            name: name.into(),
            actions,
        })
    }

    fn same(&self, other: &Scope) -> bool {
        self.kind == other.kind && self.name == other.name
    }

    fn add(&mut self, actions: &[String]) {
        for action in actions {
            if !self.actions.contains(action) {
                self.actions.push(action.clone());
            }
        }
    }

    fn text(&self) -> String {
        format!("{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(push: bool, from: Option<&str>) -> Access {
        Access {
            registry: "r.example".into(),
            repository: "team/app".into(),
            push,
            mount_from: from.map(str::to_owned),
        }
    }

    #[test]
    fn a_request_asks_for_what_it_needs_and_what_the_registry_names() {
        let (pull, push) = (access(false, None), access(true, None));
        let mount = access(true, Some("base"));
        let cases: &[(&Access, Option<&str>, &[&str])] = &[
            (&pull, None, &["repository:team/app:pull"]),
            (&pull, Some("repository:team/app:pull"), &["repository:team/app:pull"]),
            (&pull, Some("repository:team/app:pull,push"), &["repository:team/app:pull,push"]),
            (
                &pull,
                Some("repository:app:pull"),
                &["repository:team/app:pull", "repository:app:pull"],
            ),
            (&push, None, &["repository:team/app:pull,push"]),
            (&push, Some(""), &["repository:team/app:pull,push"]),
            (&push, Some("repository:team/app:pull"), &["repository:team/app:pull,push"]),
            (&push, Some("repository:team/app:push"), &["repository:team/app:pull,push"]),
            (&push, Some("repository:team/app:*"), &["repository:team/app:pull,push,*"]),
            (
                &push,
                Some("repository:app:pull"),
                &["repository:team/app:pull,push", "repository:app:pull,push"],
            ),
            (
                &push,
                Some("registry:catalog:*"),
                &["repository:team/app:pull,push", "registry:catalog:*"],
            ),
            (&push, Some("aws"), &["repository:team/app:pull,push", "aws"]),
            (
                &mount,
                Some("repository:team/app:pull"),
                &["repository:team/app:pull,push", "repository:base:pull"],
            ),
            (
                &mount,
                Some("repository:team/app:pull,push repository:base:pull"),
                &["repository:team/app:pull,push", "repository:base:pull"],
            ),
        ];
        for (access, challenged, expected) in cases {
            assert_eq!(access.scopes(*challenged), *expected, "{access:?} {challenged:?}");
        }
        let login = Access { repository: String::new(), push: false, ..access(false, None) };
        assert!(login.scopes(None).is_empty());
    }
}
