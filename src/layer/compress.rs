//! Compresses and decompresses layers: bounded decoders for third-party blobs, and an encoder whose output depends
//! only on the content.
//!
//! The gzip encoder splits the tar into blocks of [`BLOCK`] bytes, deflates each on its own with the preceding
//! 32 KiB as its dictionary, and joins the results into one gzip member (RFC 1952), as pigz does. Neither the number
//! of threads nor the sizes of writes change a byte.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Crc, FlushCompress};
use structured_zstd::decoding::errors::FrameDecoderError;
use structured_zstd::decoding::{ContentChecksum, FrameDecoder, StreamingDecoder};
use structured_zstd::encoding::{CompressionLevel, StreamingEncoder};

use super::settings::Settings;
use crate::error::{Error, IoContext, Kind, Result};
use crate::oci::media_type::Compression;

/// Input bytes of one independently deflated block.
const BLOCK: usize = 256 * 1024;
/// The maximum distance of a deflate reference (RFC 1951).
const DICTIONARY: usize = 32 * 1024;
/// The largest zstd window that is decoded: 32 MiB. skopeo, podman and BuildKit need 8 MiB.
const ZSTD_WINDOW: u64 = 32 << 20;
/// Bytes of compressed input read at a time.
const READ_AHEAD: usize = 128 * 1024;

/// Detects the compression by the magic number in `first_bytes` (six suffice); anything unknown counts as a
/// plain tar.
pub fn detect(first_bytes: &[u8]) -> Compression {
    match first_bytes {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame (RFC 8878, 3.1.2) may come first; these are the last three bytes of its magic number.
        [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Waits for the permission to decode a zstd layer; needs none for other compressions. Each window may take 32 MiB,
/// and several at once would exceed svp's memory limit. A thread must not hold two.
pub fn zstd_permit(c: Compression) -> Option<MutexGuard<'static, ()>> {
    static ZSTD: Mutex<()> = Mutex::new(());
    (c == Compression::Zstd).then(|| ZSTD.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the compression of a layer's blob and a reader of its uncompressed tar. The first bytes decide, not the
/// layer's media type, which may lie: docker and podman look at the bytes too. Otherwise as [`decoder`].
///
/// # Errors
/// [`Kind::Storage`] if the first bytes can't be read.
pub fn layer_decoder<R: Read + 'static>(input: R) -> Result<(Compression, Box<dyn Read>)> {
    let mut input = BufReader::with_capacity(READ_AHEAD, input);
    let head = read_head(&mut input)?;
    let found = detect(&head);
    let whole = io::Cursor::new(head).chain(input);
    Ok((found, decode(whole, found, ZSTD_WINDOW)?))
}

/// Returns a reader of the uncompressed tar in `input`.
///
/// Accepts gzip with several members and zstd with several frames. Its reads fail with
/// [`io::ErrorKind::InvalidData`] on a bad checksum, on trailing data that is not another member or frame, and on
/// a zstd window above 32 MiB; and with [`io::ErrorKind::UnexpectedEof`] on truncated input. The caller must limit
/// the size of the output.
///
/// # Errors
/// [`Kind::BadInput`] if the first bytes don't match `c`; [`Kind::Storage`] if they can't be read.
pub fn decoder<R: Read + 'static>(input: R, c: Compression) -> Result<Box<dyn Read>> {
    decoder_within(input, c, ZSTD_WINDOW)
}

/// As [`decoder`], with a given limit for zstd windows, in bytes.
///
/// # Errors
/// As [`decoder`].
pub fn decoder_within<'a, R: Read + 'a>(
    input: R,
    c: Compression,
    window: u64,
) -> Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(READ_AHEAD, input);
    if c == Compression::None {
        return Ok(Box::new(input));
    }
    let head = read_head(&mut input)?;
    let found = detect(&head);
    if found != c {
        let found = match found {
            Compression::None => "not compressed".to_owned(),
            other => other.to_string(),
        };
        return Err(Error::bad_input(format!("expected {c}, but the data is {found}")));
    }
    decode(io::Cursor::new(head).chain(input), c, window)
}

/// Reads the bytes that [`detect`] needs.
fn read_head(input: &mut impl Read) -> Result<Vec<u8>> {
    let mut magic = [0; 6];
    let length = read_full(input, &mut magic).io("read", "a compressed layer")?;
    Ok(magic[..length].to_vec())
}

fn decode<'a, R: Read + 'a>(input: R, c: Compression, window: u64) -> Result<Box<dyn Read + 'a>> {
    Ok(match c {
        Compression::None => Box::new(input),
        Compression::Gzip => {
            let buffered = BufReader::with_capacity(READ_AHEAD, input);
            Box::new(Decoded(flate2::bufread::MultiGzDecoder::new(buffered)))
        }
        Compression::Zstd => {
            let mut frames = FrameDecoder::new();
            frames.set_max_window_size(window).map_err(|error| {
                Error::new(Kind::Storage, format!("can't limit the zstd window: {error}"))
            })?;
            frames.set_content_checksum(ContentChecksum::Verify);
            Box::new(Decoded(Frames(StreamingDecoder::new_with_decoder(input, frames))))
        }
    })
}

