//! Names of environment variables, and the names that a pack may not set.

use std::fmt;

/// Variables that change how programs load or what a shell runs. A pack's variables reach its scripts, the
/// service, and every client to which the user passes the environment.
const REFUSED: &[(&str, &str)] = &[
    ("PATH", "determines where programs are found"),
    ("HOME", "is set by svp"),
    ("PWD", "is set by the shell"),
    ("OLDPWD", "is set by the shell"),
    ("SHELL", "is set by svp"),
    ("TERM", "is set by svp"),
    ("IFS", "changes how shells read scripts"),
    ("ENV", "names a file that shells run"),
    ("BASH_ENV", "names a file that shells run"),
    ("BASHOPTS", "changes how shells read scripts"),
    ("SHELLOPTS", "changes how shells read scripts"),
    ("POSIXLY_CORRECT", "changes how shells read scripts"),
    ("PROMPT_COMMAND", "is run by shells"),
    ("PS4", "is run by shells"),
    ("CDPATH", "changes how shells read scripts"),
    ("GLOBIGNORE", "changes how shells read scripts"),
    ("GLIBC_TUNABLES", "changes how programs load"),
    ("GCONV_PATH", "loads code into programs"),
    ("LOCPATH", "changes how programs load"),
    ("NLSPATH", "changes how programs load"),
    ("HOSTALIASES", "changes how names resolve"),
    ("LOCALDOMAIN", "changes how names resolve"),
    ("RES_OPTIONS", "changes how names resolve"),
    ("RESOLV_HOST_CONF", "changes how names resolve"),
    ("OPENSSL_CONF", "loads code into programs"),
    ("OPENSSL_ENGINES", "loads code into programs"),
    ("OPENSSL_MODULES", "loads code into programs"),
    ("PYTHONPATH", "loads code into programs"),
    ("PYTHONHOME", "loads code into programs"),
    ("PYTHONSTARTUP", "loads code into programs"),
    ("PERL5LIB", "loads code into programs"),
    ("PERLLIB", "loads code into programs"),
    ("PERL5OPT", "loads code into programs"),
    ("PERL5DB", "loads code into programs"),
    ("RUBYLIB", "loads code into programs"),
    ("RUBYOPT", "loads code into programs"),
    ("NODE_OPTIONS", "loads code into programs"),
    ("NODE_PATH", "loads code into programs"),
    ("JAVA_TOOL_OPTIONS", "loads code into programs"),
    ("JDK_JAVA_OPTIONS", "loads code into programs"),
    ("_JAVA_OPTIONS", "loads code into programs"),
    ("CLASSPATH", "loads code into programs"),
    ("LUA_INIT", "loads code into programs"),
    ("LUA_PATH", "loads code into programs"),
    ("LUA_CPATH", "loads code into programs"),
    ("GIT_SSH", "makes git run programs"),
    ("GIT_SSH_COMMAND", "makes git run programs"),
    ("GIT_EXEC_PATH", "makes git run programs"),
    ("PHPRC", "loads code into programs"),
    ("PHP_INI_SCAN_DIR", "loads code into programs"),
];

/// Refused prefixes.
const REFUSED_PREFIXES: &[(&str, &str)] = &[
    ("LD_", "changes how programs load"),
    ("DYLD_", "changes how programs load"),
    ("BASH_FUNC_", "defines a shell function"),
    ("SVP_", "belongs to svp"),
];

/// The maximum length of a name, in bytes.
const MAX_NAME: usize = 255;

/// The reason why a pack may not set a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameProblem {
    /// The name doesn't match `[A-Za-z_][A-Za-z0-9_]*`, or is longer than 255 bytes.
    Grammar,
    /// No pack may set the variable, for this reason.
    Refused(&'static str),
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameProblem::Grammar => f.write_str(
                "invalid variable name: use [A-Za-z_][A-Za-z0-9_]*, at most 255 characters",
            ),
            NameProblem::Refused(why) => write!(f, "a pack may not set this variable: it {why}"),
        }
    }
}

/// Checks that a variable's name matches `[A-Za-z_][A-Za-z0-9_]*` and that [`why_refused`] allows it.
pub fn check_name(name: &str) -> Result<(), NameProblem> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || name.len() > MAX_NAME || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(NameProblem::Grammar);
    }
    why_refused(name).map_or(Ok(()), |why| Err(NameProblem::Refused(why)))
}

/// Returns the reason why no pack may set the variable `name`; `None` if a pack may.
pub fn why_refused(name: &str) -> Option<&'static str> {
    let exact = REFUSED.iter().find(|(refused, _)| *refused == name);
    let prefix = || REFUSED_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    exact.or_else(prefix).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("MYSQL_PASSWORD")]
    #[case("_")]
    #[case("a1")]
    #[case("LDAP_PORT")]
    #[case("LD")]
    #[case("MYSQL_PATH")]
    #[case("PATHS")]
    #[case("ENVIRONMENT")]
    #[case("path")]
    fn valid_names(#[case] name: &str) {
        assert_eq!(check_name(name), Ok(()));
    }

    #[rstest::rstest]
    #[case("")]
    #[case("1A")]
    #[case("A-B")]
    #[case("A B")]
    #[case(" A")]
    #[case("A ")]
    #[case("A.B")]
    #[case("\u{e4}")]
    #[case("BASH_FUNC_ls%%")]
    #[case("$A")]
    fn invalid_names(#[case] name: &str) {
        assert_eq!(check_name(name), Err(NameProblem::Grammar));
    }

    #[rstest::rstest]
    #[case("PATH")]
    #[case("LD_PRELOAD")]
    #[case("LD_LIBRARY_PATH")]
    #[case("LD_")]
    #[case("BASH_ENV")]
    #[case("ENV")]
    #[case("IFS")]
    #[case("PYTHONPATH")]
    #[case("PERL5LIB")]
    #[case("NODE_OPTIONS")]
    #[case("SVP_ROOT")]
    #[case("GLIBC_TUNABLES")]
    fn refused_names(#[case] name: &str) {
        assert!(matches!(check_name(name), Err(NameProblem::Refused(_))), "{name}");
    }

    #[test]
    fn a_name_has_at_most_255_characters() {
        assert_eq!(check_name(&"A".repeat(255)), Ok(()));
        assert_eq!(check_name(&"A".repeat(256)), Err(NameProblem::Grammar));
    }
}
