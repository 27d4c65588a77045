//! `arcbroker-load`: HTTP requests over a Unix socket, as fast as the server answers them.
//!
//! It exists because common load generators cannot open one connection per request over a Unix socket, which is
//! what scripts do. It must cost less than the server that it loads: each thread drives its share of the
//! connections with `poll(2)`, and reads bodies without keeping them.

#![forbid(unsafe_code)]

mod drive;
mod figures;
mod response;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::drive::Plan;

/// Send GET requests to a Unix socket and print the figures as JSON. Exits 1 if any request failed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Socket of the server
    #[arg(long)]
    socket: PathBuf,
    /// Path and query to ask for
    #[arg(long, value_parser = visible_text)]
    path: String,
    /// Header to send, as `Name: value`; may be given several times
    #[arg(long = "header", value_name = "HEADER", value_parser = header_line)]
    headers: Vec<String>,
    /// Requests in all
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Requests under way at the same time, each on a connection of its own
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Whether a connection serves further requests; without keep-alive the client closes it after the answer
    #[arg(long, value_enum, default_value_t = Mode::KeepAlive)]
    mode: Mode,
    /// Threads that share the connections; never more than there are connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Seconds of silence after which the requests under way count as failed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Mode {
    KeepAlive,
    PerRequest,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let figures = drive::run(&plan(&args));
    if writeln!(io::stdout(), "{}", figures.to_json()).is_err() {
        return ExitCode::FAILURE;
    }
    match figures.first_failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            let failures = figures.failures;
            let _ = writeln!(
                io::stderr(),
                "arcbroker-load: {failures} requests failed; the first: {failure}"
            );
            ExitCode::FAILURE
        }
    }
}

fn plan(args: &Args) -> Plan {
    let headers: String = args
        .headers
        .iter()
        .flat_map(|line| [line.as_str(), "\r\n"])
        .collect();
    Plan {
        socket: args.socket.clone(),
        request: format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n",
            args.path
        )
        .into_bytes(),
        requests: args.requests,
        connections: args.connections,
        keep_alive: args.mode == Mode::KeepAlive,
        threads: args.threads.min(args.connections),
        silence: Duration::from_secs(args.timeout.into()),
    }
}

fn visible_text(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with `/` and has only visible ASCII characters; percent-encode the others".to_owned())
    }
}

fn header_line(text: &str) -> Result<String, String> {
    let printable = text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match text.split_once(':') {
        Some((name, _)) if printable && !name.is_empty() && !name.contains(' ') => {
            Ok(text.to_owned())
        }
        _ => Err("a header is written `Name: value`, in printable ASCII".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_the_path_and_every_header() {
        let args = Args::parse_from(
            "arcbroker-load --socket s --path /x?y --header Metadata:true --header A:b".split(' '),
        );
        let request = String::from_utf8(plan(&args).request).unwrap();
        assert_eq!(
            request,
            "GET /x?y HTTP/1.1\r\nHost: localhost\r\nMetadata:true\r\nA:b\r\n\r\n"
        );
    }

    #[test]
    fn there_are_never_more_threads_than_connections() {
        let args = Args::parse_from(
            "arcbroker-load --socket s --path / --connections 2 --threads 9".split(' '),
        );
        assert_eq!(plan(&args).threads, 2);
    }

    #[test]
    fn a_path_or_header_cannot_break_out_of_its_line() {
        assert!(visible_text("/a b").is_err());
        assert!(visible_text("a").is_err());
        assert!(header_line("A: b\r\nC: d").is_err());
        assert!(header_line("no colon").is_err());
        assert_eq!(header_line("A: b c"), Ok("A: b c".to_owned()));
    }
}
