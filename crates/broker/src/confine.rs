//! The daemon shuts itself in with Landlock, before it reads a byte that others sent.
//!
//! systemd's sandbox and this one overlap on purpose: that one filters addresses and system calls and
//! hides files; this one also holds without systemd, and knows the ports and the directories of the
//! configuration. Files need Linux 5.13, TCP ports 6.7, signals and abstract sockets 6.12; what the
//! kernel cannot do is left out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// The newest whose restrictions were tried with this daemon.
const KNOWN: ABI = ABI::V6;

/// Where modules of nsswitch.conf find users and groups, and the C library finds those modules.
const NAMES: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd",
    "/run/host",
    "/run/userdb",
    "/var/lib/sss",
    "/var/lib/extrausers",
];

/// What the daemon may still do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// Read what is in these directories.
    pub read: Vec<PathBuf>,
    /// Read, write and make files and sockets in these.
    pub write: Vec<PathBuf>,
    /// Connect to these TCP ports.
    pub connect: Vec<u16>,
}

/// What this kernel holds it to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Confinement {
    /// Directories.
    pub files: bool,
    /// TCP ports.
    pub ports: bool,
    /// Signals, and sockets with abstract names.
    pub scopes: bool,
}

impl Bounds {
    /// Adds where names of users and groups come from.
    #[must_use]
    pub fn with_names(mut self) -> Self {
        self.read.extend(NAMES.map(PathBuf::from));
        self
    }

    /// Holds this thread to them, and every thread that it starts from now on.
    ///
    /// # Errors
    ///
    /// The kernel's, where it knows Landlock and cannot do this.
    pub fn enforce(&self) -> io::Result<Confinement> {
        let status = self.restrict().map_err(io::Error::other)?;
        let abi = ABI::from(status.landlock);
        let is_enforced = status.ruleset != RulesetStatus::NotEnforced;
        Ok(Confinement {
            files: is_enforced,
            ports: is_enforced && abi >= ABI::V4,
            scopes: is_enforced && abi >= ABI::V6,
        })
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?
            .create()?;
        for dir in &self.read {
            ruleset = beneath(ruleset, dir, reading())?;
        }
        for dir in &self.write {
            ruleset = beneath(ruleset, dir, reading() | writing())?;
        }
        for port in &self.connect {
            ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        ruleset.restrict_self()
    }
}

/// A directory that is not there needs no rule, unless it is made later: then its parent has to be
/// named.
fn beneath(
    ruleset: RulesetCreated,
    dir: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(dir) {
        Ok(open) => ruleset.add_rule(PathBeneath::new(open, access)),
        Err(_) => Ok(ruleset),
    }
}

fn reading() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// No execution, no links, no devices, and no renaming from one directory to another.
fn writing() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeDir | MakeSock | RemoveFile})
}

/// The directory so many levels above, or the nearest above that which is there.
///
/// Whoever replaces a directory while the daemon runs makes another one, and a rule holds for the one
/// that was there; so it is one above that is named.
pub fn above(path: &Path, levels: usize) -> PathBuf {
    // To name the root would be to name everything.
    let is_usable = |dir: &&Path| dir.parent().is_some() && dir.is_dir();
    let above = path.ancestors().skip(levels).find(is_usable);
    let below = || path.ancestors().take(levels).filter(is_usable).last();
    above.or_else(below).unwrap_or(path).to_owned()
}

/// The same, for what the path names and for what it leads to by links.
pub fn around(path: &Path, levels: usize) -> impl Iterator<Item = PathBuf> {
    [path.to_owned(), resolved(path)]
        .into_iter()
        .map(move |path| above(&path, levels))
}

