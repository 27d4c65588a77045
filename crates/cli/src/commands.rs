//! One module for each command.

mod allow;
mod audit;
pub(crate) mod beneath;
mod completions;
pub(crate) mod demo;
mod exec;
mod grant;
mod manual;
mod policy;
mod reload;
mod revoke;
mod rules;
mod status;
mod token;
mod tokens;
mod whoami;
mod why;

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
    let config = args.config.as_deref();
    match args.command {
        Command::Token(token) => runtime.block_on(token::run(&sockets.tokens(), &token)),
        Command::Exec(args) => {
            let endpoint = runtime.block_on(exec::register(&sockets.tokens(), &args));
            endpoint.and_then(|endpoint| exec::run(&endpoint, &args))
        }
        Command::Whoami { json } => runtime.block_on(whoami::run(&sockets.tokens(), json)),
        Command::Status { json } => runtime.block_on(status::run(&sockets.admin(), json)),
        Command::Allow(args) => runtime.block_on(allow::run(&sockets.admin(), config, &args)),
        Command::Revoke(args) => runtime.block_on(revoke::run(&sockets.admin(), config, &args)),
        Command::Rules(args) => runtime.block_on(rules::run(&sockets.admin(), config, &args)),
        Command::Policy(command) => {
            runtime.block_on(policy::run(&sockets.admin(), config, &command))
        }
        Command::Audit(command) => audit::run(config, &command),
        Command::Reload => runtime.block_on(reload::run(&sockets.admin())),
        Command::Flush { resource } => {
            runtime.block_on(tokens::flush(&sockets.admin(), resource.as_deref()))
        }
        Command::Refresh { resource } => {
            runtime.block_on(tokens::refresh(&sockets.admin(), resource.as_deref()))
        }
        Command::Grant(args) => runtime.block_on(grant::run(&sockets.admin(), &args)),
        Command::Why(why) => runtime.block_on(why::run(&sockets.admin(), &why)),
        Command::Demo { once } => runtime.block_on(demo::run(once)),
        Command::Completions { shell } => completions::run(shell),
        Command::Manual { directory } => manual::run(directory),
        Command::Beneath {
            parent,
            program,
            args,
        } => Err(beneath::run(parent, &program, &args)),
    }
}
