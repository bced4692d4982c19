//! `.svpignore`: excludes files of a pack from its layer, with the syntax of `.gitignore`.
//!
//! One pattern per line. Empty lines and lines that begin with `#` are ignored; a backslash escapes the next
//! character; trailing spaces are trimmed. A leading `!` re-includes files. A trailing `/` matches directories
//! only. A pattern with any other `/` is relative to the pack; one without a `/` matches at any depth. `*`, `?` and
//! `[a-z]` don't match a `/`; `**/`, `/**` and `/**/` match any number of directories. The last matching
//! pattern decides, and nothing inside an excluded directory can be re-included. Only the file at the pack's
//! top counts; `[[:alpha:]]` is not supported.

/// The maximum size of a `.svpignore`, in bytes.
pub(super) const MAX_SIZE: u64 = 64 << 10;

/// The patterns of a `.svpignore`.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    negated: bool,
    dirs_only: bool,
    /// Never empty; `**` stands alone in its segment.
    segments: Vec<Vec<u8>>,
}

impl Rules {
    /// Parses the patterns in `text`; there are no syntax errors.
    pub(super) fn parse(text: &[u8]) -> Rules {
        Rules(text.split(|&byte| byte == b'\n').filter_map(rule).collect())
    }

    /// Returns whether `path`, relative to the pack, is excluded. No parent of `path` may be excluded.
    pub(super) fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        let found = self
            .0
            .iter()
            .rev()
            .find(|rule| (is_dir || !rule.dirs_only) && matches_path(&rule.segments, &names));
        found.is_some_and(|rule| !rule.negated)
    }

    /// Returns whether the file `path` or one of its parents is excluded.
    pub(super) fn excludes_file(&self, path: &str) -> bool {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        parents.into_iter().any(|dir| self.excludes(dir.as_bytes(), true))
            || self.excludes(path.as_bytes(), false)
    }
}

fn rule(line: &[u8]) -> Option<Rule> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = trim_end(line);
    if line.starts_with(b"#") {
        return None;
    }
    let (negated, line) = match line.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (dirs_only, line) = match line.strip_suffix(b"/") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let anchored = line.contains(&b'/');
    let line = line.strip_prefix(b"/").unwrap_or(line);
    if line.is_empty() {
        return None;
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    if !anchored {
        segments.push(b"**".to_vec());
    }
    segments.extend(line.split(|&byte| byte == b'/').map(<[u8]>::to_vec));
    Some(Rule { negated, dirs_only, segments })
}

/// Trims trailing spaces, except an escaped one.
fn trim_end(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_suffix(b" ") {
        let escapes = rest.iter().rev().take_while(|&&byte| byte == b'\\').count();
        if escapes % 2 == 1 {
            break;
        }
        line = rest;
    }
    line
}

/// Matches a list of names; `**` matches any number of them, but at least one at the end.
fn matches_path(pattern: &[Vec<u8>], names: &[&[u8]]) -> bool {
    let (mut p, mut n) = (0, 0);
    // On a mismatch, resume after the last `**`, one name further.
    let mut retry: Option<(usize, usize)> = None;
    while n < names.len() {
        match pattern.get(p) {
            Some(segment) if segment == b"**" && p + 1 == pattern.len() => return true,
            Some(segment) if segment == b"**" => {
                p += 1;
                retry = Some((p, n));
            }
            Some(segment) if matches_name(segment, names[n]) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
        }
    }
    p == pattern.len()
}

/// Matches one name against `*`, `?`, `[...]` and escapes.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if let Some(used) = matches_byte(&pattern[p..], name[n]) {
            p += used;
            n += 1;
            continue;
        }
        let Some((after, from)) = retry else { return false };
        retry = Some((after, from + 1));
        (p, n) = (after, from + 1);
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Returns the length of the pattern's first element if it matches the byte, else `None`.
fn matches_byte(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let (used, matched) = class(&pattern[1..], byte)?;
            matched.then_some(used + 1)
        }
        b'\\' => (*pattern.get(1)? == byte).then_some(2),
        &other => (other == byte).then_some(1),
    }
}

