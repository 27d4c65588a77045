//! A caller that asks on all its connections at once and never stops.

use std::process::Stdio;

use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::daemon::{freeze, state};
use crate::{PATIENCE, SOCKET_GID, User, World, eventually};

const SCRIPT: &str = include_str!("flood.py");

/// A running flood. It ends when it is dropped.
#[derive(Debug)]
pub struct Flood(Child);

impl Flood {
    /// Lets `user` ask on so many connections, each with four requests under way at any time. Ends once
    /// all of them have had an answer. Needs root.
    pub async fn start(world: &World, user: &User, target: &str, connections: usize) -> Self {
        Self::run(world, &[], user, target, connections).await
    }

    /// Lets `user` open so many connections and keep them, with these words before the command. Needs root.
    pub async fn hold(world: &World, before: &[String], user: &User, connections: usize) -> Self {
        Self::run(world, before, user, "", connections).await
    }

    async fn run(
        world: &World,
        before: &[String],
        user: &User,
        target: &str,
        connections: usize,
    ) -> Self {
        let words = before.iter().map(String::as_str);
        let mut words = words.chain(["python3", "-c", SCRIPT]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(world.token_socket());
        command.args([user.uid, SOCKET_GID].map(|id| id.to_string()));
        let pipelined = if target.is_empty() { "1" } else { "4" };
        command.args([target, &connections.to_string(), pipelined]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let said = child.stdout.as_mut().unwrap().read_u8();
        let said = timeout(PATIENCE, said).await.expect("all have an answer");
        said.expect("no connection is refused");
        Self(child)
    }

    /// Stops the daemon at a moment when a request waits on every connection of this flood.
    pub async fn pile_up(&self, world: &World) {
        freeze(Pid::from_raw(world.daemon.pid())).await;
        // It has read every answer, has asked again, and waits.
        let flood = Pid::from_raw(self.0.id().expect("the flood runs").cast_signed());
        eventually("the flood waits", || async { state(flood) == "S" }).await;
    }
}
