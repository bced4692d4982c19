//! A faulty registry: an HTTP server that uses only std, and sends exactly the replies that the test defines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as received.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// The number of previous requests for the same path.
    pub before: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// Returns the decoded values of a parameter of the query, or of a form in the body.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').chain(self.body.split('&'));
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(value)).collect()
    }
}

fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| {
        let code = u8::from_str_radix(&part[..2], 16).unwrap();
        format!("{text}{}{}", char::from(code), &part[2..])
    })
}

/// A part of a reply's body.
pub enum Piece {
    Bytes(Vec<u8>),
    /// Sends nothing for a while.
    Pause(Duration),
    /// Sends these bytes repeatedly, with a pause between.
    Forever(Vec<u8>, Duration),
    /// Sends nothing until the client disconnects.
    Hang,
}

/// A reply, sent unchanged: nothing in it is made consistent.
pub struct Reply {
    head: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Reply {
            head: format!("HTTP/1.1 {status} X\r\nConnection: close\r\n").into(),
            pieces: Vec::new(),
        }
    }

    /// Returns a reply of only these bytes, without a status line.
    pub fn raw(pieces: Vec<Piece>) -> Self {
        Reply { head: Vec::new(), pieces }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.extend(format!("{name}: {value}\r\n").into_bytes());
        self
    }

    /// Returns a reply with this body and its length.
    pub fn body(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.header("Content-Length", &bytes.len().to_string())
            .pieces(vec![Piece::Bytes(bytes.to_vec())])
    }

    /// Returns a reply with this body, without a length unless a header is added.
    pub fn pieces(mut self, pieces: Vec<Piece>) -> Self {
        self.pieces = pieces;
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    greeting: Box<dyn Fn() -> Vec<Piece> + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
    stop: AtomicBool,
    /// Bodies longer than this are not read: the server hangs up, like many proxies.
    longest_body: AtomicUsize,
}

/// A running server; stopped when dropped.
pub struct FaultRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FaultRegistry {
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        // The usual answer of plain http servers to a TLS handshake.
        let answer = b"HTTP/1.0 400 Bad Request\r\n\r\nnot here\n";
        Self::with_greeting(|| vec![Piece::Bytes(answer.to_vec())], handler)
    }

    /// Starts a server that answers a TLS handshake with `greeting`.
    pub fn with_greeting(
        greeting: impl Fn() -> Vec<Piece> + Send + Sync + 'static,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            greeting: Box::new(greeting),
            seen: Mutex::default(),
            stop: AtomicBool::new(false),
            longest_body: AtomicUsize::new(usize::MAX),
        });
        let own = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if own.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = own.clone();
                let stream = stream.unwrap();
                thread::spawn(move || {
                    // The client may disconnect at any moment; the test sees why.
                    let _ = serve(stream, &shared);
                });
            }
        });
        FaultRegistry { address, shared }
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Hangs up on requests with a longer body, without reading it or replying.
    pub fn hang_up_beyond(&self, bytes: usize) {
        self.shared.longest_body.store(bytes, Ordering::Relaxed);
    }

    /// Returns every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Returns every request so far for a path that contains `part`.
    pub fn seen_at(&self, part: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path().contains(part)).collect()
    }
}

impl Drop for FaultRegistry {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    if first[0] == 0x16 {
        for piece in (shared.greeting)() {
            send(&mut stream, piece, shared)?;
        }
        return Ok(());
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    if length > shared.longest_body.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        before: 0,
    };
    {
        let mut all = shared.seen.lock().unwrap();
        seen.before = all.iter().filter(|other| other.path() == seen.path()).count();
        all.push(seen.clone());
    }
    let reply = (shared.handler)(&seen);
    if !reply.head.is_empty() {
        stream.write_all(&reply.head)?;
        stream.write_all(b"\r\n")?;
    }
    for piece in reply.pieces {
        send(&mut stream, piece, shared)?;
    }
    Ok(())
}

fn send(stream: &mut TcpStream, piece: Piece, shared: &Shared) -> std::io::Result<()> {
    match piece {
        Piece::Bytes(bytes) => stream.write_all(&bytes),
        Piece::Pause(time) => {
            thread::sleep(time);
            Ok(())
        }
        Piece::Forever(bytes, pause) => loop {
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            stream.write_all(&bytes)?;
            thread::sleep(pause);
        },
        Piece::Hang => {
            stream.set_read_timeout(Some(Duration::from_millis(50)))?;
            loop {
                match stream.read(&mut [0; 64]) {
                    Ok(0) => return Ok(()),
                    _ if shared.stop.load(Ordering::Relaxed) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}
