//! Who is at the other end of a Unix socket, as the kernel saw it at the time of the connect.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use arcbroker_peer_sys::peer_groups;
use arcbroker_policy::Caller;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

/// A peer: what is decided on, and what is only written down.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the policy judges. Nothing in it comes from the peer's own words.
    pub caller: Caller,
    /// Name of the user, for display.
    pub user: Option<Arc<str>>,
    /// Process id; absent where the process is outside the broker's pid namespace.
    pub pid: Option<i32>,
}

impl Peer {
    /// Reads the evidence, which stays as it was at the connect. The name is left out: it is no
    /// evidence, and takes longer.
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
            caller: Caller::new(credentials.uid(), credentials.gid(), groups),
            user: None,
            pid: Some(credentials.pid()).filter(|&pid| pid > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getegid, geteuid};

    use super::*;

    #[tokio::test]
    async fn the_kernel_says_who_connected() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.caller.uid, geteuid().as_raw());
        assert_eq!(peer.caller.gid, getegid().as_raw());
        assert!(peer.caller.groups.contains(&getegid().as_raw()));
        assert_eq!(peer.pid, Some(std::process::id().cast_signed()));
    }
}
