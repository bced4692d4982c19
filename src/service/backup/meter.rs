//! Reports how many bytes of a backup were written or read.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::time::{Duration, Instant};

use crate::progress::{BackupDirection, BackupProgress, Event, Reporter};

/// The minimum time between two reports.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counts bytes and reports them. Dropping it reports the end.
pub(super) struct Meter<'a> {
    reporter: &'a dyn Reporter,
    service: String,
    direction: BackupDirection,
    done: u64,
    total: Option<u64>,
    reported: Instant,
}

impl<'a> Meter<'a> {
    /// Begins to count the bytes of a new backup, before compression.
    pub(super) fn of_backup(service: &str, reporter: &'a dyn Reporter) -> Meter<'a> {
        Meter::new(service, BackupDirection::Backup, (0, None), reporter)
    }

    /// Begins to count the bytes read from a backup, as they are stored.
    pub(super) fn of_restore(service: &str, input: &File, reporter: &'a dyn Reporter) -> Meter<'a> {
        let regular = input.metadata().ok().filter(|metadata| metadata.is_file());
        // A part was read already, to identify the backup. A pipe has neither length nor position.
        let extent = regular.map_or((0, None), |metadata| {
            let mut input = input;
            (input.stream_position().unwrap_or(0), Some(metadata.len()))
        });
        Meter::new(service, BackupDirection::Restore, extent, reporter)
    }

    fn new(
        service: &str,
        direction: BackupDirection,
        (done, total): (u64, Option<u64>),
        reporter: &'a dyn Reporter,
    ) -> Meter<'a> {
        let reported = Instant::now();
        let meter =
            Meter { reporter, service: service.to_owned(), direction, done, total, reported };
        meter.report(false);
        meter
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.reported.elapsed() >= INTERVAL {
            self.reported = Instant::now();
            self.report(false);
        }
    }

    fn report(&self, finished: bool) {
        let Meter { service, direction, done, total, .. } = self;
        self.reporter.event(Event::BackupProgress(BackupProgress {
            service,
            direction: *direction,
            done: *done,
            total: *total,
            finished,
        }));
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.report(true);
    }
}

/// A reader whose bytes are counted.
pub(super) struct Metered<'a, R> {
    pub(super) from: R,
    pub(super) meter: Meter<'a>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.meter.add(length);
        Ok(length)
    }
}
