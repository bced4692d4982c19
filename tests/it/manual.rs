//! Completions and manual pages match the program's own commands.

use std::fs;

use crate::support::{TestEnv, output, success};

#[test]
fn bash_completes_commands_and_options() {
    let env = TestEnv::new();
    let completed = |words: &str| {
        // As bash does on Tab: the words, the number of the last, and the function registered by `complete`.
        let script = format!(
            "source <(\"$0\" completions bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _svp svp \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        success(env.command("bash").args(["-euc", &script, env!("CARGO_BIN_EXE_svp")]))
    };
    assert_eq!(completed("svp pus"), "push\n");
    assert_eq!(completed("svp push --allow-s"), "--allow-secrets\n");
    assert_eq!(completed("svp completions fi"), "fish\n");
}

#[test]
fn each_shell_has_completions() {
    let env = TestEnv::new();
    let zsh = env.ok(["completions", "zsh"]);
    assert!(zsh.starts_with("#compdef svp\n") && zsh.contains("(push)"), "{zsh}");
    let fish = env.ok(["completions", "fish"]);
    assert!(fish.contains("complete -c svp") && fish.contains("-a \"push\""), "{fish}");
    assert_eq!(output(&mut env.svp(["completions", "tcsh"])).status.code(), Some(2));
}

#[test]
fn each_command_has_a_manual_page() {
    let env = TestEnv::new();
    let dir = env.dir().join("man/man1");
    env.ok(["man", dir.to_str().unwrap()]);
    let help = env.ok(["help"]);
    let commands = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(names.len() > 30, "{help}");
    // Subcommands have their own: svp-volume-ls.
    let pages = fs::read_dir(&dir).unwrap().map(|page| page.unwrap().file_name());
    let count = pages.filter(|page| page.to_str().unwrap().matches('-').count() < 2).count();
    assert_eq!(count, names.len() + 1, "svp(1), and a page for each of {names:?}");
    for name in names {
        let page = fs::read_to_string(dir.join(format!("svp-{name}.1"))).expect(name);
        assert!(page.contains(&format!(".TH svp-{name} 1")), "{page}");
    }
}