/// Parses a class after its `[`: returns its length and whether it contains `byte`; `None` if unterminated.
fn class(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let (first, mut matched) = (at, false);
    loop {
        let mut low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, matched != negated));
        }
        if low == b'\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') && !matches!(pattern.get(at + 1), None | Some(b']')) {
            high = pattern[at + 1];
            at += 2;
            if high == b'\\' {
                high = *pattern.get(at)?;
                at += 1;
            }
        }
        matched |= (low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Returns the verdict of `git check-ignore` for these rules.
    fn git_says(rules: &str, path: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".gitignore"), rules).unwrap();
        let git = |args: &[&str]| {
            let mut command = std::process::Command::new("git");
            command.current_dir(dir.path()).args(args);
            command.status().expect("this test needs git").code()
        };
        assert_eq!(git(&["init", "-q"]), Some(0));
        if path.ends_with('/') {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let name = path.trim_end_matches('/');
        git(&["check-ignore", "--no-index", "-q", "--", name]) == Some(0)
    }

    #[rstest]
    #[case("*.log", "a.log", true)]
    #[case("*.log", "x/y/a.log", true)]
    #[case("*.log", "a.logs", false)]
    #[case("/a.log", "a.log", true)]
    #[case("/a.log", "x/a.log", false)]
    #[case("x/a", "x/a", true)]
    #[case("x/a", "y/x/a", false)]
    #[case("tests/", "tests/", true)]
    #[case("tests/", "tests", false)]
    #[case("tests/", "x/tests/", true)]
    #[case("**/a", "a", true)]
    #[case("**/a", "x/y/a", true)]
    #[case("a/**", "a/", false)]
    #[case("a/**", "a/x", true)]
    #[case("a/**", "a/x/y", true)]
    #[case("a/**/b", "a/b", true)]
    #[case("a/**/b", "a/x/y/b", true)]
    #[case("a/**/b", "a/x/y/c", false)]
    #[case("a/*/b", "a/x/b", true)]
    #[case("a/*/b", "a/x/y/b", false)]
    #[case("a/*/b", "a/b", false)]
    #[case("a?c", "abc", true)]
    #[case("a?c", "a/c", false)]
    #[case("[a-c]x", "bx", true)]
    #[case("[!a-c]x", "bx", false)]
    #[case("[^a-c]x", "dx", true)]
    #[case("[]-]x", "]x", true)]
    #[case("[]-]x", "-x", true)]
    #[case("[a", "[a", false)]
    #[case("# a", "# a", false)]
    #[case("\\#a", "#a", true)]
    #[case("\\!a", "!a", true)]
    #[case("a\\*", "a*", true)]
    #[case("a\\*", "ab", false)]
    #[case("a  ", "a", true)]
    #[case("a\\ ", "a ", true)]
    #[case("", "a", false)]
    #[case("/", "a", false)]
    #[case("*", ".hidden", true)]
    #[case("*.log\n!keep.log", "keep.log", false)]
    #[case("*.log\n!keep.log", "x/keep.log", false)]
    #[case("!keep.log\n*.log", "keep.log", true)]
    #[case("*\n!bin/", "bin/", false)]
    #[case("a*b*c*d", "aXbYcZd", true)]
    #[case("a*b*c*d", "aXbYcZ", false)]
    fn patterns_match_as_in_git(#[case] rules: &str, #[case] path: &str, #[case] out: bool) {
        let name = path.trim_end_matches('/');
        let is_dir = path.ends_with('/');
        assert_eq!(Rules::parse(rules.as_bytes()).excludes(name.as_bytes(), is_dir), out);
        assert_eq!(git_says(rules, path), out, "git");
    }

    #[test]
    fn crlf_does_not_matter() {
        assert!(Rules::parse(b"a\r\nb\r\n").excludes(b"a", false));
    }

    #[test]
    fn a_file_is_excluded_with_its_directory() {
        let rules = Rules::parse(b"bin/\n!bin/query\n");
        assert!(rules.excludes_file("bin/query"));
        assert!(!rules.excludes_file("binary"));
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let rules = Rules::parse(format!("{}b", "a*".repeat(200)).as_bytes());
        assert!(!rules.excludes("a".repeat(4000).as_bytes(), false));
        let rules = Rules::parse(format!("{}b", "**/a/".repeat(100)).as_bytes());
        assert!(!rules.excludes("a/".repeat(500).as_bytes(), false));
    }
}
