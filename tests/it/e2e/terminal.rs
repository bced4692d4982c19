//! A real terminal: tmux types, and reads the screen.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::common::hello_service;
use crate::support::podman::{Container, Podman};
use crate::support::{TestEnv, success};

/// A tmux terminal with one window.
pub struct Screen<'a> {
    env: &'a TestEnv,
    socket: String,
}

impl<'a> Screen<'a> {
    /// Runs a shell line, in which `svp ` is the tested program, in a new terminal of 80 columns and 24 rows.
    pub fn run(env: &'a TestEnv, line: &str) -> Screen<'a> {
        // A server that is being killed may still have its socket.
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let socket = format!("tmux-{}", STARTED.fetch_add(1, Ordering::SeqCst));
        let screen = Screen { env, socket };
        let svp = concat!(env!("CARGO_BIN_EXE_svp"), " ");
        let line = format!("{}; echo ended with $?; sleep 1000", line.replace("svp ", svp));
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &line]);
        screen
    }

    fn command(&self) -> Command {
        let mut tmux = self.env.command("tmux");
        tmux.args(["-f", "/dev/null", "-S"]).arg(self.env.path(&self.socket));
        tmux.env("TERM", "screen").env("LC_ALL", "C.UTF-8");
        tmux
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        success(self.command().args(arguments))
    }

    pub fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn key(&self, key: &str) {
        // A program that was just started must be running to get the signal.
        std::thread::sleep(Duration::from_millis(400));
        self.tmux(&["send-keys", key]);
    }

    fn resize(&self, columns: u32, rows: u32) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Types many lines at once.
    fn paste(&self, text: &str) {
        let file = self.env.path("pasted");
        std::fs::write(&file, text).unwrap();
        self.tmux(&["load-buffer", file.to_str().unwrap()]);
        self.tmux(&["paste-buffer", "-r"]);
    }

    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        self.waits_for(text, |screen| screen.contains(text));
    }

    /// Like `shows`, but lines may break anywhere: a raw terminal continues the next line in the same column.
    #[track_caller]
    fn shows_broken(&self, text: &str) {
        let joined = |text: &str| text.split_whitespace().collect::<String>();
        self.waits_for(text, |screen| joined(screen).contains(&joined(text)));
    }

    #[track_caller]
    fn waits_for(&self, text: &str, is_there: impl Fn(&str) -> bool) {
        let since = Instant::now();
        loop {
            let screen = self.text();
            if is_there(&screen) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "no {text:?} on:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.command().arg("kill-server").output().ok();
    }
}

