//! How to upload a blob: in one request, in chunks of a size that the registry accepts, or as a stream; and what to try
//! next after a refusal.
//!
//! Registries and the proxies before them differ in what they accept, and don't say it in advance: some cap a request
//! at 1, 4 or 100 MiB, some require 5 MiB, some know only one of the ways.

use super::complaint::Complaint;
use super::fault::{Fault, FaultKind};
use crate::error::Error;

/// Chunk size in bytes, unless the registry requires another. GitHub's registry accepts no more.
const CHUNK: u64 = 4 << 20;
/// Maximum chunk size in bytes: a chunk is resent after a broken connection.
const LARGEST_CHUNK: u64 = 256 << 20;
/// Minimum chunk size in bytes to try.
const SMALLEST_CHUNK: u64 = 64 << 10;

const LIMITED: &str =
    "the registry, or a proxy before it, limits what it accepts: contact its operator";

/// A way of sending a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In the request that also names the digest: the fastest.
    Whole,
    /// In several requests, each with its range.
    Chunks,
    /// In one request without a range, as docker does.
    Stream,
}

/// The way in use, and what the registry has refused so far.
pub(super) struct Plan {
    way: Way,
    chunk: u64,
    /// A chunk must be larger than this.
    too_small: u64,
    /// A chunk must be smaller than this.
    too_large: u64,
    refusals: Vec<(Way, Error)>,
}

impl Plan {
    pub(super) fn new() -> Self {
        Plan {
            way: Way::Whole,
            chunk: CHUNK,
            too_small: 0,
            too_large: LARGEST_CHUNK + 1,
            refusals: Vec::new(),
        }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    pub(super) fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Applies the registry's `OCI-Chunk-Min-Length`.
    pub(super) fn require(&mut self, least: u64) {
        let least = least.min(LARGEST_CHUNK);
        self.too_small = self.too_small.max(least.saturating_sub(1));
        self.chunk = self.chunk.max(least);
    }

    /// Prepares for another attempt after a broken connection: chunks, so that a further one costs less.
    pub(super) fn after_cut(&mut self) {
        if self.way == Way::Whole && !self.refused(Way::Chunks) {
            self.way = Way::Chunks;
        }
    }

    /// Returns whether the registry refuses not the blob, but the way or the size of the request.
    pub(super) fn concerns(&self, fault: &Fault) -> bool {
        match fault.kind {
            FaultKind::Status(405 | 411 | 413 | 416 | 501, _) => true,
            // Other refusals, such as of a quota, may have similar words.
            FaultKind::Status(400 | 406 | 422, complaint) => complaint != Complaint::Other,
            _ => false,
        }
    }

    /// Chooses another chunk size after `fault`; returns false if no size is left.
    pub(super) fn resize(&mut self, fault: &Fault) -> bool {
        let size = match fault.kind {
            FaultKind::Status(405 | 411 | 501, _) => return false,
            FaultKind::Status(_, Complaint::TooSmall) => {
                self.too_small = self.too_small.max(self.chunk);
                self.chunk.saturating_mul(2)
            }
            _ => {
                self.too_large = self.too_large.min(self.chunk);
                (self.chunk / 2).max(self.too_small + 1)
            }
        };
        let possible = size > self.too_small
            && size < self.too_large
            && (SMALLEST_CHUNK..=LARGEST_CHUNK).contains(&size);
        if possible {
            self.chunk = size;
        }
        possible
    }

    /// Halves the chunks after a broken connection, if possible.
    pub(super) fn shrink(&mut self) {
        let half = self.chunk / 2;
        if half > self.too_small && half >= SMALLEST_CHUNK {
            self.chunk = half;
        }
    }

    /// Gives up the current way, which `fault` refuses, for another.
    ///
    /// # Errors
    /// If no way is left: the last refusal, with the earlier ones.
    pub(super) fn change(&mut self, fault: Fault) -> Result<(), Fault> {
        let Fault { error, retry, kind } = fault;
        let ways = [Way::Chunks, Way::Whole, Way::Stream];
        let next = ways.into_iter().find(|way| *way != self.way && !self.refused(*way));
        let Some(next) = next else {
            let earlier = self.refusals.iter().filter(|(_, other)| {
                // The same words need not be repeated.
                other.to_string() != error.to_string()
            });
            let earlier: Vec<_> =
                earlier.map(|(way, error)| format!("{}: {error}", way.name())).collect();
            let error = match earlier.is_empty() {
                true => error,
                false => {
                    let text = format!("{error}; before that, {}", earlier.join("; "));
                    Error::registry(text).hint(error.hint_text().unwrap_or(LIMITED))
                }
            };
            return Err(Fault { error, retry, kind });
        };
        self.refusals.push((self.way, error));
        self.way = next;
        Ok(())
    }

    fn refused(&self, way: Way) -> bool {
        self.refusals.iter().any(|(refused, _)| *refused == way)
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Whole => "in one request",
            Way::Chunks => "in chunks",
            Way::Stream => "as a stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Retry;
    use super::*;

    fn fault(status: u16, complaint: Complaint) -> Fault {
        let error = Error::registry(format!("status {status}"));
        Fault { error, retry: Retry::Never, kind: FaultKind::Status(status, complaint) }
    }

    #[test]
    fn chunks_shrink_and_grow_within_what_was_refused() {
        let mut plan = Plan::new();
        let (large, small) = (fault(413, Complaint::TooLarge), fault(400, Complaint::TooSmall));
        assert!(plan.resize(&large) && plan.chunk() == 2 << 20);
        assert!(!plan.resize(&small), "2 MiB is too small, and 4 MiB too large");
        let mut plan = Plan::new();
        assert!(plan.resize(&small) && plan.chunk() == 8 << 20);
        assert!(plan.resize(&small) && plan.chunk() == 16 << 20);
        assert!(!plan.resize(&fault(405, Complaint::Other)));
        let mut plan = Plan::new();
        let mut sizes = 0;
        while plan.resize(&large) {
            sizes += 1;
        }
        assert_eq!((sizes, plan.chunk()), (6, SMALLEST_CHUNK));
        let mut plan = Plan::new();
        plan.require(9 << 20);
        assert_eq!(plan.chunk(), 9 << 20);
        assert!(!plan.resize(&large), "the registry's minimum");
    }

    #[test]
    fn every_way_is_tried_once_and_each_refusal_is_told() {
        let mut plan = Plan::new();
        plan.change(fault(413, Complaint::TooLarge)).unwrap();
        assert_eq!(plan.way(), Way::Chunks);
        plan.change(fault(416, Complaint::Other)).unwrap();
        assert_eq!(plan.way(), Way::Stream);
        plan.after_cut();
        assert_eq!(plan.way(), Way::Stream);
        let error = plan.change(fault(501, Complaint::Other)).unwrap_err().error.to_string();
        let expected = "status 501; before that, in one request: status 413; in chunks: status 416";
        assert_eq!(error, expected);

        // A cut is no refusal: the blob may still be sent whole.
        let mut plan = Plan::new();
        plan.after_cut();
        plan.change(fault(405, Complaint::Other)).unwrap();
        assert_eq!(plan.way(), Way::Whole);
        plan.after_cut();
        assert_eq!(plan.way(), Way::Whole);
    }
}
