//! Whom an endpoint was made for, and for how long.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::wire::Lifetime;
use arcbroker_peer_sys::watch;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::client_end::ClientEnd;
use crate::evidence::Process;
use crate::peer::{Peer, Watched};
use crate::pinned::Exhausted;
use crate::stray::Stray;
use crate::unit_group::UnitGroup;

/// How often it is looked whether a unit has ended.
const LOOK: Duration = Duration::from_secs(30);

/// A caller with an endpoint of its own.
#[derive(Debug)]
pub struct Registrant {
    watched: Watched,
    process: Arc<Process>,
    /// As it was when the endpoint was made.
    registered: Arc<Peer>,
    lifetime: Lifetime,
    /// Of the caller's unit.
    group: Option<UnitGroup>,
    /// Readable once the process has ended.
    exit: AsyncFd<OwnedFd>,
}

/// Why an endpoint cannot be made for a caller.
#[derive(Debug, thiserror::Error)]
pub enum NoRegistrant {
    /// It cannot be known when it ends.
    #[error(
        "this process cannot be held on to, so that an endpoint would outlive it: Linux 5.3 or newer is needed"
    )]
    Unpinned,
    /// There is no parent, or not one of the same kind.
    #[error(
        "the process that started this one has ended, or is of another user, in another unit, or in or out of another \
         container"
    )]
    NoParent,
    /// It is in no unit, or its end cannot be seen.
    #[error(
        "this process is in no unit of the system whose end can be seen: that needs a service and the unified \
         tree of control groups (cgroup v2)"
    )]
    NoUnit,
    /// There is nothing left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The kernel's.
    #[error("this process cannot be watched: {0}")]
    Io(#[from] io::Error),
}

/// The process that started a caller's, if it is in the same place: nobody gets what is another's by what
/// started it.
fn parent(caller: &Watched, own: &Process) -> Result<Option<Arc<Process>>, Exhausted> {
    let peer = caller.now();
    let parent = caller.observer().parent(own)?;
    Ok(parent.filter(|parent| {
        let seen = parent.sighting();
        let is_known = peer.caller.container.is_some();
        is_known && seen.container == peer.caller.container && seen.unit == peer.caller.unit
    }))
}

impl Registrant {
    /// The caller of a connection. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`NoRegistrant`].
    pub fn new(
        caller: &Watched,
        lifetime: Lifetime,
        endpoint: SocketAddr,
    ) -> Result<Self, NoRegistrant> {
        let (observer, peer) = (caller.observer(), caller.now());
        let own = caller.process().ok_or(NoRegistrant::Unpinned)?;
        let process = match lifetime {
            Lifetime::Parent => parent(caller, own)?.ok_or(NoRegistrant::NoParent)?,
            Lifetime::Process | Lifetime::Unit => Arc::clone(own),
        };
        let unit = peer.caller.unit.as_ref();
        let group = unit.and_then(|unit| observer.unit_group(&process, unit));
        if lifetime == Lifetime::Unit && group.is_none() {
            return Err(NoRegistrant::NoUnit);
        }
        let peer = Peer {
            pid: Some(process.pid()),
            endpoint: Some(endpoint),
            ..Peer::clone(&peer)
        };
        let watched = Watched::around(observer, Arc::clone(&process), peer.clone());
        Ok(Self::around(watched, process, peer, lifetime, group)?)
    }

    /// One whose process and unit are known.
    ///
    /// # Errors
    ///
    /// The kernel's, when the process cannot be watched.
    pub fn around(
        watched: Watched,
        process: Arc<Process>,
        registered: Peer,
        lifetime: Lifetime,
        group: Option<UnitGroup>,
    ) -> io::Result<Self> {
        let exit = process.pinned().as_fd().try_clone_to_owned()?;
        Ok(Self {
            exit: watch(exit)?,
            registered: Arc::new(registered),
            watched,
            process,
            lifetime,
            group,
        })
    }

    /// As it is now.
    pub fn peer(&self) -> Arc<Peer> {
        match (self.lifetime, &self.group) {
            // The unit is what is watched, and it has not ended.
            (Lifetime::Unit, Some(group)) if group.is_populated() => Arc::clone(&self.registered),
            _ => self.watched.now(),
        }
    }

    /// As it was when the endpoint was made.
    pub fn registered(&self) -> &Arc<Peer> {
        &self.registered
    }

    /// How long it lives.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The control group of its unit.
    pub fn group(&self) -> Option<&UnitGroup> {
        self.group.as_ref()
    }

    /// Ends when the caller has ended.
    pub async fn ended(&self) {
        match (self.lifetime, &self.group) {
            (Lifetime::Unit, Some(group)) => {
                while group.is_populated() {
                    sleep(LOOK).await;
                }
            }
            _ => {
                if let Err(error) = self.exit.readable().await {
                    tracing::error!(%error, "it cannot be seen whether a process has ended: it is taken to have");
                }
            }
        }
    }

    /// Whether whoever connected is of this caller: of its user, or of its unit where a program has given up
    /// its user.
    ///
    /// # Errors
    ///
    /// Who it is instead.
    pub fn expects(&self, end: ClientEnd) -> Result<(), Stray> {
        match end {
            ClientEnd::Elsewhere => Ok(()),
            ClientEnd::Gone => Err(Stray::Gone),
            ClientEnd::Held(holder) if holder.uid == self.registered.caller.uid => Ok(()),
            ClientEnd::Held(holder) => {
                let is_in_unit = |number| {
                    self.group
                        .as_ref()
                        .is_some_and(|group| group.contains(number))
                };
                if holder.control_group.is_some_and(is_in_unit) {
                    Ok(())
                } else {
                    Err(Stray::User)
                }
            }
        }
    }
}
