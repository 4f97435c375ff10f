//! A network that a test can break: a TCP proxy between a process and what it connects to.
//!
//! A cut holds bytes back, as a broken cable does, whose bytes are sent again when it is mended:
//! what was said during the cut arrives late, and nothing is lost within a connection. Breaking
//! the connections is another fault: what was on its way is gone.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Which direction a fault concerns; up is from the process that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the process says is not heard.
    Up,
    /// What it is told does not reach it.
    Down,
    /// Neither.
    Both,
}

impl Way {
    fn concerns(self, direction: Self) -> bool {
        self == direction || self == Self::Both
    }
}

#[derive(Default)]
struct State {
    cut: Option<Way>,
    delay: Duration,
    connections: Vec<[TcpStream; 2]>,
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    healed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes of this direction may pass; `None` when the proxy is gone.
    fn pass(&self, direction: Way) -> Option<Duration> {
        let mut state = self.lock();
        while !state.is_over && state.cut.is_some_and(|cut| cut.concerns(direction)) {
            state = self.healed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.is_over).then_some(state.delay)
    }
}

/// A proxy. Its connections end when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port, and connects each client to `target`.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let target = target.parse().expect("a target is an address");
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, target, &accepting));
        Self { address, shared }
    }

    /// Where clients connect.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Holds back everything in this direction until [`Proxy::heal`].
    pub fn cut(&self, way: Way) {
        self.shared.lock().cut = Some(way);
    }

    /// Everything passes `delay` later than it was sent.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Ends every connection; new ones are taken.
    pub fn break_connections(&self) {
        for connection in self.shared.lock().connections.drain(..) {
            for side in connection {
                // One that has ended already needs no end.
                drop(side.shutdown(Shutdown::Both));
            }
        }
    }

    /// No cut and no delay any more; what was held back goes on.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        (state.cut, state.delay) = (None, Duration::ZERO);
        drop(state);
        self.shared.healed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.healed.notify_all();
        self.break_connections();
        // Wakes the thread that accepts; it sees that all is over.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.lock().is_over {
            return;
        }
        // A client that has gone again, or a target that does not listen, is an end for it.
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || drop(connect(client, target, &shared)));
    }
}

fn connect(client: TcpStream, target: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    // No way back, no connection.
    if shared.pass(Way::Up).and_then(|_| shared.pass(Way::Down)).is_none() {
        return Ok(());
    }
    let server = TcpStream::connect(target)?;
    for side in [&client, &server] {
        side.set_nodelay(true)?;
    }
    let sides = [client.try_clone()?, server.try_clone()?];
    shared.lock().connections.push(sides);
    let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
    let downward = Arc::clone(shared);
    thread::spawn(move || pump(back_from, back_to, Way::Down, &downward));
    pump(client, server, Way::Up, shared);
    Ok(())
}

/// Copies one direction until it ends; then both ends are told.
fn pump(mut from: TcpStream, mut to: TcpStream, direction: Way, shared: &Shared) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let Some(delay) = shared.pass(direction) else { break };
        thread::sleep(delay);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    // A peer learns of an end by the network too: not before the cut is mended.
    if shared.pass(direction).is_some() {
        drop(to.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use crate::PATIENCE;

    /// A server that says everything twice.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    drop(stream.write_all(&[byte[0], byte[0]]));
                }
            }
        });
        address
    }

    fn hears(stream: &mut TcpStream, want: &[u8]) {
        let mut got = vec![0; want.len()];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, want);
    }

    fn hears_nothing(stream: &mut TcpStream) {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "something passed a cut");
    }

    #[test]
    fn a_cut_holds_back_and_loses_nothing() {
        let proxy = Proxy::start(&echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(b"a").unwrap();
        hears(&mut stream, b"aa");
        for (way, sent) in [(Way::Up, b"b"), (Way::Down, b"c"), (Way::Both, b"d")] {
            proxy.cut(way);
            stream.write_all(sent).unwrap();
            hears_nothing(&mut stream);
            proxy.heal();
            hears(&mut stream, &[sent[0], sent[0]]);
        }
    }

    #[test]
    fn a_broken_connection_ends_and_a_new_one_is_taken() {
        let proxy = Proxy::start(&echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(b"a").unwrap();
        hears(&mut stream, b"aa");
        proxy.break_connections();
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(b"b").unwrap();
        hears(&mut stream, b"bb");
    }
}