/// Without links, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|ancestor| {
        let real = ancestor.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(ancestor).ok()?))
    });
    there.unwrap_or_else(|| path.to_owned())
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.files, "files"),
            (self.ports, "TCP ports"),
            (self.scopes, "signals"),
        ];
        let held: Vec<_> = parts
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, what)| *what)
            .collect();
        if held.is_empty() {
            f.write_str("nothing")
        } else {
            f.write_str(&held.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// In a thread, since there is no way back.
    fn confined<T: Send + 'static>(
        bounds: Bounds,
        attempt: impl FnOnce(Confinement) -> T + Send + 'static,
    ) -> T {
        let attempt = move || attempt(bounds.enforce().unwrap());
        thread::spawn(attempt).join().unwrap()
    }

    fn denied<T>(attempt: io::Result<T>) -> bool {
        attempt.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Says so where the kernel of this machine cannot be asked.
    fn holds(what: bool, name: &str) -> bool {
        if !what {
            writeln!(
                io::stderr(),
                "skipped: this kernel does not confine {name} by Landlock"
            )
            .unwrap_or_default();
        }
        what
    }

    #[test]
    fn only_what_is_within_the_bounds_can_be_read_written_and_run() {
        let dir = tempfile::tempdir().unwrap();
        let [read, write, other] = ["read", "write", "other"].map(|name| dir.path().join(name));
        for dir in [&read, &write, &other] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), "content").unwrap();
        }
        let bounds = Bounds {
            read: vec![read.clone(), dir.path().join("missing")],
            write: vec![write.clone()],
            connect: Vec::new(),
        };
        confined(bounds, move |confinement| {
            if !holds(confinement.files, "files") {
                return;
            }
            assert_eq!(fs::read(read.join("file")).unwrap(), b"content");
            assert!(denied(fs::write(read.join("file"), "x")));
            assert!(denied(fs::remove_file(read.join("file"))));
            assert!(denied(fs::read(other.join("file"))));
            assert!(denied(fs::read_dir(&other)));
            assert!(denied(File::create(other.join("new"))));
            fs::write(write.join("file"), "x").unwrap();
            UnixListener::bind(write.join("socket")).unwrap();
            fs::remove_file(write.join("socket")).unwrap();
            assert!(denied(std::os::unix::fs::symlink("/", write.join("link"))));
            assert!(denied(Command::new("/bin/true").status()));
            assert!(denied(fs::read("/etc/passwd")));
        });
    }

    #[test]
    fn names_of_users_are_found() {
        confined(Bounds::default().with_names(), |confinement| {
            if holds(confinement.files, "files") {
                let root = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(0));
                assert_eq!(root.unwrap().unwrap().name, "root");
                assert!(denied(fs::read_dir("/root")));
            }
        });
    }

    #[test]
    fn only_the_ports_within_the_bounds_can_be_connected_to() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [allowed, forbidden] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        let bounds = Bounds {
            connect: vec![allowed.port()],
            ..Bounds::default()
        };
        confined(bounds, move |confinement| {
            if holds(confinement.ports, "TCP ports") {
                TcpStream::connect(allowed).unwrap();
                assert!(denied(TcpStream::connect(forbidden)));
                assert!(denied(TcpListener::bind("127.0.0.1:0")));
            }
        });
    }

    #[test]
    fn the_directory_above_is_the_nearest_that_is_there_and_never_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(above(&inner.join("c"), 1), inner);
        assert_eq!(above(&inner.join("c"), 2), dir.path().join("a"));
        assert_eq!(above(&inner.join("c/d/e"), 1), inner);
        for path in ["/etc", "/missing/dir"].map(Path::new) {
            assert_eq!(above(path, 1), path);
        }
        assert_eq!(above(Path::new("/etc/missing"), 2), Path::new("/etc"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let found: Vec<_> = around(&link, 1).collect();
        assert_eq!(found, [dir.path().to_owned(), dir.path().join("a")]);
        let found: Vec<_> = around(&link.join("missing"), 1).collect();
        assert_eq!(found, [link, inner]);
    }

    #[test]
    fn what_holds_is_said() {
        assert_eq!(Confinement::default().to_string(), "nothing");
        let all = Confinement {
            files: true,
            ports: true,
            scopes: true,
        };
        assert_eq!(all.to_string(), "files, TCP ports, signals");
    }
}
