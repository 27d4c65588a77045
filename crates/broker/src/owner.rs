//! Which user holds the other end of a loopback TCP connection.
//!
//! Anybody may listen on HIMDS's port before HIMDS does, and relay its challenge: no check of the
//! challenge itself can tell. The kernel can: `sock_diag` names the owner of the very socket that
//! accepted our connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` of `linux/netlink.h`.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR` of `linux/netlink.h`.
const ERROR: u16 = 2;
/// `TCP_ESTABLISHED` of `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;

const HEADER: usize = 16;
const QUESTION: u32 = 16 + 56;
/// Offsets in a reply: the header, then `struct inet_diag_msg` of `linux/inet_diag.h`.
const STATE_AT: usize = HEADER + 1;
const UID_AT: usize = HEADER + 64;
const INODE_AT: usize = HEADER + 68;
const ATTRIBUTES_AT: usize = HEADER + 72;
/// `INET_DIAG_CGROUP_ID` of `linux/inet_diag.h`.
const CONTROL_GROUP: u16 = 21;
/// Bytes of the head of an attribute, and what attributes are aligned to.
const ATTRIBUTE: usize = 4;

/// Who holds one end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The user.
    pub uid: u32,
    /// The control group in which the socket was made, by its number in the unified tree; where the kernel
    /// tells (Linux 5.10).
    pub control_group: Option<u64>,
}

