//! A running Debian 13: systemd as process 1, podman 5, svp, root and an ordinary user whose units start at boot. Its
//! network namespace has only loopback. Only root can boot it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{TestEnv, base, busybox_base, output, repo, run, success, transcript};

/// The time limit of a step in the machine, on a busy host.
const LIMIT: Duration = Duration::from_secs(120);

/// A user of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Root, with the system's manager.
    Root,
    /// An ordinary user with subordinate ids, and a manager that runs from boot on.
    Ann,
}

/// A machine, running unless [`Machine::halt`] was called. Halted when dropped; its files are the environment's.
pub struct Machine {
    root: PathBuf,
    group: PathBuf,
    boot: Option<Child>,
}

/// Returns a copy of a file of the machine's root file system.
#[track_caller]
pub fn file_of_machine(env: &TestEnv, path: &str) -> PathBuf {
    let member = format!("./{path}");
    let to = env.dir().to_str().expect("a path");
    run("tar", ["-C", to, "-xf", base("machine").to_str().expect("a path"), &member]);
    env.dir().join(path)
}

impl Machine {
    /// Boots a machine.
    #[track_caller]
    pub fn boot(env: &TestEnv) -> Machine {
        let root = env.dir().join("machine");
        std::fs::create_dir(&root).expect("a directory");
        let archive = base("machine");
        run("tar", ["-C".as_ref(), root.as_os_str(), "-xf".as_ref(), archive.as_os_str()]);
        std::fs::copy(busybox_base(), root.join("srv/busybox.tar")).expect("a copy");
        std::fs::copy("/bin/busybox", root.join("usr/bin/busybox")).expect("a copy");
        // If all controllers are of version 1, none is left for podman's default pids limit.
        let conf = "[containers]\npids_limit = 0\n";
        std::fs::write(root.join("etc/containers/containers.conf"), conf).expect("a file");
        // podman's user units wait for this target, for more than a minute.
        let wants = root.join("etc/systemd/system/multi-user.target.wants");
        let online = "/usr/lib/systemd/system/network-online.target";
        std::os::unix::fs::symlink(online, wants.join("network-online.target")).expect("a link");
        let name = env.dir().file_name().expect("a name").to_owned();
        let group = own_cgroup().join(name);
        let mut machine = Machine { root, group, boot: None };
        machine.start();
        machine
    }

    /// Returns the path, on the host, of a path in the machine.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Halts the machine without a shutdown, and boots it again.
    #[track_caller]
    pub fn boot_again(&mut self) {
        self.halt();
        self.start();
    }

    #[track_caller]
    fn start(&mut self) {
        let mut boot = Command::new("sh");
        boot.arg(repo().join("tests/it/support/machine.sh")).arg(&self.root).arg(&self.group);
        boot.arg(env!("CARGO_BIN_EXE_svp")).stdin(Stdio::null());
        let mut boot = boot.spawn().expect("sh");
        while !is_systemd(boot.id()) {
            let ended = boot.try_wait().expect("a child");
            assert!(ended.is_none(), "the machine did not boot: its output is above");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.boot = Some(boot);
        for user in [User::Root, User::Ann] {
            // 0 means running; systemd reports failed units, none of which belongs to the test.
            let up = |state: &str| ["running", "degraded"].contains(&state.trim());
            self.wait(user, "is-system-running", &["systemctl", "is-system-running"], up);
        }
    }

    /// Halts the machine without a shutdown, as a power failure does.
    pub fn halt(&mut self) {
        if let Some(mut boot) = self.boot.take() {
            boot.kill().ok();
            boot.wait().ok();
        }
        // All other processes end with process 1, which takes a moment.
        for _ in 0..500 {
            remove_groups(&self.group);
            if !self.group.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the command lines of all processes in the machine's units, sorted.
    pub fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut groups = inner_groups(&self.group);
        while let Some(group) = groups.pop() {
            groups.extend(inner_groups(&group));
            let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
            }
        }
        found.sort();
        found
    }

    /// Returns a program in the machine, as its user has it after a login; `systemctl` gets `--user` for the ordinary
    /// user.
    pub fn command<A: AsRef<OsStr>>(&self, user: User, words: &[A]) -> Command {
        let boot = self.boot.as_ref().expect("a running machine").id();
        let pid = init_pid(boot).expect("process 1");
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--all", "--root", "--wd", "--"]);
        let (home, runtime) = match user {
            User::Root => ("/root", "/run"),
            User::Ann => ("/home/ann", "/run/user/1000"),
        };
        if user == User::Ann {
            command.args(["setpriv", "--reuid=1000", "--regid=1000", "--init-groups"]);
        }
        command.args(["env", "-i", "-C", home, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args([
            "LANG=C.UTF-8",
            &format!("HOME={home}"),
            &format!("XDG_RUNTIME_DIR={runtime}"),
        ]);
        command.args(words);
        if user == User::Ann && words.first().is_some_and(|word| word.as_ref() == "systemctl") {
            command.arg("--user");
        }
        command
    }

    /// Runs a line in the machine's shell, which must succeed; returns its stdout.
    #[track_caller]
    pub fn ok(&self, user: User, line: &str) -> String {
        success(&mut self.command(user, &["sh", "-c", line]))
    }

    /// Runs `words` until `is_good` accepts the stdout.
    #[track_caller]
    pub fn wait(
        &self,
        user: User,
        condition: &str,
        words: &[&str],
        is_good: impl Fn(&str) -> bool,
    ) {
        let until = Instant::now() + LIMIT;
        loop {
            let mut command = self.command(user, words);
            let result = output(&mut command);
            if is_good(&String::from_utf8_lossy(&result.stdout)) {
                return;
            }
            if Instant::now() > until {
                let line = "journalctl --boot --no-pager | grep -v ' conmon\\[\\|health_status\\|scope' | tail -n 400";
                let journal = output(&mut self.command(User::Root, &["sh", "-c", line]));
                let journal = String::from_utf8_lossy(&journal.stdout).into_owned();
                panic!("{user:?}: {condition}: {}{journal}", transcript(&command, &result));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a line of shell until it succeeds.
    #[track_caller]
    pub fn wait_ok(&self, user: User, line: &str) {
        let checked = format!("{line} && echo it is good");
        self.wait(user, line, &["sh", "-c", &checked], |stdout| stdout.ends_with("it is good\n"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Returns the host's pid of process 1 of the machine that `boot` runs.
fn init_pid(boot: u32) -> Option<String> {
    let children = std::fs::read_to_string(format!("/proc/{boot}/task/{boot}/children")).ok()?;
    Some(children.split_whitespace().next()?.to_owned())
}

fn is_systemd(boot: u32) -> bool {
    let comm = init_pid(boot).and_then(|pid| std::fs::read(format!("/proc/{pid}/comm")).ok());
    comm.is_some_and(|comm| comm == b"systemd\n")
}

/// Returns the version 2 cgroup of this process.
#[track_caller]
fn own_cgroup() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let mount = mount.and_then(|line| line.split(' ').nth(4));
    let mount = mount.expect("a mount of cgroup2: the kernel or the container has none");
    let groups = std::fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new(mount).join(own)
}

fn inner_groups(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

/// Removes a cgroup and those in it, if they are empty.
fn remove_groups(group: &Path) {
    inner_groups(group).iter().for_each(|group| remove_groups(group));
    std::fs::remove_dir(group).ok();
}
