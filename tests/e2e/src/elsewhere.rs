//! A connection that one process made and another one holds.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{Connection, PATIENCE, User, World};

/// Python, because it can pass descriptors on without `unsafe`.
const SCRIPT: &str = include_str!("elsewhere.py");

/// A connection, and the process that made it.
#[derive(Debug)]
pub struct Elsewhere {
    connected: Child,
    /// What the test says on it goes through the process that holds it now.
    pub connection: Connection,
}

impl Elsewhere {
    /// Lets `user` connect, with these words before the command, and another user hold the connection.
    /// Once connected, the process becomes the user `becomes`. Needs root.
    pub async fn connect(
        world: &World,
        before: &[String],
        user: &User,
        holder: u32,
        becomes: u32,
    ) -> Self {
        let (ours, theirs) = StdStream::pair().unwrap();
        // Root may become anybody, and nobody else may: the script does that by itself.
        let groups = user.setpriv();
        let groups = groups.iter().filter(|word| !word.starts_with("--reuid"));
        let words = before.iter().map(String::as_str).chain(["setpriv"]);
        let mut words = words.chain(groups.map(String::as_str));
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["python3", "-c", SCRIPT]);
        command.arg(world.token_socket());
        command.args([user.uid, holder, becomes].map(|uid| uid.to_string()));
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped());
        let mut connected = command.kill_on_drop(true).spawn().unwrap();
        let said = connected.stdout.as_mut().unwrap().read_u8();
        let said = timeout(PATIENCE, said).await.expect("it connects in time");
        said.expect("it connects");
        ours.set_nonblocking(true).unwrap();
        let connection = Connection::over(UnixStream::from_std(ours).unwrap());
        Self {
            connected,
            connection,
        }
    }

    /// The number of the process that connected.
    pub fn pid(&self) -> u32 {
        self.connected.id().unwrap()
    }

    /// Ends the process that connected, and takes note of its end, so that its number is free.
    pub async fn end(&mut self) {
        self.connected.kill().await.unwrap();
    }
}
