//! Links: connections from inside a service to the address of another, carried by the monitor.
//!
//! In a private network 127.83.x.y is the service's own loopback, so the other's address and port can be
//! listened on *there*. Whoever connects is connected to the same address on the host, where the other is. So
//! `%IP` is the same everywhere, and it does not matter which of the two was started first.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The most connections at once of one link; more wait.
const MOST: usize = 1024;
/// How often to look whether the service still runs.
const TICK: Duration = Duration::from_millis(500);

/// Serves one link until `over` says so. The listener is of the service's network.
pub fn serve(listener: &TcpListener, to: SocketAddr, over: &dyn Fn() -> bool) {
    let open = Arc::new(AtomicUsize::new(0));
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
    while !over() {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&pause)).is_ok_and(|count| count > 0);
        if !ready || open.load(Ordering::SeqCst) >= MOST {
            continue;
        }
        let Ok((inside, _)) = listener.accept() else { continue };
        open.fetch_add(1, Ordering::SeqCst);
        let open = open.clone();
        std::thread::spawn(move || {
            // Who connects to what isn't there sees the connection closed.
            let _ = carry(&inside, to);
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Carries one connection in both directions, each to its end.
fn carry(inside: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let outside = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    for stream in [inside, &outside] {
        let _ = stream.set_nodelay(true);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| copy(inside, &outside));
        copy(&outside, inside);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(length @ 1..) if to.write_all(&buffer[..length]).is_ok() => {}
            _ => break,
        }
    }
    // The other direction may go on.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn both_directions_end_on_their_own() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = far.local_addr().unwrap();
        let near = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = near.local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&near, to, &|| over.load(Ordering::SeqCst)));
            // It answers only once all was said.
            scope.spawn(|| {
                let (mut stream, _) = far.accept().unwrap();
                let mut said = Vec::new();
                stream.read_to_end(&mut said).unwrap();
                said.reverse();
                stream.write_all(&said).unwrap();
            });
            let mut stream = TcpStream::connect(at).unwrap();
            let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            back.reverse();
            assert!(back == bytes);
            over.store(true, Ordering::SeqCst);
        });
    }
}
