//! Streams a backup to a script: to the end, interruptibly, and in bounded memory.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::header::BackupStart;
use super::meter::{Meter, Metered};
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::layer::compress::{decoder_within, is_window_too_large};

/// The largest zstd window: the limit of `zstd -dc` without options.
const WINDOW: u64 = 128 << 20;

/// Writes the decompressed backup to `into`. If the script stops reading, reads on to the end of the backup, because
/// only the end shows whether all of it is intact; stops early if the script has `failed`.
pub(super) fn stream_to_script(
    start: BackupStart,
    input: File,
    into: &mut dyn Write,
    failed: &dyn Fn() -> bool,
    meter: Meter<'_>,
) -> Result<()> {
    let compression = start.compression;
    let input = Metered { from: InterruptibleReader(input), meter };
    let mut data = decoder_within(start.rejoin(input), compression, WINDOW)
        .map_err(|error| Error::new(error.kind(), error.to_string()).context("the backup"))?;
    let mut buffer = vec![0; 128 << 10];
    let mut wanted = true;
    loop {
        let length = match data.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                interrupt::check()?;
                let kind = match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Kind::BadInput,
                    _ => Kind::Storage,
                };
                if is_window_too_large(&error) {
                    return Err(Error::bad_input("the backup needs too much memory to decompress")
                        .source(error)
                        .hint("let zstd do it: `zstd -dc --long=31 FILE | svp restore NAME`"));
                }
                return Err(Error::new(kind, "the backup is damaged or cut off").source(error));
            }
            Ok(0) => return Ok(()),
            Ok(length) => length,
        };
        wanted = wanted && into.write_all(&buffer[..length]).is_ok();
        if !wanted && failed() {
            return Ok(());
        }
    }
}

/// Reads from a pipe that may stay silent, checking for Ctrl-C meanwhile.
pub(super) struct InterruptibleReader<F>(pub(super) F);

impl<F: std::borrow::Borrow<File>> Read for InterruptibleReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.0.borrow();
        let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            if interrupt::requested() {
                return Err(io::Error::other("interrupted"));
            }
            let mut fds = [PollFd::new(file, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&pause)), Ok(0) | Err(rustix::io::Errno::INTR)) {
                return file.read(buffer);
            }
        }
    }
}