/// A step in two terminals.
enum Step {
    /// Types a line, with Enter.
    Line(&'static str),
    /// Types this text.
    Text(&'static str),
    /// Presses a key, by tmux's name.
    Key(&'static str),
    /// Types that many lines at once.
    Paste(usize),
    /// Resizes the terminal to that many columns and rows.
    Size(u32, u32),
    /// Waits until both show this text; the whole screens must then be equal.
    Shows(&'static str),
}

use Step::{Key, Line, Paste, Shows, Size, Text};

/// A whole session that svp and podman must show alike, from the shell's first prompt to its end.
const SESSION: &[Step] = &[
    Line("PS1='% '; cd /tmp; clear; stty size; tty"),
    Shows("24 80\n/dev/pts/0\n%"),
    Size(100, 30),
    Line("clear; sleep 0.5; stty size"),
    Shows("30 100\n%"),
    // A program is notified of a resize at once.
    Line("clear; sh -c 'trap \"stty size\" WINCH; echo go; while :; do sleep 0.1; done'"),
    Shows("go"),
    Size(90, 25),
    Shows("25 90"),
    Key("C-c"),
    Shows("^C\n%"),
    Line("echo code $?"),
    Shows("code 130\n%"),
    // Ctrl-C, Ctrl-\ and Ctrl-Z reach the job of the container's shell.
    Line("clear; sleep 1000"),
    Key("C-c"),
    Shows("^C\n%"),
    Line("echo code $?"),
    Shows("code 130\n%"),
    Line("clear; sh -c 'sleep 99 & trap \"kill $!; echo quit; exit\" QUIT; echo go; wait'"),
    Shows("go\n"),
    Key("C-\\"),
    Shows("quit\n%"),
    Line("clear; sleep 1000"),
    Key("C-z"),
    Shows("Stopped"),
    Line("jobs; fg"),
    Key("C-c"),
    Shows("^C\n%"),
    Line("jobs; echo none"),
    Shows("none\n%"),
    // End of input.
    Line("clear; echo go; cat"),
    Shows("go\n"),
    Line("typed"),
    Shows("go\ntyped\ntyped"),
    Key("C-d"),
    Shows("typed\n%"),
    Line("echo code $?"),
    Shows("code 0\n%"),
    // Many lines at once, and non-ASCII letters.
    Line("clear; stty -echo; cat >pasted"),
    Paste(400),
    Key("C-d"),
    Shows("%"),
    Line("stty echo; wc -l pasted; tail -n 1 pasted | cut -c 1-20"),
    Shows("400 pasted\nline 399 äöü€"),
    Line("clear; echo ä€𝄞 | od -An -tx1"),
    Shows("c3 a4 e2 82 ac f0 9d 84 9e 0a\n%"),
    // Full-screen programs.
    Line("clear; vi file"),
    Shows("- file"),
    Text("ione"),
    Key("Enter"),
    Text("two"),
    Shows("two"),
    Key("Escape"),
    Key("Up"),
    Text("x"),
    Shows("on\ntwo"),
    Size(60, 15),
    Shows("two"),
    Text(":wq"),
    Shows(":wq"),
    Key("Enter"),
    Shows("%\n\n\n"),
    Key("Enter"),
    Shows("%\n%"),
    Line("clear; cat file; stty size"),
    Shows("15 60\n%"),
    Line("clear; seq 100 | less"),
    Shows("14"),
    Key("Space"),
    Shows("28"),
    Text("q"),
    Line("clear; echo over; exit 7"),
    Shows("ended with 7"),
];

/// The first and the last part of `SESSION`, for variants that differ only in how the command is found.
const SHORT: &[Step] = &[
    Line("PS1='% '; clear; stty size"),
    Shows("24 80\n%"),
    Line("clear; sleep 1000"),
    Key("C-c"),
    Shows("^C\n%"),
    Line("echo code $?"),
    Shows("code 130\n%"),
    Line("clear; sleep 1000"),
    Key("C-z"),
    Shows("Stopped"),
    Line("clear; fg"),
    Key("C-c"),
    Shows("^C\n%"),
    Line("exit 3"),
    Shows("ended with 3"),
];

/// Without a shell there is no job control that could resume a process after Ctrl-Z.
const ALONE: &[Step] = &[
    Shows("go"),
    Key("C-z"),
    Text("text"),
    Key("Enter"),
    Shows("text\ntext"),
    Key("C-c"),
    Shows("ended with 130"),
];

impl Step {
    fn take(&self, screen: &Screen<'_>) {
        match self {
            Line(text) => screen.type_line(text),
            Text(text) => {
                screen.tmux(&["send-keys", "-l", text]);
            }
            Key(key) => screen.key(key),
            Paste(lines) => {
                let line = |n| format!("line {n} äöü€ {}\n", "x".repeat(n % 60));
                screen.paste(&(0..*lines).map(line).collect::<String>());
                std::thread::sleep(Duration::from_secs(1));
            }
            Size(columns, rows) => {
                screen.resize(*columns, *rows);
                // podman forwards the size with a delay.
                std::thread::sleep(Duration::from_secs(1));
            }
            Shows(text) => screen.shows(text),
        }
    }
}

/// Runs the steps in both terminals, and compares the screens after each expected text.
#[track_caller]
fn alike(steps: &[Step], svp: &Screen<'_>, podman: &Screen<'_>) {
    for step in steps {
        step.take(svp);
        step.take(podman);
        let Shows(text) = step else { continue };
        let since = Instant::now();
        loop {
            let (ours, theirs) = (svp.text(), podman.text());
            if ours == theirs {
                break;
            }
            let late = since.elapsed() > Duration::from_secs(5);
            assert!(!late, "at {text:?}, svp:\n{ours}\npodman:\n{theirs}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns `podman exec -it` as a shell line.
fn podman_exec(container: &Container<'_>, command: &str) -> String {
    let exec = container.exec(&[]);
    let mut words = vec![exec.get_program().to_str().unwrap()];
    words.extend(exec.get_args().map(|word| word.to_str().unwrap()));
    let (name, rest) = words.split_last().unwrap();
    format!("{} -it {name} {command}", rest.join(" "))
}

#[test]
fn terminals_behave_as_podmans_do() {
    let env = TestEnv::new();
    env.import_busybox();
    let script = |text: &str| format!("#!/bin/sh\n{text}\n");
    let pack = env.write_pack(
        "talk",
        &[
            ("bin/query", &script("if [ \"$1\" = os ]; then echo busybox/1; fi")),
            ("bin/build", &script("")),
            ("bin/run", &script("exec sleep 1000000")),
            ("bin/client", &script("exec sh \"$@\"")),
            ("bin/extra", &script("exec \"$@\"")),
        ],
    );
    let pack = pack.to_str().unwrap();
    let archive = env.path("talk.tar");
    let to = format!("oci-archive:{}", archive.display());
    env.ok(["build", "-b", pack, "-t", "base", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "base", "-t", "talk", "--network", "none", "-o", &to]);
    env.ok(["run", "-d", "--wait", "talk"]);
    let podman = Podman::new(&env);
    let image = podman.load(&archive);
    let container = podman.start(&["--network", "none", &image]);
    for (ours, theirs, steps) in [
        ("client talk", "/service/bin/client", SESSION),
        ("shell talk", "sh", SHORT),
        ("extra talk sh", "/service/bin/extra sh", SHORT),
        ("exec -it talk sh", "sh", SHORT),
        ("exec talk sh -c 'echo go; cat'", "sh -c 'echo go; cat'", ALONE),
    ] {
        let compared = |line: &str| {
            // The terminal itself is restored.
            format!("stty -g >$$; {line}; code=$?; stty -g | cmp - $$ && (exit $code)")
        };
        let ours = compared(&format!("svp {ours}"));
        let theirs = compared(&podman_exec(&container, theirs));
        alike(steps, &Screen::run(&env, &ours), &Screen::run(&env, &theirs));
    }
    env.ok(["rm", "--force", "talk"]);
}

#[test]
fn a_closed_terminal_ends_its_processes() {
    let env = TestEnv::new();
    hello_service(&env);
    let nothing_runs = || {
        let since = Instant::now();
        loop {
            let all = env.ok(["exec", "h", "ps", "-o", "args"]);
            if !all.contains("sleep 4711") {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(10), "left behind:\n{all}");
        }
    };
    // The window is closed; svp is terminated; svp is killed.
    for end in ["kill-pane", "TERM", "KILL"] {
        let screen = Screen::run(&env, "svp shell h");
        screen.type_line("sleep 4711");
        std::thread::sleep(Duration::from_millis(500));
        if end == "kill-pane" {
            screen.tmux(&["kill-pane"]);
        } else {
            let own = format!("SVP_ROOT={}", env.store().display());
            let find = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q 'svp shell h $' \
                && tr '\\0' '\\n' <$p/environ | grep -qx \"$1\" && kill -$2 ${p#/proc/}; done";
            env.command("sh").args(["-c", find, "sh", &own, end]).output().unwrap();
            screen.shows_broken(if end == "TERM" { "ended with 129" } else { "ended with 137" });
        }
        nothing_runs();
        drop(screen);
    }
    // The service ends: the terminal is restored.
    let line = "stty -g >before; svp shell h; stty -g | cmp - before && echo as it was";
    let screen = Screen::run(&env, line);
    screen.type_line("echo $((40 + 2))");
    screen.shows("42");
    env.ok(["stop", "h"]);
    screen.shows("as it was");
    drop(screen);
    env.ok(["rm", "h"]);
    env.assert_nothing_left();
}

#[test]
fn a_background_job_continues() {
    let env = TestEnv::new();
    hello_service(&env);
    // Its output goes to a file; its input is the terminal.
    let screen = Screen::run(&env, "bash --norc");
    let svp = env!("CARGO_BIN_EXE_svp");
    screen.type_line(&format!("{svp} exec h sh -c 'sleep 1; seq 3; cat' >out &"));
    screen.type_line("sleep 3; jobs; paste -s -d+ out");
    screen.shows("1+2+3");
    screen.shows("Running");
    // In the foreground, the job reads the terminal.
    screen.type_line("fg");
    screen.type_line("typed");
    screen.key("C-d");
    std::thread::sleep(Duration::from_millis(300));
    screen.type_line("clear; paste -s -d+ out");
    screen.shows("1+2+3+typed");
    // Also for a command that prints to the terminal.
    screen.type_line(&format!("clear; {svp} exec h sh -c 'sleep 1; echo $((40 + 2))' & wait"));
    screen.shows("42");
    screen.type_line("clear");
    // Output into a pager, input from a pipe: the terminal belongs to the other program.
    screen.type_line(&format!("clear; echo 'echo $((40 + 2))' | {svp} shell h"));
    screen.shows("42");
    screen.type_line(&format!("clear; {svp} exec h seq 100 | more"));
    screen.shows("--More--");
    screen.tmux(&["send-keys", "-l", "q"]);
    screen.type_line("clear; stty -a | grep -o ' echo '");
    screen.shows(" echo");
    drop(screen);
    env.ok(["rm", "--force", "h"]);
}

#[test]
fn a_shell_has_the_callers_terminal() {
    let env = TestEnv::new();
    hello_service(&env);
    let screen = Screen::run(&env, "svp shell h");
    screen.type_line("echo $((40 + 2)) on $(tty)");
    screen.shows("42 on /dev/pts/0");
    screen.type_line("stty size");
    screen.shows("24 80");
    screen.resize(100, 30);
    screen.type_line("sleep 0.3; stty size");
    screen.shows("30 100");
    // Ctrl-C ends the job in the container, and neither the shell nor svp.
    screen.type_line("sleep 1000");
    screen.key("C-c");
    screen.type_line("echo code $?");
    screen.shows("code 130");
    // Ctrl-Z stops the job in the container.
    screen.type_line("sleep 1000");
    screen.key("C-z");
    screen.shows("Stopped");
    screen.type_line("exit 7");
    screen.shows("You have stopped jobs");
    screen.type_line("exit 7");
    screen.shows("ended with 7");
    // The terminal is restored: input is echoed, and lines end where they should.
    screen.key("C-c");
    drop(screen);
    let screen = Screen::run(&env, "svp exec h true; stty -a | grep -o ' echo '; svp client h");
    screen.shows("hello from the instance");
    screen.shows("echo");
    screen.shows("ended with 0");
    drop(screen);
    env.ok(["rm", "--force", "h"]);
}

#[test]
fn commands_that_read_an_archive_do_not_wait_for_a_terminal() {
    let env = TestEnv::new();
    for (line, way_out) in [
        ("svp load", "--input"),
        ("svp load -i -", "--input"),
        ("svp import - -t x", "pipe a tar"),
        ("svp pull docker-archive:- -t x", "name a file"),
        ("svp unpack oci-archive:- root", "name a file"),
    ] {
        let screen = Screen::run(&env, line);
        screen.shows("ended with 2");
        for text in ["is a terminal", way_out] {
            screen.shows_broken(text);
        }
    }
    env.assert_nothing_left();
}

#[test]
fn a_backup_shows_its_bytes_beside_the_scripts_messages() {
    let env = TestEnv::new();
    super::progress::slow_backup(&env, "keys");
    let screen = Screen::run(&env, "svp backup keys -o file --compression none");
    screen.waits_for("a bar with bytes", |screen| {
        screen.lines().any(|line| line.trim_start().starts_with("backup ") && line.contains("KiB"))
    });
    screen.shows("ended with 0");
    let text = screen.text();
    assert!(text.contains("a warning\n") && !text.contains("KiB"), "{text}");
    drop(screen);
    env.ok(["rm", "-f", "keys"]);
    std::fs::remove_file(env.path("file")).unwrap();
    env.assert_nothing_left();
}
