//! `arcbroker exec`

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use arcbroker_client::{Client, wire::EndpointAnswer};

use crate::{
    args::{EnvFormat, Exec},
    environment::Environment,
    exit::{Exit, Failure},
    output,
};

/// Gets an endpoint for this process or for the one that started it.
pub(super) async fn register(client: &Client, args: &Exec) -> Result<EndpointAnswer, Failure> {
    let listener = listen().map_err(Failure::Loopback)?;
    let endpoint = client.endpoint(&listener, args.lifetime()).await;
    endpoint.map_err(Failure::Endpoint)
}

/// Becomes the program, or prints what it would have in its environment.
pub(super) fn run(endpoint: &EndpointAnswer, args: &Exec) -> Result<Exit, Failure> {
    let environment = Environment::of(endpoint, args.imds, |name| std::env::var_os(name));
    match args.print_env {
        Some(EnvFormat::Sh) => output::print(&environment.for_shell())?,
        Some(EnvFormat::Systemd) => output::print(&environment.for_systemd())?,
        None => return Err(become_program(&environment, args)),
    }
    Ok(Exit::OK)
}

/// Returns only if it cannot.
fn become_program(environment: &Environment, args: &Exec) -> Failure {
    let mut words = args.program.iter();
    let program = words.next().map(PathBuf::from).unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(words);
    for name in environment.removed() {
        command.env_remove(name);
    }
    for (name, value) in environment.set() {
        command.env(name, value);
    }
    let source = command.exec();
    Failure::Program { program, source }
}

/// On a port that the kernel chooses, in the network namespace that the program will be in.
fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))))
}