/// A zstd stream that only offers piecewise reads: the decoder's own `read_to_end` would buffer all of its input.
struct Frames<R: Read>(StreamingDecoder<R, FrameDecoder>);

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// A decoder that reports all decoding failures as [`io::ErrorKind::InvalidData`].
struct Decoded<R: Read>(R);

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidInput => {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
            _ => error,
        })
    }
}

/// Returns whether decompression failed because the data needs a larger window than [`decoder_within`] allows.
pub fn is_window_too_large(error: &io::Error) -> bool {
    let Some(inner) = error.get_ref() else { return false };
    match (inner.downcast_ref::<io::Error>(), inner.downcast_ref::<FrameDecoderError>()) {
        (Some(inner), _) => is_window_too_large(inner),
        (_, Some(inner)) => matches!(inner, FrameDecoderError::WindowSizeTooBig { .. }),
        _ => false,
    }
}

/// Reads until `buf` is full or the input ends; returns the number of bytes read.
pub(crate) fn read_full(input: &mut (impl Read + ?Sized), buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match input.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Compresses the data written to it into a writer.
pub struct Encoder<W: Write + Send>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(Box<Gzip<W>>),
    Zstd(Box<StreamingEncoder<W>>),
}

impl<W: Write + Send> Encoder<W> {
    /// Creates an encoder that uses up to `threads` threads for gzip.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the header can't be written or no thread can be started.
    pub fn new(mut output: W, settings: Settings, threads: usize) -> Result<Self> {
        let level = settings.level();
        Ok(Encoder(match settings.compression() {
            Compression::None => Inner::None(output),
            Compression::Gzip => {
                output.write_all(&GZIP_HEADER).io("write", "a layer")?;
                Inner::Gzip(Box::new(Gzip::new(output, level, threads)?))
            }
            Compression::Zstd => {
                let level = CompressionLevel::from_level(level as i32);
                let mut encoder = StreamingEncoder::new(output, level);
                encoder.set_content_checksum(true).io("compress", "a layer")?;
                Inner::Zstd(Box::new(encoder))
            }
        }))
    }

    /// Writes the remaining data and the end mark, and returns the writer.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn finish(self) -> Result<W> {
        self.end().io("write", "a layer")
    }

    /// As [`Encoder::finish`], for data other than layers.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn end(self) -> io::Result<W> {
        match self.0 {
            Inner::None(output) => Ok(output),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write + Send> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(output) => output.write(buf),
            Inner::Gzip(gzip) => gzip.write(buf),
            Inner::Zstd(encoder) => encoder.write(buf),
        }
    }

    /// Does nothing: the caller's flushes must not change the compressed bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A gzip member header without time, name or system (RFC 1952, 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A block to deflate, and the channel for its result.
struct Job {
    block: Vec<u8>,
    dictionary: Vec<u8>,
    last: bool,
    done: SyncSender<io::Result<Deflated>>,
}

/// A deflated block, with the checksum of its input.
struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

