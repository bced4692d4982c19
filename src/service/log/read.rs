//! Reads the logs of one component, or of several merged by time: all lines, the last ones, and later ones.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::file;
use crate::error::{IoContext, Result};
use crate::sandbox::Stream;

/// Maximum number of log files of one component.
const MAX_FILES: u32 = 1000;

/// A line, or a piece of a very long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was printed.
    pub time: Timestamp,
    /// The stream it was printed to.
    pub stream: Stream,
    /// The text, without its newline.
    pub text: Vec<u8>,
    /// Whether the line ends here.
    pub whole: bool,
    /// The index of the component.
    pub component: usize,
}

/// Selects log lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogFilter {
    /// Only this many lines, the last ones.
    pub last: Option<usize>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only lines before this time.
    pub until: Option<Timestamp>,
}

impl LogFilter {
    fn has(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time < until)
    }
}

/// Passes the existing lines to `take`, in order of time; returns a follower per component for later lines.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage); those of `take`.
pub(crate) fn merged(
    dir: &Path,
    components: &[String],
    wanted: &LogFilter,
    take: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<Vec<Follower>> {
    let mut followers = Vec::new();
    for (number, component) in components.iter().enumerate() {
        followers.push(Follower::new(dir, component, number)?);
    }
    let mut heads = Vec::new();
    for follower in &mut followers {
        heads.push(follower.next_line()?);
    }
    let mut last = Last::default();
    let mut open = None;
    loop {
        let times = heads.iter().enumerate().filter_map(|(n, line)| Some((line.as_ref()?.time, n)));
        // Keep the pieces of a line together, without lines of other components in between.
        let open_head = open.filter(|n: &usize| heads[*n].is_some());
        let Some(next) = open_head.or(times.min().map(|(_, next)| next)) else { break };
        open = heads[next].as_ref().filter(|line| !line.whole).map(|_| next);
        let line = std::mem::replace(&mut heads[next], followers[next].next_line()?);
        let Some(line) = line.filter(|line| wanted.has(line)) else { continue };
        match wanted.last {
            None => take(line)?,
            Some(most) => last.push(line, most),
        }
    }
    last.pieces.into_iter().try_for_each(take)?;
    Ok(followers)
}

/// The last lines. A line written in pieces counts as one line, and is kept or dropped whole.
#[derive(Default)]
struct Last {
    pieces: VecDeque<Line>,
    /// How many lines the pieces belong to.
    lines: usize,
    /// The components and streams whose last line is incomplete.
    open: HashSet<(usize, Stream)>,
}

impl Last {
    fn push(&mut self, line: Line, most: usize) {
        let of = (line.component, line.stream);
        let begins = match line.whole {
            true => !self.open.remove(&of),
            false => self.open.insert(of),
        };
        self.lines += usize::from(begins);
        self.pieces.push_back(line);
        while self.lines > most {
            self.drop_first();
        }
    }

    /// Drops the first line with all its pieces.
    fn drop_first(&mut self) {
        let Some(first) = self.pieces.pop_front() else { return };
        self.lines -= 1;
        let of = (first.component, first.stream);
        let mut whole = first.whole;
        self.pieces.retain(|line| {
            let dropped = !whole && (line.component, line.stream) == of;
            whole |= dropped && line.whole;
            !dropped
        });
        if !whole {
            // A continuation without a beginning starts a new line.
            self.open.remove(&of);
        }
    }
}

/// Reads one component's log from its oldest line, and resumes at its last position.
#[derive(Debug)]
pub(crate) struct Follower {
    dir: PathBuf,
    component: String,
    number: usize,
    /// The files still to be read; the first one is being read.
    files: VecDeque<BufReader<File>>,
    /// The inode of the newest file.
    newest: Option<u64>,
    partial: Vec<u8>,
}

impl Follower {
    fn new(dir: &Path, component: &str, number: usize) -> Result<Follower> {
        let mut follower = Follower {
            dir: dir.to_owned(),
            component: component.to_owned(),
            number,
            files: VecDeque::new(),
            newest: None,
            partial: Vec::new(),
        };
        follower.open_newer()?;
        Ok(follower)
    }

    /// Returns the next line, if one has been written.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn next_line(&mut self) -> Result<Option<Line>> {
        loop {
            if let Some(line) = self.next_of_open()? {
                return Ok(Some(line));
            }
            if !self.open_newer()? {
                return Ok(None);
            }
        }
    }

    fn next_of_open(&mut self) -> Result<Option<Line>> {
        while let Some(reader) = self.files.front_mut() {
            let length = reader.read_until(b'\n', &mut self.partial).io("read", &self.dir)?;
            if length > 0 && self.partial.ends_with(b"\n") {
                let text = std::mem::take(&mut self.partial);
                // Skip lines in another format.
                match parse(&text[..text.len() - 1], self.number) {
                    Some(line) => return Ok(Some(line)),
                    None => continue,
                }
            }
            if self.files.len() == 1 {
                return Ok(None);
            }
            self.partial.clear();
            self.files.pop_front();
        }
        Ok(None)
    }

    /// Opens newer files than the current one; returns whether there are any.
    fn open_newer(&mut self) -> Result<bool> {
        let mut newer = VecDeque::new();
        let mut newest = None;
        for age in 0..MAX_FILES {
            let path = file(&self.dir, &self.component, age);
            let opened = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other.io("open", &path)?,
            };
            let inode = opened.metadata().io("stat", &path)?.ino();
            if Some(inode) == self.newest {
                break;
            }
            newest = newest.or(Some(inode));
            newer.push_front(BufReader::with_capacity(64 << 10, opened));
        }
        if newest.is_none() {
            return Ok(false);
        }
        self.newest = newest;
        self.files.extend(newer);
        Ok(true)
    }
}

