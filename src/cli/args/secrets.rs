//! Options for secrets that svp does not generate.

use std::io::Read;

use crate::error::{Error, IoContext, Kind, Result};
use crate::pipeline::setup::SecretOptions;
use crate::secret::Secret;

/// Maximum size of a secret read from a file, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Secrets that are read from files, or kept from the replaced instance.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SecretArgs {
    /// Read the secret NAME from FILE; - is standard input
    #[arg(long, value_name = "NAME=@FILE")]
    secret: Vec<String>,
    /// Replace the instance that has this tag, keeping its secrets
    #[arg(long, conflicts_with = "force")]
    keep_secrets: bool,
}

impl SecretArgs {
    /// Returns whether any option for secrets was given.
    pub(in crate::cli) fn any(&self) -> bool {
        self.keep_secrets || !self.secret.is_empty()
    }

    /// Reads the secrets.
    pub(in crate::cli) fn options(&self) -> Result<SecretOptions> {
        let mut own: Vec<(String, Secret)> = Vec::new();
        for text in &self.secret {
            let Some((name, file)) = text.split_once("=@") else {
                return Err(Error::usage("--secret takes NAME=@FILE").hint(
                    "a secret on the command line could be read by every user of this machine: \
                     put it into a file, or pipe it to --secret NAME=@-",
                ));
            };
            if own.iter().any(|(known, _)| known == name) {
                return Err(Error::usage(format!("the secret {name} is given twice")));
            }
            own.push((name.to_owned(), read_secret(name, file)?));
        }
        Ok(SecretOptions { own, keep: self.keep_secrets })
    }
}

fn read_secret(name: &str, file: &str) -> Result<Secret> {
    let mut value = Vec::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_SECRET + 1).read_to_end(&mut value)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_SECRET + 1).read_to_end(&mut value))
    };
    read.io("read the secret from", file).map_err(|error| {
        error.with_kind(Kind::Usage).hint(format!(
            "--secret {name}=@FILE needs a readable file; {name}=@- reads standard input"
        ))
    })?;
    if value.len() as u64 > MAX_SECRET {
        return Err(Error::usage(format!("the secret {name} is longer than {MAX_SECRET} bytes")));
    }
    let mut value = String::from_utf8(value)
        .map_err(|_| Error::usage(format!("the secret {name} is not UTF-8 text")))?;
    let kept = value.trim_end_matches(['\n', '\r']).len();
    value.truncate(kept);
    Secret::new(name, value)
}