struct Gzip<W: Write> {
    output: W,
    level: u32,
    block: Vec<u8>,
    dictionary: Vec<u8>,
    crc: Crc,
    /// Bytes of input modulo 2^32, as stored in the trailer.
    length: u32,
    /// The queue of blocks to deflate; `None` if the caller's thread deflates.
    jobs: Option<SyncSender<Job>>,
    /// The results, in block order.
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
    most_pending: usize,
    workers: Vec<JoinHandle<()>>,
}

impl<W: Write> Gzip<W> {
    fn new(output: W, level: u32, threads: usize) -> Result<Self> {
        let threads = threads.clamp(1, 64);
        let mut workers = Vec::new();
        let mut jobs = None;
        if threads > 1 {
            let (sender, receiver) = sync_channel::<Job>(threads);
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..threads {
                let receiver = Arc::clone(&receiver);
                let worker = std::thread::Builder::new()
                    .name("deflate".into())
                    .spawn(move || work(&receiver, level))
                    .io("start", "a compression thread")?;
                workers.push(worker);
            }
            jobs = Some(sender);
        }
        Ok(Gzip {
            output,
            level,
            block: Vec::with_capacity(BLOCK),
            dictionary: Vec::new(),
            crc: Crc::new(),
            length: 0,
            jobs,
            pending: VecDeque::new(),
            most_pending: 2 * threads,
            workers,
        })
    }

    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Deflate a full block only when more data arrives: the last one is encoded differently.
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        let taken = buf.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..taken]);
        Ok(taken)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let tail = block[block.len().saturating_sub(DICTIONARY)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, tail);
        self.length = self.length.wrapping_add(block.len() as u32);
        let Some(jobs) = &self.jobs else {
            let deflated = deflate(&block, &dictionary, last, self.level)?;
            return self.put(&deflated);
        };
        let (done, result) = sync_channel(1);
        let gone = || io::Error::other("a compression thread died");
        jobs.send(Job { block, dictionary, last, done }).map_err(|_| gone())?;
        self.pending.push_back(result);
        while self.pending.len() > self.most_pending {
            self.take_one()?;
        }
        Ok(())
    }

    fn take_one(&mut self) -> io::Result<()> {
        let Some(result) = self.pending.pop_front() else { return Ok(()) };
        let deflated =
            result.recv().map_err(|_| io::Error::other("a compression thread died"))??;
        self.put(&deflated)
    }

    fn put(&mut self, deflated: &Deflated) -> io::Result<()> {
        self.crc.combine(&deflated.crc);
        self.output.write_all(&deflated.bytes)
    }

    fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.take_one()?;
        }
        drop(self.jobs.take());
        for worker in self.workers.drain(..) {
            // Ignore a panic of the thread: a lost block was reported already.
            let _ = worker.join();
        }
        self.output.write_all(&self.crc.sum().to_le_bytes())?;
        self.output.write_all(&self.length.to_le_bytes())?;
        Ok(self.output)
    }
}

/// Runs a worker thread: deflates blocks until the queue closes.
fn work(jobs: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let job = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        let Ok(job) = job else { return };
        let result = deflate(&job.block, &job.dictionary, job.last, level);
        // The receiver may be gone already.
        let _ = job.done.send(result);
    }
}

