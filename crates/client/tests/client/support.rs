//! A server that does what its script says, in place of a broker.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use arcbroker_client::Client;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// What to do once a request has been read.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send nothing, and keep the connection open.
    Hang,
}

/// Takes one script for each connection, the last one again and again. A connection is closed at
/// the end of its script.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) path: PathBuf,
    seen: Arc<Mutex<Seen>>,
    _directory: TempDir,
}

/// Heads of requests, and how many connections there were.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    requests: Vec<String>,
    connections: usize,
}

impl Server {
    /// Must be called in a runtime, which it lives as long as.
    pub(crate) fn start(scripts: Vec<Vec<Step>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.sock");
        let listener = UnixListener::bind(&path).unwrap();
        Self {
            path,
            seen: Self::on(listener, scripts),
            _directory: directory,
        }
    }

    /// As [`Self::start`], for a socket that exists.
    pub(crate) fn on(listener: UnixListener, scripts: Vec<Vec<Step>>) -> Arc<Mutex<Seen>> {
        let seen = Arc::<Mutex<Seen>>::default();
        tokio::spawn(accept(listener, scripts, Arc::clone(&seen)));
        seen
    }

    /// Every request on any connection gets this answer.
    pub(crate) fn always(answer: Vec<u8>) -> Self {
        Self::start(vec![vec![Step::Send(answer); 100]])
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.path).with_deadline(Duration::from_secs(20))
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

async fn accept(listener: UnixListener, scripts: Vec<Vec<Step>>, seen: Arc<Mutex<Seen>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.connections += 1;
            seen.connections - 1
        };
        let script = scripts[number.min(scripts.len() - 1)].clone();
        tokio::spawn(play(stream, script, Arc::clone(&seen)));
    }
}

async fn play(mut stream: UnixStream, script: Vec<Step>, seen: Arc<Mutex<Seen>>) {
    for step in script {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        seen.lock().unwrap().requests.push(head);
        match step {
            // The client may leave in the middle of what is too long for it.
            Step::Send(bytes) => drop(stream.write_all(&bytes).await),
            Step::Hang => std::future::pending().await,
        }
    }
}

async fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A whole answer with a body of JSON.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

pub(crate) fn token(secret: &str) -> Vec<u8> {
    answer(
        200,
        "",
        &format!(
            r#"{{"access_token":"{secret}","refresh_token":"","expires_in":"3599","not_before":"1","resource":"https://vault.azure.net","token_type":"Bearer","expires_on":"1700003599"}}"#
        ),
    )
}
