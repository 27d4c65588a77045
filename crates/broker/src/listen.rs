//! The sockets that are served: passed by systemd, or bound by the daemon itself.
//!
//! Where the daemon binds: at no instant does a socket have a wider mode than in the end, and at no instant do two daemons
//! serve one path.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use arcbroker_peer_sys::take_passed;
use listenfd::ListenFd;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::UnixListener;

use crate::manager::Kept;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Of the directory, where it has to be made: group members pass through, others do not.
const DIRECTORY_MODE: u32 = 0o750;
/// What the sockets are called in their units.
const SOCKETS: [&str; 2] = ["token", "admin"];

/// One socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Where it is.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Its group; `None` for that of the daemon.
    pub group: Option<u32>,
}

/// A socket that is served.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// `None` for a socket that systemd keeps.
    bound: Option<Bound>,
}

/// What is the daemon's to take away again.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    /// Device and inode, to know the socket again.
    identity: (u64, u64),
    /// Held for as long as the path is ours.
    _lock: Flock<File>,
}

/// What systemd passed: sockets by the names of `FileDescriptorName=`, and what a daemon before had
/// it hold.
#[derive(Debug, Default)]
pub struct Passed {
    sockets: HashMap<String, std::os::unix::net::UnixListener>,
    held: Kept,
}

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon.
    #[error("{}: another arcbrokerd serves this socket: stop it first, or give this one another path under [sockets]", .0.display())]
    Served(PathBuf),
    /// Something else is there.
    #[error("{}: this is not a socket, and is left alone: move it away", .0.display())]
    Occupied(PathBuf),
    /// The directory is not safe.
    #[error("{}: this directory may be written by others than its owner, so that a socket in it can be replaced: chmod go-w it", .0.display())]
    Directory(PathBuf),
    /// The system refused.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Listener {
    /// Binds a socket, in place of one that a dead daemon left behind. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; what was at the path before is still there then.
    pub fn bind(options: &Options) -> Result<Self, ListenError> {
        let path = &options.path;
        let failed = |doing| {
            move |source: io::Error| ListenError::Io {
                path: options.path.clone(),
                doing,
                source,
            }
        };
        prepare_directory(options)?;
        let lock = lock(path)?;
        clear(path)?;
        let socket = bind_narrow(options).map_err(failed("cannot be bound"))?;
        chown(path, None, options.group).map_err(failed(
            "cannot be given to its group (is the daemon a member?)",
        ))?;
        fs::set_permissions(path, Permissions::from_mode(options.mode))
            .map_err(failed("cannot be given its mode"))?;
        let metadata = fs::symlink_metadata(path).map_err(failed("is gone"))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self {
            socket: UnixListener::from_std(socket).map_err(failed("cannot be served"))?,
            bound: Some(Bound {
                path: path.clone(),
                identity,
                _lock: lock,
            }),
        })
    }

    /// Serves a socket that systemd has bound. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When it cannot be made non-blocking or watched.
    pub fn adopt(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixListener::from_std(socket)?,
            bound: None,
        })
    }

    /// What to accept from.
    pub fn socket(&self) -> &UnixListener {
        &self.socket
    }

    /// Takes the path away, so that nobody connects any more; true where the daemon has to serve
    /// those who already have.
    pub fn retire(&self) -> bool {
        let Some(bound) = &self.bound else {
            return false;
        };
        let there = fs::symlink_metadata(&bound.path).map(|there| (there.dev(), there.ino()));
        if there.is_ok_and(|there| there == bound.identity)
            && let Err(error) = fs::remove_file(&bound.path)
        {
            tracing::warn!(path = %bound.path.display(), %error, "the socket could not be removed");
        }
        true
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bound {
            Some(bound) => bound.path.display().fmt(f),
            None => f.write_str("from systemd"),
        }
    }
}

impl Passed {
    /// Takes them from the environment (`sd_listen_fds(3)`); there are none without systemd.
    ///
    /// # Errors
    ///
    /// When one of them is not a listening Unix socket, or has the name of another.
    pub fn from_env() -> io::Result<Self> {
        let mut listed = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = Self::default();
        for (index, name) in names.split(':').enumerate().take(listed.len()) {
            match listed.take_unix_listener(index) {
                Ok(socket) => {
                    let found = socket.map(|socket| passed.sockets.insert(name.to_owned(), socket));
                    if found.flatten().is_some() {
                        let text = format!(
                            "two are named `{name}`: the unit may have one ListenStream= only"
                        );
                        return Err(io::Error::other(text));
                    }
                }
                Err(error) if SOCKETS.contains(&name) => return Err(error),
                Err(_) => {
                    // One that cannot be had leaves the rest incomplete, and that is let go.
                    let number = listed.take_raw_fd(index)?;
                    let held = passed.held.entry(name.to_owned()).or_default();
                    held.extend(number.and_then(|number| take_passed(number).ok()));
                }
            }
        }
        Ok(passed)
    }

    /// Takes what was held under names that begin with this.
    pub fn take_held(&mut self, prefix: &str) -> Kept {
        self.held
            .extract_if(|name, _| name.starts_with(prefix))
            .collect()
    }

    /// Takes what was held besides: of another version of the daemon.
    pub fn take_unknown(&mut self) -> Kept {
        mem::take(&mut self.held)
    }

    /// Whether both sockets are among them.
    pub fn has_sockets(&self) -> bool {
        SOCKETS.iter().all(|name| self.sockets.contains_key(*name))
    }

    /// The name of one that nobody has taken.
    pub fn into_name(self) -> Option<String> {
        self.sockets.into_keys().next()
    }

    /// The one with this name.
    pub fn take(&mut self, name: &str) -> Option<std::os::unix::net::UnixListener> {
        self.sockets.remove(name)
    }
}

fn prepare_directory(options: &Options) -> Result<(), ListenError> {
    let dir = options.path.parent().unwrap_or(Path::new("/"));
    let failed = |doing| {
        move |source: io::Error| ListenError::Io {
            path: dir.to_owned(),
            doing,
            source,
        }
    };
    match DirBuilder::new().mode(DIRECTORY_MODE).create(dir) {
        Ok(()) => {
            chown(dir, None, options.group).map_err(failed("cannot be given to its group"))?;
            // Whatever the umask took away.
            let mode = Permissions::from_mode(DIRECTORY_MODE);
            fs::set_permissions(dir, mode).map_err(failed("cannot be opened to its group"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("this directory cannot be made")(error)),
    }
    let metadata = fs::metadata(dir).map_err(failed("this directory cannot be looked at"))?;
    if metadata.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(ListenError::Directory(dir.to_owned()))
    }
}

/// One daemon for each path, also in the moment between a look and a bind.
fn lock(path: &Path) -> Result<Flock<File>, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let open = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name);
    let file = open.map_err(|source| ListenError::Io {
        path: name.into(),
        doing: "cannot be opened",
        source,
    })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| ListenError::Served(path.to_owned()))
}

/// Takes away a socket that nobody serves.
fn clear(path: &Path) -> Result<(), ListenError> {
    let failed = |doing| {
        move |source: io::Error| ListenError::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(failed("cannot be looked at"))?,
    };
    if !there.file_type().is_socket() {
        return Err(ListenError::Occupied(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("is left from before and cannot be removed"))
        }
        Ok(_) => Err(ListenError::Served(path.to_owned())),
        Err(error) => Err(failed("cannot be told to be in use or not")(error)),
    }
}

/// Binds so that only the owner can connect until the group and the mode are right.
fn bind_narrow(options: &Options) -> io::Result<std::os::unix::net::UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The file that bind makes gets the mode of the descriptor.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&options.path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
