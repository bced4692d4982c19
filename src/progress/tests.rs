//! Tests the JSON of each kind of event, and that every code is documented.

use super::*;

fn json(event: &Event<'_>) -> String {
    serde_json::to_string(event).unwrap()
}

#[test]
fn events_as_json() {
    let digest = "sha256:0123456789abcdef";
    let transfer = Transfer { digest, direction: Direction::Pull, done: 1 << 20, total: Some(42) };
    let retry = Retry {
        reason: "example.com cut the connection".into(),
        attempt: 1,
        attempts: 5,
        delay: Duration::from_millis(1500),
    };
    let moved = ServiceNote::PortMoved {
        port: 80,
        to: ([127, 83, 1, 2], 8080).into(),
        reason: PortReason::Privileged,
    };
    let cases = [
        (
            Event::Step(Step::Pull { source: "docker://example.com/a:1".into() }),
            r#"{"event":"step","code":"pull","source":"docker://example.com/a:1"}"#,
        ),
        (Event::Step(Step::WriteLayer), r#"{"event":"step","code":"write-layer"}"#),
        (
            Event::Note(ImageNote::Freed { bytes: 7, dry_run: true }.into()),
            r#"{"event":"note","code":"freed","bytes":7,"dryRun":true}"#,
        ),
        (
            Event::Note(moved.into()),
            r#"{"event":"note","code":"port-moved","port":80,"to":"127.83.1.2:8080","reason":"privileged"}"#,
        ),
        (Event::Note(BackupNote::NoHeader.into()), r#"{"event":"note","code":"no-header"}"#),
        (
            Event::Warning(Warning::RestoreFailed { exit_code: 3, verifying: false }),
            r#"{"event":"warning","code":"restore-failed","exitCode":3,"verifying":false}"#,
        ),
        (
            Event::Transfer(transfer),
            r#"{"event":"transfer","digest":"sha256:0123456789abcdef","direction":"pull","done":1048576,"total":42}"#,
        ),
        (
            Event::Transferred { digest },
            r#"{"event":"transferred","digest":"sha256:0123456789abcdef"}"#,
        ),
        (
            Event::Retry(retry),
            r#"{"event":"retry","reason":"example.com cut the connection","attempt":1,"attempts":5,"delayMs":1500}"#,
        ),
    ];
    for (event, expected) in cases {
        assert_eq!(json(&event), expected);
    }
}

#[test]
fn notes_survive_serialization() {
    for note in [
        Note::from(ServiceNote::OutOfMemory),
        ServiceNote::ContainerRestart { delay_ms: 1000 }.into(),
        ImageNote::MoreNotSet { count: 3 }.into(),
        BackupNote::Verified.into(),
    ] {
        let text = serde_json::to_string(&note).unwrap();
        assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), note);
    }
}

/// Renames `name` as serde does: to kebab-case or to camelCase.
fn renamed(name: &str, kebab: bool) -> String {
    let mut out = String::new();
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if kebab && c.is_ascii_uppercase() => {
                out.push_str(if out.is_empty() { "" } else { "-" });
                out.push(c.to_ascii_lowercase());
            }
            c if std::mem::take(&mut upper) => out.push(c.to_ascii_uppercase()),
            c => out.push(c),
        }
    }
    out
}

#[test]
fn every_code_is_documented() {
    let documentation = include_str!("../../docs/progress.md");
    let sources =
        [include_str!("step.rs"), include_str!("note.rs"), include_str!("warning.rs")].join("\n");
    let mut seen = Vec::new();
    // The line of a variant: four spaces, the name, the fields if there are any.
    for line in sources.lines().filter_map(|line| line.strip_prefix("    ")) {
        let variant = line.trim_end_matches(',').trim_end_matches(" }");
        let (name, fields) = variant.split_once(" { ").unwrap_or((variant, ""));
        let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|b| b.is_ascii_alphanumeric());
        // These are values of the field `reason`, not codes.
        if !is_name || ["Privileged", "InUse"].contains(&name) {
            continue;
        }
        let code = renamed(name, true);
        let row = documentation.lines().find(|row| row.starts_with(&format!("| `{code}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/progress.md has no row for `{code}`"));
        for field in fields.split(", ").filter_map(|field| field.split_once(':')) {
            let field = renamed(field.0, false);
            assert!(row.contains(&format!("`{field}`")), "{code}: no `{field}` in {row}");
        }
        assert!(!seen.contains(&code), "{code} is defined twice");
        seen.push(code);
    }
    assert!(seen.len() > 75, "{}", seen.len());
}
