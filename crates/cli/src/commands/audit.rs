//! `arcbroker audit`: a module for each of its commands.

mod tail;
mod verify;

use std::path::{Path, PathBuf};

use crate::{
    args::audit::AuditCommand,
    audit::Error,
    exit::{Exit, Failure},
    settings::Settings,
};

pub(super) fn run(config: Option<&Path>, command: &AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Verify { files, json } => verify::run(config, files, *json),
        AuditCommand::Tail {
            lines,
            follow,
            file,
        } => tail::run(config, file.as_deref(), *lines, *follow),
    }
}

/// The file that is named, or else that of the configuration.
fn file(config: Option<&Path>, named: Option<&Path>) -> Result<PathBuf, Failure> {
    match named {
        Some(named) => Ok(named.to_owned()),
        None => Ok(Settings::read(config)?.audit_file.ok_or(Error::NoFile)?),
    }
}
