//! Somebody on HIMDS's port who passes everything on to the real one, and listens in.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::unistd::{Uid, setfsuid};

/// A relay. A socket belongs to the user as whom it is accepted, and on Linux each thread may
/// have its own for that: `setfsuid`.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    accept_as: Arc<Mutex<Vec<u32>>>,
}

impl Relay {
    /// Listens as one user and accepts as another; needs root unless both are the current one.
    pub fn start(genuine: SocketAddr, listen_as: u32, accept_as: u32) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (heard, uids) = (Arc::default(), Arc::new(Mutex::new(vec![accept_as])));
        let (sink, accept_as) = (Arc::clone(&heard), Arc::clone(&uids));
        thread::spawn(move || {
            become_user(listen_as);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                // Read anew for each connection, and before it is accepted.
                wait_for_connection(&listener);
                become_user(next(&uids));
                let (broker, _) = listener.accept().unwrap();
                pass_on(&broker, genuine, &sink);
            }
        });
        let address = told.recv().unwrap();
        Self {
            address,
            heard,
            accept_as,
        }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it accepts as this user.
    pub fn accept_as(&self, uid: u32) {
        self.accept_in_turn(&[uid]);
    }

    /// From now on it accepts as these users, one after the other and again.
    pub fn accept_in_turn(&self, uids: &[u32]) {
        *self.accept_as.lock().unwrap() = uids.to_vec();
    }

    /// All that was sent to it.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn next(uids: &Mutex<Vec<u32>>) -> u32 {
    let mut uids = uids.lock().unwrap();
    uids.rotate_left(1);
    *uids.last().unwrap()
}

fn become_user(uid: u32) {
    setfsuid(Uid::from_raw(uid));
    // The call has no other way to say that it failed.
    let now = setfsuid(Uid::from_raw(u32::MAX));
    assert_eq!(now.as_raw(), uid, "setfsuid needs root");
}

fn wait_for_connection(listener: &TcpListener) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).unwrap();
}

/// Both ways at once, until either end has had enough.
fn pass_on(broker: &TcpStream, genuine: SocketAddr, heard: &Arc<Mutex<Vec<u8>>>) {
    let genuine = TcpStream::connect(genuine).unwrap();
    let (from, to) = (broker.try_clone().unwrap(), genuine.try_clone().unwrap());
    let heard = Arc::clone(heard);
    thread::spawn(move || copy(&from, &to, |bytes| heard.lock().unwrap().extend(bytes)));
    let (from, to) = (genuine, broker.try_clone().unwrap());
    thread::spawn(move || copy(&from, &to, |_| ()));
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, listen_in: impl Fn(&[u8])) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        listen_in(&bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    to.shutdown(Shutdown::Write).unwrap_or_default();
}
