//! The command lines about audit records.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Find records that were altered, removed or moved, by the chain that links them
    #[command(
        after_help = "Exit codes: 0 the chain is whole, 1 it is not, or a file cannot be read, 2 usage."
    )]
    Verify {
        /// Print JSON, as documented in docs/protocol.md
        #[arg(long)]
        json: bool,
        /// Files in the order in which they were written; without any, the configured one and its rotated siblings
        files: Vec<PathBuf>,
    },
    /// Print the last records for people to read
    Tail {
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        lines: usize,
        /// Go on with new ones, also when the file is rotated
        #[arg(short, long)]
        follow: bool,
        /// The file; without it, the configured one
        file: Option<PathBuf>,
    },
}
