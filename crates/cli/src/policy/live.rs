//! The daemon that decides by the files: what it reads, and whether it takes a change.

use std::{fs, io::ErrorKind, path::Path};

use arcbroker_client::{Client, wire::ReloadAnswer};
use arcbroker_policy::Cloud;

use super::{Error, store::Change, store::Store};
use crate::exit::Failure;

/// What is known of the daemon before anything is changed.
#[derive(Debug)]
pub(crate) enum Daemon {
    /// It does not run.
    Absent,
    /// It reads the files of this directory.
    Here(Option<Cloud>),
    /// It reads those of another.
    Elsewhere(String),
}

/// What became of a change that was written.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is in force.
    InForce,
    /// It will be when the daemon starts.
    AtStart,
    /// The daemon that runs does not read these files, but those.
    Elsewhere(String),
    /// The daemon has read other files than those that were judged here.
    Differently,
}

/// Which cloud the machine is in, where a daemon runs that knows it and may be asked.
pub(crate) async fn cloud_of_machine(admin: &Client) -> Option<Cloud> {
    let status = admin.status().await.ok()?;
    Cloud::from_az_environment(&status.upstream.cloud?)
}

impl Daemon {
    /// Asks for it. One that runs and cannot be asked is a failure: nothing has been changed yet.
    pub(crate) async fn find(admin: &Client, dir: &Path) -> Result<Self, Failure> {
        match admin.status().await {
            Ok(status) if is_same(Path::new(&status.policy.dir), dir) => {
                let cloud = status.upstream.cloud.as_deref();
                Ok(Self::Here(cloud.and_then(Cloud::from_az_environment)))
            }
            Ok(status) => Ok(Self::Elsewhere(status.policy.dir)),
            Err(arcbroker_client::Error::Unreachable { source, .. })
                if matches!(
                    source.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(Self::Absent)
            }
            Err(error) => Err(Failure::Command(error)),
        }
    }

    /// Which cloud short names are about, where it knows.
    pub(crate) fn cloud(&self) -> Option<Cloud> {
        match self {
            Self::Here(cloud) => *cloud,
            Self::Absent | Self::Elsewhere(_) => None,
        }
    }

    /// Makes the changes and has the daemon take them up. One that it refuses is taken back.
    pub(crate) async fn publish(
        self,
        admin: &Client,
        store: &Store,
        changes: &[Change],
        hash: &str,
    ) -> Result<Taken, Error> {
        store.apply(changes)?;
        self.tell(admin, hash, || store.take_back(changes)).await
    }

    /// Has the daemon take up what was written, or calls `take_back`.
    pub(crate) async fn tell(
        self,
        admin: &Client,
        hash: &str,
        take_back: impl FnOnce(),
    ) -> Result<Taken, Error> {
        match self {
            Self::Absent => return Ok(Taken::AtStart),
            Self::Elsewhere(dir) => return Ok(Taken::Elsewhere(dir)),
            Self::Here(_) => {}
        }
        let ReloadAnswer {
            error, hash: read, ..
        } = admin.reload().await.map_err(Error::Untold)?;
        if let Some(report) = error {
            take_back();
            // So that it does not go on saying that its files are refused.
            let _ = admin.reload().await;
            return Err(Error::Refused { report });
        }
        Ok(if read == hash {
            Taken::InForce
        } else {
            Taken::Differently
        })
    }
}

impl Taken {
    /// What the user should know, where it is not simply in force.
    pub(crate) fn remark(&self) -> Option<String> {
        match self {
            Self::InForce => None,
            Self::AtStart => Some("arcbrokerd does not run: this takes effect when it starts".to_owned()),
            Self::Elsewhere(dir) => Some(format!(
                "the arcbrokerd that runs reads {dir}, and nothing changes for it"
            )),
            Self::Differently => Some(
                "arcbrokerd has read files that differ from those judged here: somebody changed them meanwhile, or it \
                 knows their directory by another name. See: sudo arcbroker status"
                    .to_owned(),
            ),
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || match (fs::canonicalize(one), fs::canonicalize(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}
