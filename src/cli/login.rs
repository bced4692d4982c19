//! `svp login` and `svp logout`.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::args::RegistryArgs;
use super::common::Context;
use crate::error::{Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::oci::Reference;
use crate::progress::Step;
use crate::registry::{ClientOptions, CredentialStore, Password, remove_logins, try_login};

/// Maximum length of a name or password, in bytes.
const MAX_INPUT: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// The registry, optionally with a namespace that the login is limited to
    #[arg(value_name = "HOST[:PORT][/NAMESPACE]")]
    registry: String,
    /// The user name; prompted for on a terminal
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    how: RegistryArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    /// The registry, optionally with a namespace that the login is limited to
    #[arg(value_name = "HOST[:PORT][/NAMESPACE]", required_unless_present = "all")]
    registry: Option<String>,
    /// Remove every login from the auth file
    #[arg(short, long, conflicts_with = "registry")]
    all: bool,
    #[command(flatten)]
    how: RegistryArgs,
}

pub(super) fn login(args: LoginArgs, context: &Context) -> Result<()> {
    let (registry, key) = registry_of(&args.registry)?;
    let mut options = ClientOptions::default();
    let file = args.how.login_file();
    args.how.apply(&mut options, context);
    let credential_store = CredentialStore::of(&options, file, &key)?;
    credential_store.check()?;
    let terminal = std::io::stdin().is_terminal();
    let user = match args.username {
        Some(user) => user,
        None if terminal => prompt(&format!("User name at {registry}: "), true)?,
        None => return Err(Error::usage("no user name given").hint("add --username NAME")),
    };
    let password = match args.password_stdin {
        true => read_all()?,
        false if terminal => prompt(&format!("Password of {user} at {registry}: "), false)?,
        false => {
            return Err(Error::usage("no terminal to prompt for a password")
                .hint("pipe it in and add --password-stdin"));
        }
    };
    if user.is_empty() || user.contains(':') || password.is_empty() {
        return Err(Error::usage("a login needs a user name without colons, and a password"));
    }
    let password = Password::new(password);
    try_login(&registry, &user, &password, &options)?;
    credential_store.save(&user, &password)?;
    let keeper = credential_store.to_string();
    context.reporter().step(Step::LoggedIn { registry: key, keeper });
    Ok(())
}

pub(super) fn logout(args: LogoutArgs, context: &Context) -> Result<()> {
    let mut options = ClientOptions::default();
    let named = args.how.login_file();
    args.how.apply(&mut options, context);
    let Some(text) = &args.registry else {
        let file = remove_logins(&options, named)?;
        context.reporter().step(Step::LoginsRemoved { file: file.display().to_string() });
        return Ok(());
    };
    let (registry, key) = registry_of(text)?;
    let credential_store = CredentialStore::of(&options, named.clone(), &key)?;
    let removed = credential_store.remove()?;
    let namespace = key.split_once('/').map_or("", |(_, namespace)| namespace);
    let left = match named {
        Some(_) => None,
        None => options.auth_files.find(&registry, namespace)?,
    };
    if let Some((_, place)) = left {
        return Err(Error::usage(format!("{place} still has a login for {key}"))
            .hint("log out with the tool that wrote it, or name the file with --authfile"));
    }
    if !removed {
        return Err(Error::usage(format!("no login for {key} in {credential_store}")));
    }
    context.reporter().step(Step::LoggedOut { registry: key });
    Ok(())
}

/// Returns the host of the registry, and the key of its login.
fn registry_of(text: &str) -> Result<(String, String)> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let host = text.split('/').next().unwrap_or(text);
    // A registry is valid if it can precede a repository in a reference.
    let full = format!("{text}/x");
    let known = full.parse::<Reference>().ok().filter(|name| name.registry() == Some(host));
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let rest = text.split_once('/').map_or(String::new(), |(_, rest)| format!("/{rest}"));
    match known {
        Some(_) => Ok((host.to_owned(), format!("{host}{rest}"))),
        None => Err(Error::usage(format!("invalid registry {text:?}: not HOST[:PORT]"))
            .hint("write it as in an image's name, such as docker.io or localhost:5000")),
    }
}

fn read_all() -> Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text);
    read.map_err(|error| Error::new(Kind::BadInput, "can't read the password").source(error))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Prompts on the terminal.
fn prompt(question: &str, echo: bool) -> Result<String> {
    let stdin = std::io::stdin();
    // Turn the echo off first: the user may type at once.
    let silenced = (!echo).then(Silenced::new).transpose()?;
    write!(std::io::stderr(), "{question}").io("write to", "standard error")?;
    // Wait in short steps: after an interrupt, returning turns the echo on again.
    let step = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    loop {
        interrupt::check()?;
        let fd = stdin.as_fd();
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&step));
        match ready {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            other => break other.map(drop).io("read", "the terminal")?,
        }
    }
    let mut line = String::new();
    stdin.read_line(&mut line).io("read", "the terminal")?;
    if silenced.is_some() {
        writeln!(std::io::stderr()).io("write to", "standard error")?;
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Turns off the terminal's echo until dropped.
struct Silenced(Termios);

impl Silenced {
    fn new() -> Result<Self> {
        let before = tcgetattr(std::io::stdin()).io("query", "the terminal")?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)
            .io("set up", "the terminal")?;
        Ok(Silenced(before))
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