/// Reads `TIME STREAM TAG TEXT`.
fn parse(line: &[u8], component: usize) -> Option<Line> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let stream = match words.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let whole = match words.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let text = words.next().unwrap_or_default().to_vec();
    Some(Line { time, stream, text, whole, component })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::log::Log;
    use crate::service::record::LogLimits;

    fn read(dir: &Path, wanted: &LogFilter) -> Vec<u8> {
        let mut out = Vec::new();
        let names = ["a".to_owned(), "b".to_owned()];
        merged(dir, &names, wanted, &mut |line| {
            out.extend(line.text);
            if line.whole {
                out.push(b'\n');
            }
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn any_output_is_read_back_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), "a", LogLimits::default()).unwrap();
        let long = vec![b'x'; 3 << 20];
        let text = [b"one\n\n\xff\x00two\n", &long[..], b"\nno end"].concat();
        log.copy_from(Stream::Stdout, &text[..], &|_, _| {});
        log.copy_from(Stream::Stderr, &b"later\n"[..], &|_, _| {});
        assert!(read(dir.path(), &LogFilter::default()) == [&text[..], b"\nlater\n"].concat());
        let last = LogFilter { last: Some(2), ..LogFilter::default() };
        assert_eq!(read(dir.path(), &last), b"no end\nlater\n");
    }

    #[test]
    fn a_line_in_many_pieces_counts_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), "a", LogLimits::default()).unwrap();
        let long = vec![b'x'; 5 << 20];
        log.copy_from(
            Stream::Stdout,
            &[b"before\n", &long[..], b"\nafter\n"].concat()[..],
            &|_, _| {},
        );
        let last = |n| read(dir.path(), &LogFilter { last: Some(n), ..LogFilter::default() });
        assert!(last(0).is_empty());
        assert_eq!(last(1), b"after\n");
        assert!(last(2) == [&long[..], b"\nafter\n"].concat());
        assert_eq!(last(3).len(), long.len() + 14);
    }

    #[test]
    fn rotation_keeps_the_last_files_and_cuts_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { files: 3, size: 4096 };
        let log = Log::open(dir.path(), "a", limits).unwrap();
        for n in 0..1000 {
            log.copy_from(Stream::Stdout, format!("line {n}\n").as_bytes(), &|_, _| {});
        }
        let text = String::from_utf8(read(dir.path(), &LogFilter::default())).unwrap();
        let numbers: Vec<u32> =
            text.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
        assert_eq!(*numbers.last().unwrap(), 999);
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(numbers.len() > 100 && numbers.len() < 400, "{}", numbers.len());
    }

    #[test]
    fn old_files_are_kept_if_no_new_file_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), "a", LogLimits { files: 3, size: 100 }).unwrap();
        let print = |n: u32| log.copy_from(Stream::Stdout, format!("{n}\n").as_bytes(), &|_, _| {});
        let text = || String::from_utf8(read(dir.path(), &LogFilter::default())).unwrap();
        (0..6).for_each(print);
        let before = text();
        let beside = file(dir.path(), "a", 0).with_extension("new");
        std::fs::create_dir(&beside).unwrap();
        (6..50).for_each(print);
        let expected: String = (6..50).map(|n| format!("{n}\n")).collect();
        assert_eq!(text(), before + &expected);
        std::fs::remove_dir(&beside).unwrap();
        (50..60).for_each(print);
        assert!(text().ends_with("58\n59\n") && text().lines().count() < 20);
    }

    #[test]
    fn a_follower_sees_every_line_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { files: 50, size: 1000 };
        let log = Log::open(dir.path(), "a", limits).unwrap();
        let names = ["a".to_owned()];
        let mut followers =
            merged(dir.path(), &names, &LogFilter::default(), &mut |_| Ok(())).unwrap();
        let mut seen = 0;
        for n in 0..500 {
            log.copy_from(Stream::Stdout, format!("{n}\n").as_bytes(), &|_, _| {});
            if n % 7 == 0 || n == 499 {
                while let Some(line) = followers[0].next_line().unwrap() {
                    assert_eq!(line.text, seen.to_string().as_bytes());
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 500);
    }
}
