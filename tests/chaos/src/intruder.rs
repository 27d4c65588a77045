//! Who is on HIMDS's port in place of the simulator of this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use arcbroker_e2e::{Connection, User, World, binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Who squats.
pub const SQUATTER: User = User {
    uid: 64_010,
    gid: 64_010,
    groups: &[],
};

/// himds-sim as a process of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    control: PathBuf,
}

impl Process {
    /// Starts one on the port of the stopped simulator: as HIMDS, or as somebody else with key
    /// files of his own.
    pub async fn start(world: &World, user: Option<User>) -> Self {
        let dir = match user {
            None => world.path("tokens"),
            Some(_) => world.path("squatter/tokens"),
        };
        let control = dir.with_file_name("control");
        let mut words = Vec::new();
        if let Some(user) = user {
            let home = world.path("squatter");
            std::fs::create_dir(&home).unwrap();
            std::os::unix::fs::chown(&home, Some(user.uid), Some(user.gid)).unwrap();
            words.push("setpriv".to_owned());
            words.extend(user.setpriv());
        }
        words.push(binary("himds-sim").display().to_string());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["--listen", &world.himds_address().to_string()])
            .arg("--tokens-dir")
            .arg(&dir)
            .arg("--control")
            .arg(&control)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).await.unwrap();
        assert!(
            line.starts_with("http://"),
            "himds-sim did not start: {line}"
        );
        Self { child, control }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed());
        kill(pid, signal).unwrap();
    }

    /// Ends it without a warning.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
        // What is left of its control socket would be in the way of the next one.
        std::fs::remove_file(&self.control).unwrap();
    }

    /// What it was asked, by its own word.
    pub async fn journal(&self) -> Vec<Value> {
        let answer = Connection::open(&self.control).await.get("/journal").await;
        answer.json().as_array().unwrap().clone()
    }
}

/// A service that talks first, and not in HTTP.
#[derive(Debug)]
pub struct OtherService(JoinHandle<()>);

impl OtherService {
    /// Greets everybody on this port.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Who does not stay for the greeting does not want it.
                stream
                    .write_all(b"220 mail.example ESMTP ready\r\n")
                    .await
                    .unwrap_or_default();
            }
        }))
    }
}

impl OtherService {
    /// Ends it; its port is free.
    pub async fn stop(self) {
        self.0.abort();
        // That it was ended is no news.
        self.0.await.unwrap_or_default();
    }
}

/// A port that swallows everything: its queue is full, and the kernel leaves who knocks without
/// an answer.
#[derive(Debug)]
pub struct BlackHole {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one on this port.
    pub async fn open(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        // The kernel knocks again after a second.
        let moment = Duration::from_millis(800);
        // Twice: a machine that is busy may be slow to answer once.
        for _ in 0..2 {
            while let Ok(connected) = timeout(moment, TcpStream::connect(address)).await {
                queue.push(connected.unwrap());
                assert!(queue.len() < 100, "the queue has no end");
            }
        }
        Self {
            _listener: listener,
            _queue: queue,
        }
    }
}
