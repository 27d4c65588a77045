//! `arcbroker completions`

use clap::{Command, CommandFactory as _};
use clap_complete::{generate, shells};

use crate::{
    args::{Args, Shell},
    exit::{Exit, Failure},
    output,
};

pub(super) fn run(shell: Shell) -> Result<Exit, Failure> {
    output::print(&script(shell))?;
    Ok(Exit::OK)
}

fn script(shell: Shell) -> String {
    let mut definition = visible(&Args::command());
    let name = env!("CARGO_BIN_NAME");
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(shells::Bash, &mut definition, name, &mut script),
        Shell::Fish => generate(shells::Fish, &mut definition, name, &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut definition, name, &mut script),
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// The definition without its hidden commands, which the generators would offer like the others.
fn visible(definition: &Command) -> Command {
    let commands = definition.get_subcommands();
    Command::new(env!("CARGO_BIN_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .args(definition.get_arguments())
        .subcommands(commands.filter(|command| !command.is_hide_set()))
}
