//! Who asks.

use crate::Unit;

/// What the kernel says about the process at the other end of a socket.
///
/// Nothing in here was said by the caller itself. The numbers are those of the moment of the connect.
/// Without a user and a group there is no caller; whatever else could not be found out is left out,
/// and matches no rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups; the effective one need not be among them.
    pub groups: Vec<u32>,
    /// The service or scope of the system that the process runs in.
    pub unit: Option<Unit>,
    /// Whether the process runs in a container. None where that could not be found out: then no rule
    /// holds, because a rule holds either for containers or for the processes of the host.
    pub container: Option<bool>,
}

impl Caller {
    /// A process of the host, in no unit.
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        Self {
            uid,
            gid,
            groups,
            unit: None,
            container: Some(false),
        }
    }

    /// Whether `gid` is the caller's effective or a supplementary group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
