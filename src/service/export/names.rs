//! Names that Kubernetes accepts.

/// The longest name of a Service, a label or a container.
const LONGEST: usize = 63;

/// Converts a name to a DNS label (RFC 1035): a letter first, then letters, digits and '-'.
pub(super) fn label(name: &str) -> String {
    let mut out: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    if !out.starts_with(|c: char| c.is_ascii_lowercase()) {
        out = format!("svp-{}", out.trim_start_matches('-'));
    }
    if out.len() > LONGEST {
        // The distinguishing part may be at the beginning or at the end.
        let hash = crate::oci::Digest::of(name.as_bytes()).hex()[..8].to_owned();
        out = format!("{}-{hash}", &out[..LONGEST - 9]);
    }
    out.trim_end_matches('-').to_owned()
}

/// Whether a ConfigMap can give a variable of this name to a container; others are silently left out by Kubernetes
/// (before 1.34) or refused.
pub(super) fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.starts_with("..")
        && !matches!(name, "" | ".")
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Converts several names to labels, all different.
pub(super) fn labels<N: AsRef<str>>(names: &[N]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in names {
        let first = label(name.as_ref());
        let numbered = (2..).map(|n| label(&format!("{first}-{n}")));
        let free = std::iter::once(first.clone()).chain(numbered).find(|name| !out.contains(name));
        out.extend(free);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_config_map() {
        for name in ["A", "_a1", "discovery.type", "a-b", ".a", "-"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["", ".", "..", "..a", "1a", "a b", "a/b", "BASH_FUNC_x%%", &"a".repeat(254)] {
            assert!(!is_variable(name), "{name}");
        }
    }

    #[test]
    fn labels_are_labels() {
        let cases = [
            ("h1", "h1"),
            ("My.DB_1", "my-db-1"),
            ("1st", "svp-1st"),
            ("_x_", "svp-x"),
            ("a-", "a"),
            ("h1.var-lib-hello", "h1-var-lib-hello"),
        ];
        for (name, expected) in cases {
            assert_eq!(label(name), expected);
        }
        let long = label(&"x".repeat(80));
        assert!(long.len() <= LONGEST && long != label(&"x".repeat(81)), "{long}");
        let same = ["a.b", "a_b", "a-b"].map(String::from);
        assert_eq!(labels(&same), ["a-b", "a-b-2", "a-b-3"]);
    }
}
