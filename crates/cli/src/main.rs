//! `arcbroker`: tokens for scripts, health for administrators, and a demo.
//!
//! [`args`] reads the command line, [`commands`] does what it says over the sockets of the broker and on the
//! files that [`settings`] finds: those of the [`policy`], and those with [`audit`] records.
//! [`output`] prints, and [`exit`] turns the outcome into an exit code.

#![forbid(unsafe_code)]

mod accounts;
mod args;
mod audit;
mod clock;
mod commands;
mod duration;
mod environment;
mod exit;
mod output;
mod policy;
mod settings;

use std::process::ExitCode;

use crate::{args::Args, exit::Exit};

fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(usage) => return output::usage(&usage).into(),
    };
    match commands::run(args) {
        Ok(exit) => exit.into(),
        Err((exit, failure)) => {
            output::failure(&failure);
            Exit::into(exit)
        }
    }
}
