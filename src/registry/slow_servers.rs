//! Says once for each server that it takes long to answer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::url::Url;
use crate::progress::{Event, Reporter, Step, announce_if_slow};

/// The servers that took long to answer.
pub(super) struct SlowServers {
    reporter: Option<Arc<dyn Reporter>>,
    announced: Mutex<HashSet<String>>,
}

impl SlowServers {
    pub(super) fn new(reporter: Option<Arc<dyn Reporter>>) -> Self {
        SlowServers { reporter, announced: Mutex::default() }
    }

    /// Sends a request to `url` whose body, if any, is short.
    pub(super) fn watch<T>(&self, url: &Url, send: impl FnOnce() -> T) -> T {
        if self.reporter.is_none() {
            return send();
        }
        announce_if_slow(self, Step::WaitForServer { server: url.authority() }, send)
    }
}

impl Reporter for SlowServers {
    fn event(&self, event: Event<'_>) {
        if let Event::Step(Step::WaitForServer { server }) = &event {
            let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
            if !announced.insert(server.clone()) {
                return;
            }
        }
        if let Some(reporter) = &self.reporter {
            reporter.event(event);
        }
    }
}
