//! Tries things from inside the daemon's sandbox: confines itself as the daemon does, with the
//! configuration that is there, and prints one line for each pair of arguments, `VERB OBJECT: RESULT`.
//!
//! ```text
//! sandbox-probe read /etc/shadow connect 127.0.0.1:22 run /bin/true
//! ```

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::time::Duration;

use arcbroker_broker::args::Args;
use arcbroker_broker::check;
use clap::Parser as _;

/// Whoever filters addresses may drop packets instead of refusing them.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match probe(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "sandbox-probe: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn probe(attempts: &[String]) -> io::Result<()> {
    let (settings, report) = check::load(&Args::parse_from(["arcbrokerd"]));
    let settings = settings.ok_or_else(|| io::Error::other(report))?;
    let held = settings.bounds(true).enforce()?;
    let mut out = io::stdout().lock();
    writeln!(out, "landlock: {held}")?;
    for pair in attempts.chunks(2) {
        let [verb, object] = pair else {
            return Err(io::Error::other(
                "arguments come in pairs of a verb and an object",
            ));
        };
        match attempt(verb, object) {
            Ok(()) => writeln!(out, "{verb} {object}: ok")?,
            Err(error) => writeln!(out, "{verb} {object}: {error}")?,
        }
    }
    Ok(())
}

fn attempt(verb: &str, object: &str) -> io::Result<()> {
    let address = || object.parse::<SocketAddr>().map_err(io::Error::other);
    match verb {
        "read" => File::open(object).map(drop),
        "list" => fs::read_dir(object).map(drop),
        "make" => File::create_new(object).and_then(|_| fs::remove_file(object)),
        "run" => Command::new(object).status().map(drop),
        "connect" => TcpStream::connect_timeout(&address()?, PATIENCE).map(drop),
        "bind" => TcpListener::bind(address()?).map(drop),
        _ => Err(io::Error::other("no such verb")),
    }
}