/// Deflates one block with a new compressor: a reset one with a new dictionary does not always write the same
/// bytes.
fn deflate(block: &[u8], dictionary: &[u8], last: bool, level: u32) -> io::Result<Deflated> {
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(block);
    // Stored blocks, the worst case, cost 5 bytes in 16 KiB; the rest is for the flush marker.
    let mut bytes = Vec::with_capacity(block.len() + block.len() / 1024 + 1024);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let rest = &block[compress.total_in() as usize..];
        let status = compress.compress_vec(rest, &mut bytes, flush).map_err(io::Error::other)?;
        let complete = match status {
            flate2::Status::StreamEnd => true,
            // A flush is complete when it leaves free space in the output.
            _ => !last && bytes.len() < bytes.capacity(),
        };
        if complete && compress.total_in() as usize == block.len() {
            return Ok(Deflated { bytes, crc });
        }
        bytes.reserve(4096);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..length)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i % 3 == 0 { (state >> 24) as u8 } else { (i / 512) as u8 }
            })
            .collect()
    }

    fn encode(data: &[u8], c: Compression, threads: usize, chunk: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), c.into(), threads).unwrap();
        for piece in data.chunks(chunk) {
            encoder.write_all(piece).unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(data: Vec<u8>, c: Compression) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(io::Cursor::new(data), c).map_err(io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn bytes_depend_only_on_the_content() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 77] {
            let data = sample(length);
            let one = encode(&data, Compression::Gzip, 1, 8192);
            for (threads, chunk) in [(1, BLOCK), (2, 10_007), (5, length.max(1))] {
                assert_eq!(one, encode(&data, Compression::Gzip, threads, chunk), "{length}");
            }
            assert_eq!(decode(one, Compression::Gzip).unwrap(), data);
            let zstd = encode(&data, Compression::Zstd, 1, 8192);
            assert_eq!(zstd, encode(&data, Compression::Zstd, 2, 100_003), "zstd {length}");
            assert_eq!(decode(zstd, Compression::Zstd).unwrap(), data);
        }
    }

    #[test]
    fn every_level_decodes_again() {
        let data = sample(BLOCK + 5000);
        for (compression, most) in [(Compression::Gzip, 9), (Compression::Zstd, 19)] {
            for level in 1..=most {
                let settings = Settings::new(compression, Some(level)).unwrap();
                let mut encoder = Encoder::new(Vec::new(), settings, 1).unwrap();
                encoder.write_all(&data).unwrap();
                let packed = encoder.finish().unwrap();
                assert_eq!(decode(packed, compression).unwrap(), data, "{settings:?}");
            }
        }
    }

    #[test]
    fn only_members_and_frames_may_follow_each_other() {
        for c in [Compression::Gzip, Compression::Zstd] {
            let one = encode(b"one", c, 1, 10);
            let two = encode(b"two", c, 1, 10);
            let both = [one.clone(), two.clone()].concat();
            assert_eq!(decode(both.clone(), c).unwrap(), b"onetwo");
            assert!(decode([both.clone(), b"garbage".to_vec()].concat(), c).is_err());
            for cut in [1, 4, one.len() - 1, one.len() + 5, both.len() - 1] {
                assert!(decode(both[..cut].to_vec(), c).is_err(), "{c:?} cut at {cut}");
            }
            let mut flipped = one.clone();
            let at = flipped.len() - 3;
            flipped[at] ^= 1;
            assert!(decode(flipped, c).is_err());
            assert!(decode(Vec::new(), c).is_err());
            assert!(decode(b"plain text".to_vec(), c).is_err());
        }
    }

    #[test]
    fn a_wide_zstd_window_is_refused() {
        // Magic, descriptor without single segment, window of 2^(10+17) = 128 MiB, an empty last block.
        let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
        assert!(is_window_too_large(&decode(frame, Compression::Zstd).unwrap_err()));
        let damaged = decode(b"\x28\xb5\x2f\xfdbroken".to_vec(), Compression::Zstd).unwrap_err();
        assert!(!is_window_too_large(&damaged));
        let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 15 << 3, 1, 0, 0];
        assert_eq!(decode(frame, Compression::Zstd).unwrap(), b"");
    }

    #[test]
    fn decoding_errors_differ_from_read_errors() {
        let mut gzip = encode(&sample(100_000), Compression::Gzip, 1, 8192);
        gzip[5000..5100].fill(0xff);
        // A frame that needs a dictionary.
        let zstd = b"\x28\xb5\x2f\xfdbroken".to_vec();
        for (data, c) in [(gzip, Compression::Gzip), (zstd, Compression::Zstd)] {
            let error = decode(data, c).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{c:?}: {error}");
        }
    }

    #[test]
    fn magic_numbers() {
        assert_eq!(detect(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(detect(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(detect(&[0x5e, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(detect(b"./\0\0\0"), Compression::None);
        assert_eq!(detect(&[]), Compression::None);
    }

    #[test]
    fn a_failing_writer_fails_the_encoder() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(28))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(Encoder::new(Full, Settings::default(), 2).is_err());
    }
}
