//! docs/decisions: every page has its header, the index lists every page, and no link of the documentation is dead.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repo;

/// Returns the Markdown files of `dir`, sorted.
fn pages(dir: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    found
}

/// Returns the index row of a page; `None` if its header is not `# NNN: TITLE`, `Status: …`, `Date: YYYY-MM-DD`.
fn row(name: &str, text: &str) -> Option<String> {
    let mut lines = text.lines();
    let number = name.get(..3)?;
    let title = lines.next()?.strip_prefix(&format!("# {number}: "))?;
    lines.next().filter(|line| line.is_empty())?;
    let status = lines.next()?.strip_prefix("Status: ")?;
    let by = status.strip_prefix("superseded by ").is_some_and(|by| by.parse::<u16>().is_ok());
    let date = lines.next()?.strip_prefix("Date: ")?;
    let digits = date.split('-').map(str::len).eq([4, 2, 2]);
    (digits && (by || status == "accepted"))
        .then(|| format!("| [{number}]({name}) | {title} | {status} | {date} |"))
}

#[test]
fn the_index_has_every_decision() {
    let dir = repo().join("docs/decisions");
    let mut rows = Vec::new();
    for page in pages(&dir) {
        let name = page.file_name().unwrap().to_str().unwrap();
        if name != "README.md" {
            let text = fs::read_to_string(&page).unwrap();
            rows.push(row(name, &text).unwrap_or_else(|| {
                panic!(
                    "{name} must begin with `# NNN: TITLE`, an empty line, `Status:` and `Date:`"
                )
            }));
        }
    }
    let index = fs::read_to_string(dir.join("README.md")).unwrap();
    let listed: Vec<_> = index.lines().filter(|line| line.starts_with("| [")).collect();
    assert_eq!(listed, rows, "docs/decisions/README.md must have these rows:\n{}", rows.join("\n"));
}

/// Returns the file targets of `[…](TARGET)`, without pictures, which scripts/pictures.sh makes.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| {
            !target.contains("://") && !target.contains(' ') && !target.ends_with(".svg")
        })
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
}

#[test]
fn the_documentation_has_no_dead_links() {
    let mut dead = Vec::new();
    for dir in ["", "docs", "docs/decisions"] {
        let dir = repo().join(dir);
        for page in pages(&dir) {
            let text = fs::read_to_string(&page).unwrap();
            let missing = links(&text).filter(|target| !dir.join(target).exists());
            dead.extend(missing.map(|target| format!("{}: {target}", page.display())));
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn headers_and_links_are_read() {
    let good = "# 007: A title\n\nStatus: superseded by 008\nDate: 2026-01-02\n\nText.";
    let expected = "| [007](007-a.md) | A title | superseded by 008 | 2026-01-02 |";
    assert_eq!(row("007-a.md", good).as_deref(), Some(expected));
    for bad in
        [&good.replace("007", "006"), &good.replace("by 008", ""), &good.replace("Date", "On")]
    {
        assert_eq!(row("007-a.md", bad), None, "{bad}");
    }
    let text = "[a](b.md#c) and [d](https://e) and [f](#g), [h](i/j), ![k](l.svg)";
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "i/j"]);
}
