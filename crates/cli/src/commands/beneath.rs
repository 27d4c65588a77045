//! Becomes another program that does not outlive its parent, `kill -9` of the parent included.
//!
//! The wish is one of the process that it concerns and survives execve, so that a step between
//! fork and exec is needed; this command is that step, without `unsafe`.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt as _, parent_id},
    path::Path,
    process::Command,
};

use nix::sys::{prctl, signal::Signal};

use crate::exit::Failure;

/// Comes back only if it failed.
pub(crate) fn run(parent: i32, program: &Path, args: &[OsString]) -> Failure {
    if let Err(errno) = prctl::set_pdeathsig(Signal::SIGTERM) {
        return Failure::Start(errno.into());
    }
    if i64::from(parent_id()) != i64::from(parent) {
        return Failure::Start(io::Error::other("the parent has ended"));
    }
    Failure::Start(Command::new(program).args(args).exec())
}
