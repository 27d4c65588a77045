//! Endpoints that outlive the daemon: systemd holds their descriptors, and gives them to the next one.
//!
//! Of each it holds three under one name: the listener, the process, and a sealed piece of memory that
//! says what they are. Nothing of it is on a disk, and the secret itself is not among it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::wire::Lifetime;
use arcbroker_peer_sys::watch;
use arcbroker_policy::{Caller, Unit};
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::evidence::{Observer, Process};
use crate::loopback::Loopback;
use crate::manager::Manager;
use crate::note::{Kind, Useless};
use crate::peer::{Peer, Watched};
use crate::pinned::{Exhausted, Pinned, Pinning};
use crate::registrant::Registrant;
use crate::sealed;
use crate::unit_group::UnitGroup;

/// What the names begin with under which systemd holds endpoints.
pub const PREFIX: &str = "e.";
/// Bytes of the number that makes a name. Short: systemd passes the names of all descriptors in one variable of the
/// environment, and the kernel starts no program with one of more than 128 KiB.
pub const NAME: usize = 6;
const NOTE: Kind = Kind("arcbroker-endpoint 1");
/// For systemd to let go of something, where it cannot be asked whether it has.
const LET_GO: Duration = Duration::from_secs(5);

/// What is written down of an endpoint.
#[derive(Debug, Deserialize, Serialize)]
struct Note {
    address: SocketAddr,
    /// 64 hex digits.
    secret_sha256: String,
    lifetime: Lifetime,
    pinning: Pinning,
    group: Option<UnitGroup>,
    pid: i32,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    user: Option<String>,
    unit: Option<String>,
    container: Option<bool>,
    invocation: Option<String>,
}

/// Why what systemd holds is no endpoint any more.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// One of the three is missing, or is something else.
    #[error("it is not a listener, a process and a note about them")]
    Incomplete,
    /// The note is of another version of the daemon, or damaged.
    #[error("the note about it is of no use: {0}")]
    Note(#[from] Useless),
    /// The listener is another one than the note says.
    #[error("the listener is not the one that the note is about")]
    Other,
    /// The process ended while nobody watched.
    #[error("its program has ended")]
    Ended,
    /// There is nothing left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The kernel's.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Has systemd hold an endpoint, where there is one that would.
///
/// # Errors
///
/// When that cannot be asked: then the endpoint ends with the daemon.
pub fn keep(endpoint: &Endpoint, manager: &Manager) -> io::Result<()> {
    let note = NOTE.write(&Note::of(endpoint))?;
    let process = own_descriptor(endpoint.registrant.process());
    let process = match &process {
        Some(own) => own.as_fd(),
        None => endpoint.registrant.process().pinned().as_fd(),
    };
    let descriptors = [endpoint.loopback.listener().as_fd(), process, note.as_fd()];
    manager.hold(&endpoint.name, &descriptors)
}

/// Has systemd let go of an endpoint while its descriptors are still open here. Whoever closes a socket last may have to
/// wait for a peer that does not read, for as long as a program has set it to: PID 1 must never be that.
pub async fn let_go(name: &str, manager: &Manager) {
    manager.let_go(name);
    let barrier = manager
        .barrier()
        .and_then(|barrier| barrier.map(watch).transpose());
    match barrier {
        Ok(Some(barrier)) => drop(barrier.readable().await),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(name, %error, "systemd could not be asked whether it has let go of an endpoint");
            sleep(LET_GO).await;
        }
    }
}

/// A descriptor that no other endpoint of the process has: systemd keeps no two of the same.
fn own_descriptor(process: &Process) -> Option<Pinned> {
    let own = Pinned::by_number(process.pid()).ok().flatten();
    // It was alive all the while, so the number is its own.
    own.filter(|_| process.pinned().is_alive())
}

/// The endpoint that systemd held. Must be called inside a tokio runtime.
///
/// # Errors
///
/// [`NotKept`]; what was held is closed then.
pub fn restore(
    name: String,
    descriptors: Vec<OwnedFd>,
    observer: &Observer,
) -> Result<Endpoint, NotKept> {
    let Parts {
        listener,
        process,
        note,
    } = Parts::sort(descriptors).ok_or(NotKept::Incomplete)?;
    let note: Note = NOTE.read(&note)?;
    let secret = Digest::parse(&note.secret_sha256).ok_or(Useless::Damaged)?;
    let loopback = Loopback::new(listener).map_err(|_| NotKept::Other)?;
    if loopback.address() != note.address {
        return Err(NotKept::Other);
    }
    let (lifetime, group) = (note.lifetime, note.group.clone());
    let pinned = Pinned::again(process, note.pinning);
    let has_ended = match (lifetime, &group) {
        (Lifetime::Unit, Some(group)) => !group.is_populated(),
        _ => !pinned.is_alive(),
    };
    if has_ended {
        return Err(NotKept::Ended);
    }
    let process = observer.again(pinned, note.pid, note.uid)?;
    let registered = note.peer().ok_or(Useless::Damaged)?;
    let watched = Watched::around(observer, Arc::clone(&process), registered.clone());
    let registrant = Registrant::around(watched, process, registered, lifetime, group)?;
    Ok(Endpoint {
        name,
        loopback,
        secret,
        registrant,
    })
}

/// What systemd gives back in no order.
struct Parts {
    listener: OwnedFd,
    process: OwnedFd,
    note: OwnedFd,
}

impl Parts {
    fn sort(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let (mut listener, mut process, mut note) = (None, None, None);
        for descriptor in descriptors {
            let place = if getsockopt(&descriptor, sockopt::SockType).is_ok() {
                &mut listener
            } else if sealed::is_sealed(&descriptor) {
                &mut note
            } else {
                &mut process
            };
            if place.replace(descriptor).is_some() {
                return None;
            }
        }
        Some(Self {
            listener: listener?,
            process: process?,
            note: note?,
        })
    }
}

impl Note {
    fn of(endpoint: &Endpoint) -> Self {
        let registrant = &endpoint.registrant;
        let peer = registrant.registered();
        Self {
            address: endpoint.loopback.address(),
            secret_sha256: endpoint.secret.hex(32),
            lifetime: registrant.lifetime(),
            pinning: registrant.process().pinned().pinning(),
            group: registrant.group().cloned(),
            pid: registrant.process().pid(),
            uid: peer.caller.uid,
            gid: peer.caller.gid,
            groups: peer.caller.groups.clone(),
            user: peer.user.as_deref().map(str::to_owned),
            unit: peer.caller.unit.as_ref().map(ToString::to_string),
            container: peer.caller.container,
            invocation: peer.invocation.as_deref().map(str::to_owned),
        }
    }

    /// None where it names a unit that cannot be.
    fn peer(&self) -> Option<Peer> {
        let unit = self.unit.as_deref().map(Unit::parse).transpose().ok()?;
        Some(Peer {
            caller: Caller {
                unit,
                container: self.container,
                ..Caller::new(self.uid, self.gid, self.groups.clone())
            },
            user: self.user.as_deref().map(Into::into),
            pid: Some(self.pid),
            invocation: self.invocation.as_deref().map(Into::into),
            endpoint: Some(self.address),
        })
    }
}
