//! The command line of the daemon.

use std::path::PathBuf;

/// Hands out Azure Arc access tokens to the local processes that the policy allows.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "arcbrokerd", version, about)]
pub struct Args {
    /// The configuration file; without it and without the option, every key has its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read the configuration and the policy, print every mistake, and end: 0, or 78 on any error
    #[arg(long)]
    pub check: bool,

    /// Use the policy in this directory instead of the configured one
    #[arg(long, value_name = "DIR")]
    pub policy_dir: Option<PathBuf>,

    /// Who may own the policy files, by name or number, instead of the configured owners
    #[arg(long, value_name = "USER")]
    pub policy_owner: Vec<String>,
}
