//! `arcbroker manual`: a page for each command, made of the same definitions as the help.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::{
    args::Args,
    exit::{Exit, Failure},
};

pub(super) fn run(directory: PathBuf) -> Result<Exit, Failure> {
    let mut definition = Args::command().disable_help_subcommand(true);
    // Gives the commands their full names, and the options that all have.
    definition.build();
    match write(&definition, &directory) {
        Ok(()) => Ok(Exit::OK),
        Err(source) => Err(Failure::Manual { directory, source }),
    }
}

fn write(command: &Command, directory: &Path) -> io::Result<()> {
    let page = Man::new(command.clone())
        .source(concat!("arcbroker ", env!("CARGO_PKG_VERSION")))
        .manual("arcbroker");
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(directory.join(page.get_filename()), text)?;
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| write(command, directory))
}
