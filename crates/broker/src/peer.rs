//! Who is at the other end of a Unix socket: the numbers as the kernel saw them at the connect, and
//! what is known of the process now.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use arcbroker_peer_sys::{peer_groups, refuse_descriptors};
use arcbroker_policy::Caller;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

use crate::evidence::{Observer, Process, Sighting};
use crate::pinned::Exhausted;

/// A peer: what is decided on, and what is only written down.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the policy judges. Nothing in it comes from the peer's own words.
    pub caller: Caller,
    /// Name of the user, for display.
    pub user: Option<Arc<str>>,
    /// Process id; absent where the process is outside the broker's pid namespace.
    pub pid: Option<i32>,
    /// Systemd's number for this run of the unit, for display.
    pub invocation: Option<Arc<str>>,
    /// The address of its own that it asked on; absent on the socket.
    pub endpoint: Option<SocketAddr>,
}

impl Peer {
    /// Reads the numbers, which stay as they were at the connect. Nothing is known of the process yet,
    /// so no rule holds.
    ///
    /// # Errors
    ///
    /// When the kernel gives no user and group: then nobody can be judged. Supplementary groups
    /// that cannot be read are no evidence, and match no rule.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let mut groups = peer_groups(stream.as_fd()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the supplementary groups of a peer cannot be read; rules on them do not match");
            Vec::new()
        });
        // The effective group need not be in the list.
        if !groups.contains(&credentials.gid()) {
            groups.push(credentials.gid());
        }
        Ok(Self {
            caller: Caller {
                container: None,
                ..Caller::new(credentials.uid(), credentials.gid(), groups)
            },
            user: None,
            pid: Some(credentials.pid()).filter(|&pid| pid > 0),
            invocation: None,
            endpoint: None,
        })
    }

    fn seen(mut self, sighting: &Sighting) -> Self {
        self.caller.unit.clone_from(&sighting.unit);
        self.caller.container = sighting.container;
        self.invocation.clone_from(&sighting.invocation);
        self
    }

    /// The process has ended; the connection lives on in whoever has it now. That it was in a container
    /// or not stays as it was seen.
    fn ended(mut self) -> Self {
        self.caller.unit = None;
        self.invocation = None;
        self
    }
}

/// The peer of one connection, looked at again from time to time.
#[derive(Debug)]
pub struct Watched {
    observer: Observer,
    process: Option<Arc<Process>>,
    uid: u32,
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    peer: Arc<Peer>,
    sighting: Arc<Sighting>,
}

impl Watched {
    /// Holds on to the process and looks at it. To be called at once after the accept: a process that
    /// has ended by then cannot be looked at.
    ///
    /// # Errors
    ///
    /// When the broker has nothing left to look with: then nothing can be said for or against the peer.
    pub fn new(
        stream: &UnixStream,
        mut peer: Peer,
        observer: &Observer,
    ) -> Result<Self, Exhausted> {
        let overflow = observer.ability().overflow;
        if let Some(overflow) = overflow {
            peer.caller.groups.retain(|&group| group != overflow);
        }
        let (uid, gid) = (peer.caller.uid, peer.caller.gid);
        // Somebody without a number here could be anybody: nothing about the process would make up for it.
        let is_known = overflow.is_none_or(|overflow| uid != overflow && gid != overflow);
        let pid = peer.pid.filter(|_| is_known);
        let (process, sighting) = observer.meet(stream, pid, uid)?;
        Ok(Self {
            observer: observer.clone(),
            process,
            uid,
            latest: Mutex::new(Latest {
                peer: Arc::new(peer.seen(&sighting)),
                sighting,
            }),
        })
    }

    /// A peer that is known already, and its process.
    pub fn around(observer: &Observer, process: Arc<Process>, peer: Peer) -> Self {
        let sighting = process.sighting();
        Self {
            observer: observer.clone(),
            uid: peer.caller.uid,
            process: Some(process),
            latest: Mutex::new(Latest {
                peer: Arc::new(peer.seen(&sighting)),
                sighting,
            }),
        }
    }

    /// The process; absent where it cannot be held on to.
    pub fn process(&self) -> Option<&Arc<Process>> {
        self.process.as_ref()
    }

    /// What looks at it.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Adds the name of the user.
    pub fn name(&mut self, user: Option<Arc<str>>) {
        let latest = self
            .latest
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut latest.peer).user = user;
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The peer as it is now: looked at again, where that was some time ago.
    pub fn now(&self) -> Arc<Peer> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &self.process {
            match self.observer.see(process) {
                Some(sighting) if !Arc::ptr_eq(&sighting, &latest.sighting) => {
                    latest.peer = Arc::new(Peer::clone(&latest.peer).seen(&sighting));
                    latest.sighting = sighting;
                }
                None if latest.peer.caller.unit.is_some() => {
                    latest.peer = Arc::new(Peer::clone(&latest.peer).ended());
                }
                _ => {}
            }
        }
        Arc::clone(&latest.peer)
    }
}

/// Refuses descriptors that peers send along, on this socket and on all that connect to it from now on.
/// Where the kernel cannot, reads drop them.
pub fn refuse_passed(socket: &impl AsFd) {
    match refuse_descriptors(socket.as_fd()) {
        Ok(()) | Err(Errno::ENOPROTOOPT) => {}
        Err(error) => tracing::debug!(%error, "passed descriptors cannot be refused on a socket"),
    }
}

#[cfg(test)]
mod tests;
