//! Endpoints that outlive the daemon: systemd holds their descriptors, and gives them to the next one.
//!
//! Of each it holds three under one name: the listener, the process, and a sealed piece of memory that
//! says what they are. Nothing of it is on a disk, and the secret itself is not among it.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use arcbroker_client::wire::Lifetime;
use arcbroker_policy::{Caller, Unit};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{getsockopt, sockopt};
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::evidence::{Observer, Process};
use crate::loopback::Loopback;
use crate::peer::{Peer, Watched};
use crate::pinned::{Exhausted, Pinned, Pinning};
use crate::registrant::Registrant;
use crate::unit_group::UnitGroup;

/// What the names begin with under which systemd holds endpoints.
pub const PREFIX: &str = "endpoint.";
/// Of [`Note`]; another one is not understood.
const VERSION: u32 = 1;
/// Bytes of the longest note: a caller may have 65,536 groups.
const LONGEST: u64 = 1024 * 1024;

/// What is written down of an endpoint.
#[derive(Debug, Deserialize, Serialize)]
struct Note {
    version: u32,
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
    #[error("the note about it is not understood")]
    Note,
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
pub fn keep(endpoint: &Endpoint) -> io::Result<()> {
    let note = write(&Note::of(endpoint))?;
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(&endpoint.name),
        // A process that has ended is no reason to let go of it: a unit may run on.
        NotifyState::Custom("FDPOLL=0"),
    ];
    let process = own_descriptor(endpoint.registrant.process());
    let process = match &process {
        Some(own) => own.as_fd(),
        None => endpoint.registrant.process().pinned().as_fd(),
    };
    let descriptors = [endpoint.loopback.listener().as_fd(), process, note.as_fd()];
    sd_notify::notify_with_fds(&state, &descriptors)
}

/// A descriptor that no other endpoint of the process has: systemd keeps no two of the same.
fn own_descriptor(process: &Process) -> Option<Pinned> {
    let own = Pinned::by_number(process.pid()).ok().flatten();
    // It was alive all the while, so the number is its own.
    own.filter(|_| process.pinned().is_alive())
}

/// Has systemd let go of what it holds under a name.
pub fn forget(name: &str) {
    let state = [NotifyState::FdStoreRemove, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify(&state) {
        tracing::warn!(name, %error, "systemd could not be told to let go of an endpoint");
    }
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
    let note = read(&note)?;
    let secret = Digest::parse(&note.secret_sha256).ok_or(NotKept::Note)?;
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
    let registered = note.peer().ok_or(NotKept::Note)?;
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
            } else if fcntl(&descriptor, FcntlArg::F_GET_SEALS).is_ok() {
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
            version: VERSION,
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

fn write(note: &Note) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"arcbroker-endpoint", flags)?;
    let mut file = fs::File::from(memory);
    file.write_all(&serde_json::to_vec(note)?)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

fn read(memory: &OwnedFd) -> Result<Note, NotKept> {
    let file = fs::File::from(memory.try_clone()?);
    let length = file.metadata()?.len();
    if length > LONGEST {
        return Err(NotKept::Note);
    }
    let mut text = vec![0; usize::try_from(length).map_err(|_| NotKept::Note)?];
    // Whoever wrote it left its position at the end.
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 0)?;
    let note: Note = serde_json::from_slice(&text).map_err(|_| NotKept::Note)?;
    if note.version == VERSION {
        Ok(note)
    } else {
        Err(NotKept::Note)
    }
}