/// Who holds the other end of the connection `ours` → `theirs`.
///
/// `None` while nobody has accepted the connection, and once it is closed: the kernel then says 0,
/// which must not be taken for root.
///
/// # Errors
///
/// The kernel's, except for "no such connection", which is `None`.
pub fn holder(ours: SocketAddr, theirs: SocketAddr) -> io::Result<Option<Holder>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    sendto(
        netlink.as_raw_fd(),
        &question(ours, theirs),
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut reply = [0; 1024];
    // The kernel has answered by the time that sendto returns.
    let length = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT)?;
    answer(reply.get(..length).unwrap_or_default())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` for the other end of one connection.
fn question(ours: SocketAddr, theirs: SocketAddr) -> Vec<u8> {
    let mut message = Vec::with_capacity(QUESTION as usize);
    message.extend(QUESTION.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one question per socket
    let family = if theirs.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.extend([family as u8, SockProtocol::Tcp as u8, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes()); // every state, so that none is mistaken for "no such"
    message.extend(theirs.port().to_be_bytes());
    message.extend(ours.port().to_be_bytes());
    message.extend(address(theirs.ip()));
    message.extend(address(ours.ip()));
    message.extend([0; 4]); // any interface
    message.extend([0xff; 8]); // no cookie
    message
}

/// Sixteen bytes in network order; an IPv4 address fills the first four.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(ip.octets()) {
                *to = from;
            }
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn answer(reply: &[u8]) -> io::Result<Option<Holder>> {
    let kind = bytes(reply, 4).map(u16::from_ne_bytes);
    if kind == Some(ERROR) {
        let code = bytes(reply, HEADER).map_or(0, i32::from_ne_bytes);
        let error = io::Error::from_raw_os_error(code.saturating_neg());
        return if error.kind() == io::ErrorKind::NotFound {
            Ok(None)
        } else {
            Err(error)
        };
    }
    let found = (|| {
        let [state] = bytes(reply, STATE_AT)?;
        Some((
            state,
            u32::from_ne_bytes(bytes(reply, UID_AT)?),
            u32::from_ne_bytes(bytes(reply, INODE_AT)?),
        ))
    })();
    match found {
        Some((ESTABLISHED, uid, inode)) if kind == Some(BY_FAMILY) && inode != 0 => {
            Ok(Some(Holder {
                uid,
                control_group: attribute(reply, CONTROL_GROUP).map(u64::from_ne_bytes),
            }))
        }
        Some(_) if kind == Some(BY_FAMILY) => Ok(None),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "sock_diag gave a reply of an unknown kind",
        )),
    }
}

/// The content of the attribute of this kind (`netlink(7)`).
fn attribute<const N: usize>(reply: &[u8], kind: u16) -> Option<[u8; N]> {
    let mut at = ATTRIBUTES_AT;
    loop {
        let length = usize::from(bytes(reply, at).map(u16::from_ne_bytes)?);
        if bytes(reply, at + 2).map(u16::from_ne_bytes)? == kind && length == ATTRIBUTE + N {
            return bytes(reply, at + ATTRIBUTE);
        }
        at += length.max(ATTRIBUTE).next_multiple_of(ATTRIBUTE);
    }
}

fn bytes<const N: usize>(reply: &[u8], at: usize) -> Option<[u8; N]> {
    reply.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use nix::unistd::geteuid;

    use super::*;

    fn pair(address: &str) -> (TcpListener, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, client)
    }

    fn ask(end: &TcpStream) -> Option<u32> {
        let holder = holder(end.local_addr().unwrap(), end.peer_addr().unwrap());
        holder.unwrap().map(|holder| holder.uid)
    }

    #[test]
    fn an_accepted_connection_has_the_owner_of_the_acceptor() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (listener, client) = pair(address);
            let _server = listener.accept().unwrap();
            assert_eq!(ask(&client), Some(geteuid().as_raw()), "{address}");
        }
    }

    #[test]
    fn the_end_of_a_client_has_its_owner_and_the_control_group_of_the_unified_tree() {
        let (listener, client) = pair("127.0.0.1:0");
        let (server, _) = listener.accept().unwrap();
        let (ours, theirs) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let found = holder(ours, theirs).unwrap().unwrap();
        assert_eq!(found.uid, geteuid().as_raw());
        let listing = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = listing.lines().find_map(|line| line.strip_prefix("0::/"));
        for (root, own) in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .zip([own; 2])
        {
            let directory = std::path::Path::new(root).join(own.unwrap_or_default());
            if directory.join("cgroup.procs").exists()
                && let Some(id) = found.control_group
            {
                let metadata = std::fs::metadata(directory).unwrap();
                assert_eq!(std::os::unix::fs::MetadataExt::ino(&metadata), id);
            }
        }
    }

    #[test]
    fn a_connection_that_nobody_accepted_has_no_owner_yet() {
        let (_listener, client) = pair("127.0.0.1:0");
        assert_eq!(ask(&client), None);
    }

    #[test]
    fn a_connection_that_the_server_closed_has_no_owner_and_not_root() {
        let (listener, client) = pair("127.0.0.1:0");
        let (server, _) = listener.accept().unwrap();
        // A child that another test starts at this moment may hold a copy until its `exec`: dropping is no end.
        server.shutdown(Shutdown::Both).unwrap();
        drop(server);
        assert_eq!(ask(&client), None);
        drop(listener);
        assert_eq!(ask(&client), None);
    }

    #[test]
    fn a_connection_that_never_was_has_no_owner() {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        assert_eq!(
            holder("127.0.0.1:2".parse().unwrap(), nowhere).unwrap(),
            None
        );
    }

    #[test]
    fn a_short_or_foreign_reply_is_an_error() {
        let mut whole = vec![0; HEADER + 72];
        whole[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        whole[STATE_AT] = ESTABLISHED;
        whole[INODE_AT] = 1;
        whole[UID_AT] = 7;
        let holder = |control_group| {
            Some(Holder {
                uid: 7,
                control_group,
            })
        };
        assert_eq!(answer(&whole).unwrap(), holder(None));
        let mut more = whole.clone();
        // One of five bytes and three of padding, one of the kind but too short, and the one.
        more.extend([9, 0, 4, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
        more.extend([8, 0, 21, 0, 1, 2, 3, 4]);
        more.extend([12, 0, 21, 0]);
        more.extend(99_u64.to_ne_bytes());
        assert_eq!(answer(&more).unwrap(), holder(Some(99)));
        for length in whole.len()..more.len() {
            assert_eq!(answer(&more[..length]).unwrap(), holder(None), "{length}");
        }
        for length in 0..whole.len() {
            assert!(answer(&whole[..length]).is_err(), "{length}");
        }
        whole[4] = 99;
        assert!(answer(&whole).is_err());
    }
}
