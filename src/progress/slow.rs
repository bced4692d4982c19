//! Announces work that turns out to be slow.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{Reporter, Step};

/// Work that takes longer than this is announced.
const SLOW: Duration = Duration::from_secs(1);

/// Does `work`, and reports `step` once if it takes longer than a second. The work runs on the calling thread.
pub fn announce_if_slow<T>(reporter: &dyn Reporter, step: Step, work: impl FnOnce() -> T) -> T {
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        let announce = move || {
            if wait.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                reporter.step(step);
            }
        };
        // Without a thread the work is silent, and done all the same.
        let _ = std::thread::Builder::new().spawn_scoped(scope, announce);
        // Dropped even if the work panics, so that the thread ends.
        let done = done;
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::progress::Event;

    #[derive(Default)]
    struct Seen(Mutex<Vec<Step>>);

    impl Reporter for Seen {
        fn event(&self, event: Event<'_>) {
            if let Event::Step(step) = event {
                self.0.lock().unwrap().push(step);
            }
        }
    }

    #[test]
    fn only_slow_work_is_announced_and_once() {
        let seen = Seen::default();
        let since = Instant::now();
        assert_eq!(announce_if_slow(&seen, Step::WriteLayer, || 7), 7);
        assert!(since.elapsed() < SLOW && seen.0.lock().unwrap().is_empty());
        announce_if_slow(&seen, Step::WriteLayer, || std::thread::sleep(SLOW * 5 / 2));
        assert_eq!(*seen.0.lock().unwrap(), [Step::WriteLayer]);
    }
}
