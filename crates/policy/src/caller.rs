//! Who asks.

/// What the kernel says about the process at the other end of a socket.
///
/// The numbers are those of the moment of the connect; nothing in here was said by the caller
/// itself. Without a user and a group there is no caller; groups that could not be read are left out,
/// and match no rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups; the effective one need not be among them.
    pub groups: Vec<u32>,
}

impl Caller {
    /// Whether `gid` is the caller's effective or a supplementary group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
