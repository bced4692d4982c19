//! Writes words of the commands that messages suggest, so that a shell reads them as they are.

use std::borrow::Cow;

/// Quotes a word, if a shell or a program's option parser could read it otherwise.
pub(crate) fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// As [`quote`], for the path of a file: one that looks like an option gets a directory.
pub(crate) fn quote_path(path: &str) -> Cow<'_, str> {
    if path.starts_with('-') {
        Cow::Owned(quote(&format!("./{path}")).into_owned())
    } else {
        quote(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_quoted_words_as_they_are() {
        assert_eq!(quote("docker://localhost:5000/a-b_c:1"), "docker://localhost:5000/a-b_c:1");
        assert_eq!(quote_path("-x y"), "'./-x y'");
        for word in [
            "", "a b", "it's", "$(id)", "`id`", "a;b", "ä", "~", "*", "a\tb", "\"", "\\", "#x",
            "!!",
        ] {
            let script = format!("printf %s {}", quote(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{script}");
        }
    }
}
