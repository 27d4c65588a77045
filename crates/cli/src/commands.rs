//! One module for each command.

pub(crate) mod beneath;
pub(crate) mod demo;
mod status;
mod token;
mod tokens;
mod whoami;

use tokio::runtime::Builder;

use crate::{
    args::{Args, Command},
    exit::{Exit, Failure},
};

/// Carries out the command; a failure comes with its exit code.
pub(crate) fn run(args: Args) -> Result<Exit, (Exit, Failure)> {
    dispatch(args).map_err(|failure| (failure.exit(), failure))
}

fn dispatch(args: Args) -> Result<Exit, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Start)?;
    let sockets = args.sockets;
    match args.command {
        Command::Token(token) => runtime.block_on(token::run(&sockets.tokens(), &token)),
        Command::Whoami { json } => runtime.block_on(whoami::run(&sockets.tokens(), json)),
        Command::Status { json } => runtime.block_on(status::run(&sockets.admin(), json)),
        Command::Flush { resource } => {
            runtime.block_on(tokens::flush(&sockets.admin(), resource.as_deref()))
        }
        Command::Refresh { resource } => {
            runtime.block_on(tokens::refresh(&sockets.admin(), resource.as_deref()))
        }
        Command::Demo { once } => runtime.block_on(demo::run(once)),
        Command::Beneath {
            parent,
            program,
            args,
        } => Err(beneath::run(parent, &program, &args)),
    }
}
