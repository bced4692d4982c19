//! Parses `WWW-Authenticate` as registries send it (RFC 9110, section 11.6.1).

/// A challenge that svp can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Returns the supported challenges in the header values, in their order.
pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for header in headers {
        for (scheme, parameters) in split(header) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|p| p.1.clone())
            };
            if scheme.eq_ignore_ascii_case("basic") {
                found.push(Challenge::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = get("realm")
            {
                found.push(Challenge::Bearer {
                    realm,
                    service: get("service"),
                    scope: get("scope"),
                });
            }
        }
    }
    found
}

type Parameters = Vec<(String, String)>;

/// Splits `scheme [token68 | name=value, …], scheme …`. A comma separates parameters as well as challenges; only
/// the text after it decides which.
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..end];
        let after = rest[end..].trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            Some(value) if !challenges.is_empty() => {
                let (value, remainder) = take_value(value.trim_start_matches([' ', '\t']));
                rest = remainder;
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
            }
            // Skip a stray "=".
            Some(value) => rest = value,
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// Parses a quoted string or a token; returns the rest.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) }
    }

    #[test]
    fn challenges() {
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"Basic realm="x, y""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Basic realm="a", Bearer realm=https://b/t , service = "s""#,
                vec![Challenge::Basic, bearer("https://b/t", Some("s"), None)],
            ),
            (
                r#"BEARER REALM="a\"b\\c",error="invalid_token""#,
                vec![bearer("a\"b\\c", None, None)],
            ),
            ("Negotiate", vec![]),
            ("Negotiate abc==, Basic realm=x", vec![Challenge::Basic]),
            ("Bearer", vec![]),
            (r#"Bearer realm="unclosed"#, vec![bearer("unclosed", None, None)]),
            (r#"Bearer realm="ends in \"#, vec![bearer("ends in ", None, None)]),
            ("", vec![]),
            (",,=,= =", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse([header]), expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_terminates(header in ".{0,200}") {
            parse([header.as_str()]);
        }
    }
}
