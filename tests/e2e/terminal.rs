//! A real terminal: tmux types, and reads what is on the screen.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Place, pack, success};

/// A terminal of tmux's with one window.
struct Screen<'a> {
    place: &'a Place,
}

impl<'a> Screen<'a> {
    /// Runs a shell line, in which `svp ` is ours, in a new terminal of 80 columns and 24 rows.
    fn run(place: &'a Place, line: &str) -> Screen<'a> {
        let screen = Screen { place };
        let svp = concat!(env!("CARGO_BIN_EXE_svp"), " ");
        let line = format!("{}; echo ended with $?; sleep 1000", line.replace("svp ", svp));
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &line]);
        screen
    }

    fn command(&self) -> Command {
        let mut tmux = self.place.command("tmux");
        tmux.args(["-f", "/dev/null", "-S"]).arg(self.place.path("tmux"));
        tmux.env("TERM", "screen").env("LC_ALL", "C.UTF-8");
        tmux
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        success(self.command().args(arguments))
    }

    fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    fn shows(&self, text: &str) {
        let since = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if screen.contains(text) {
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

#[test]
fn a_shell_has_the_callers_terminal() {
    let place = Place::new();
    place.import_busybox();
    let hello = pack("hello");
    let hello = hello.to_str().unwrap();
    place.ok(["build", "-b", hello, "-t", "hello", "--base", "busybox", "--network", "none"]);
    place.ok(["setup", "-i", "hello", "-t", "h", "--network", "none"]);
    place.ok(["run", "-d", "--wait", "h"]);
    let screen = Screen::run(&place, "svp shell h");
    screen.type_line("echo $((40 + 2)) on $(tty)");
    screen.shows("42 on /dev/pts/0");
    screen.type_line("stty size");
    screen.shows("24 80");
    screen.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    screen.type_line("sleep 0.3; stty size");
    screen.shows("30 100");
    // Ctrl-C ends what runs in the container, and neither the shell nor svp.
    screen.type_line("sleep 1000");
    screen.key("C-c");
    screen.type_line("echo code $?");
    screen.shows("code 130");
    // Ctrl-Z stops it there.
    screen.type_line("sleep 1000");
    screen.key("C-z");
    screen.shows("Stopped");
    screen.type_line("exit 7");
    screen.shows("You have stopped jobs");
    screen.type_line("exit 7");
    screen.shows("ended with 7");
    // The terminal is as it was: what is typed is seen, and lines end where they should.
    screen.key("C-c");
    drop(screen);
    let screen = Screen::run(&place, "svp exec h true; stty -a | grep -o ' echo '; svp client h");
    screen.shows("hello from the instance");
    screen.shows("echo");
    screen.shows("ended with 0");
    drop(screen);
    place.ok(["rm", "--force", "h"]);
}
