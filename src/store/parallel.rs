//! Maps a function over many items on all processors: reading thousands of small files is mostly system call
//! latency.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum number of threads; all read from one disk.
const MOST_THREADS: usize = 8;
/// Batches smaller than this run on the calling thread.
const FEW: usize = 64;

/// Applies `work` to each item; returns the results in order.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < FEW {
        return items.iter().map(work).collect();
    }
    spread(items, work)
}

/// As [`map`], for few items that each take long.
pub(crate) fn spread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads.min(MOST_THREADS).min(items.len())).map(|_| scope.spawn(some)).collect();
        let mut done = some();
        for other in others {
            done.extend(other.join().expect("no thread panics"));
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_done_once_in_order() {
        for count in [0, 1, 2, FEW, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|n| n * 2).collect();
            assert_eq!(map(&items, |n| n * 2), doubled);
            assert_eq!(spread(&items, |n| n * 2), doubled);
        }
    }
}
