//! Which service gives the tokens of this machine, told from signs on the machine itself.
//!
//! No network is asked: an address outside the machine may be anybody's, and on a machine with the
//! Azure Arc agent it is not even reached for. At most one connection is made, to loopback.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::kind::Kind;

/// The agent's own service, which SDKs look for as well.
const BINARY: &str = "opt/azcmagent/bin/himds";
const UNIT: &str = "himdsd.service";
/// Where systemd looks for units that outlive a restart.
const UNIT_DIRS: [&str; 3] = [
    "etc/systemd/system",
    "lib/systemd/system",
    "usr/lib/systemd/system",
];
/// Where the firmware's word on the machine is.
pub const CHASSIS_DIR: &str = "sys/class/dmi/id";
const CHASSIS: &str = "sys/class/dmi/id/chassis_asset_tag";
/// What the chassis of every Azure VM says, and of no other.
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";

/// A kind of upstream, and why it is this one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Choice {
    /// The kind.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
}

/// Why a kind of upstream was chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The administrator says so.
    Configured,
    /// A file of the Azure Arc agent.
    Agent(PathBuf),
    /// HIMDS's port is held by whom it should be.
    Listener(SocketAddr),
    /// The file that says that this is an Azure VM.
    Chassis(PathBuf),
    /// Nothing was found, or nothing was looked for yet.
    NoSign,
}

impl Choice {
    /// By configuration.
    pub fn configured(kind: Kind) -> Self {
        Self {
            kind,
            reason: Reason::Configured,
        }
    }

    /// For want of a sign: the agent may yet be installed, or come up.
    pub fn undecided() -> Self {
        Self {
            kind: Kind::Himds,
            reason: Reason::NoSign,
        }
    }

    /// Whether there is nothing more to find out.
    pub fn is_settled(&self) -> bool {
        self.reason != Reason::NoSign
    }
}

/// Looks for signs below `root`. The agent comes first: Azure VMs can have it too, for tests.
///
/// `is_held` finds out whether HIMDS's port at `endpoint` is held by whom it should be; it is only
/// awaited where no file has decided. A stranger on the port is no sign: any user may listen there.
pub async fn choose(
    root: &Path,
    endpoint: SocketAddr,
    is_held: impl Future<Output = bool>,
) -> Choice {
    if let Some(file) = agent(root) {
        return Choice {
            kind: Kind::Himds,
            reason: Reason::Agent(file),
        };
    }
    if is_held.await {
        return Choice {
            kind: Kind::Himds,
            reason: Reason::Listener(endpoint),
        };
    }
    let chassis = root.join(CHASSIS);
    if fs::read(&chassis).is_ok_and(|tag| tag.trim_ascii() == AZURE.as_bytes()) {
        return Choice {
            kind: Kind::Imds,
            reason: Reason::Chassis(chassis),
        };
    }
    Choice::undecided()
}

/// A file, and not the link to /dev/null that a masked unit is.
fn agent(root: &Path) -> Option<PathBuf> {
    let units = UNIT_DIRS.iter().map(|dir| root.join(dir).join(UNIT));
    std::iter::once(root.join(BINARY))
        .chain(units)
        .find(|path| path.is_file())
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("by configuration"),
            Self::Agent(file) => write!(f, "the Azure Arc agent is here: {}", file.display()),
            Self::Listener(endpoint) => {
                write!(f, "an owner of HIMDS's port listens on {endpoint}")
            }
            Self::Chassis(file) => write!(f, "this is an Azure VM: {} says so", file.display()),
            Self::NoSign => {
                f.write_str("no sign of the Azure Arc agent, nor that this is an Azure VM")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn endpoint() -> SocketAddr {
        "127.0.0.1:40342".parse().unwrap()
    }

    /// A file system with these files.
    fn root(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    async fn chosen(root: &TempDir, is_held: bool) -> Choice {
        choose(root.path(), endpoint(), ready(is_held)).await
    }

    #[tokio::test]
    async fn each_sign_decides_and_the_agent_comes_before_the_chassis() {
        let azure = format!("{AZURE}\n");
        let vm = (CHASSIS, azure.as_str());
        for file in [
            BINARY,
            "etc/systemd/system/himdsd.service",
            "lib/systemd/system/himdsd.service",
            "usr/lib/systemd/system/himdsd.service",
        ] {
            let root = root(&[(file, ""), vm]);
            let choice = chosen(&root, false).await;
            let reason = Reason::Agent(root.path().join(file));
            assert_eq!((choice.kind, &choice.reason), (Kind::Himds, &reason));
            assert!(choice.reason.to_string().contains(file), "{choice:?}");
        }
        let root = root(&[vm]);
        let held = chosen(&root, true).await;
        assert_eq!(held.reason, Reason::Listener(endpoint()));
        assert_eq!(held.kind, Kind::Himds);
        let choice = chosen(&root, false).await;
        let reason = Reason::Chassis(root.path().join(CHASSIS));
        assert_eq!((choice.kind, choice.reason), (Kind::Imds, reason));
    }

    #[tokio::test]
    async fn without_a_sign_it_is_himds_and_not_settled() {
        for chassis in [
            "",
            "Default string\n",
            "7783-7084-3265-9085-8269-3286-7",
            "x7783-7084-3265-9085-8269-3286-77",
        ] {
            let choice = chosen(&root(&[(CHASSIS, chassis)]), false).await;
            assert_eq!(choice, Choice::undecided(), "{chassis}");
            assert!(!choice.is_settled());
        }
        let nothing = chosen(&root(&[]), false).await;
        assert_eq!(nothing.kind, Kind::Himds);
        assert!(Choice::configured(Kind::Himds).is_settled());
    }

    #[tokio::test]
    async fn a_masked_unit_is_no_sign_of_the_agent() {
        let root = root(&[(CHASSIS, AZURE)]);
        let units = root.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        symlink("/dev/null", units.join(UNIT)).unwrap();
        assert_eq!(chosen(&root, false).await.kind, Kind::Imds);
    }

    #[tokio::test]
    async fn the_port_is_not_tried_where_a_file_has_decided() {
        let root = root(&[(BINARY, "")]);
        let tried = Cell::new(false);
        let is_held = async {
            tried.set(true);
            true
        };
        choose(root.path(), endpoint(), is_held).await;
        assert!(!tried.get());
    }
}
