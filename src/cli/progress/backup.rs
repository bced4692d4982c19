//! The progress of a backup or a restore: one bar, or a line at intervals.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::{BackupDirection, BackupProgress};

/// The state of the display.
#[derive(Default)]
pub(super) struct BackupLine {
    bar: Option<ProgressBar>,
    began: Option<Instant>,
    printed: Option<Instant>,
}

impl BackupLine {
    /// Whether to print this event: at intervals, first after `delay`. `finished` events are printed if any was, or
    /// without a delay.
    pub(super) fn is_due(
        &mut self,
        progress: &BackupProgress<'_>,
        interval: Duration,
        delay: Duration,
    ) -> bool {
        if progress.finished {
            let any = self.printed.is_some();
            *self = BackupLine::default();
            return any || delay.is_zero();
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        let due = began.elapsed() >= delay
            && self.printed.is_none_or(|printed| printed.elapsed() >= interval);
        if due {
            self.printed = Some(Instant::now());
        }
        due
    }

    /// Draws the bar, and removes it at the end.
    pub(super) fn draw(&mut self, bars: &MultiProgress, progress: &BackupProgress<'_>) {
        if progress.finished {
            return self.clear();
        }
        let bar = self.bar.get_or_insert_with(|| begin(bars, progress));
        bar.set_position(progress.done);
    }

    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn begin(bars: &MultiProgress, progress: &BackupProgress<'_>) -> ProgressBar {
    let (bar, template) = match progress.total {
        Some(total) => {
            (ProgressBar::new(total), "  {prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
        }
        None => {
            (ProgressBar::new_spinner(), "  {prefix} {bytes} {bytes_per_sec} {elapsed} {spinner}")
        }
    };
    let bar = bars.add(bar);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(match progress.direction {
        BackupDirection::Backup => "backup",
        BackupDirection::Restore => "restore",
    });
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_intervals_and_brief_backups_print_none() {
        let at = |done, finished| BackupProgress {
            service: "a",
            direction: BackupDirection::Backup,
            done,
            total: None,
            finished,
        };
        let (interval, delay) = (Duration::from_millis(80), Duration::from_millis(40));
        let mut line = BackupLine::default();
        assert!(!line.is_due(&at(0, false), interval, delay));
        assert!(!line.is_due(&at(9, true), interval, delay));
        assert!(!line.is_due(&at(0, false), interval, delay));
        std::thread::sleep(delay);
        assert!(line.is_due(&at(1, false), interval, delay));
        assert!(!line.is_due(&at(2, false), interval, delay));
        std::thread::sleep(interval);
        assert!(line.is_due(&at(3, false), interval, delay));
        assert!(line.is_due(&at(4, true), interval, delay));
        assert!(line.is_due(&at(0, false), interval, Duration::ZERO));
    }
}
