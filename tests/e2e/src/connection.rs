//! A connection that is kept for more than one request.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::{Answer, PATIENCE};

/// A connection to a socket of the daemon.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Read and not yet taken.
    read: Vec<u8>,
}

impl Connection {
    /// Connects; a full backlog refuses at once, and is tried again.
    pub async fn open(socket: &Path) -> Self {
        let connect = async {
            loop {
                match UnixStream::connect(socket).await {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        sleep(std::time::Duration::from_millis(5)).await;
                    }
                    connected => break connected.unwrap(),
                }
            }
        };
        let stream = timeout(PATIENCE, connect)
            .await
            .expect("the daemon accepts connections");
        Self::over(stream)
    }

    /// A connection that is there already.
    pub fn over(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a GET that leaves the connection open.
    pub async fn ask(&mut self, target: &str) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n");
        self.send(request.as_bytes()).await.unwrap();
    }

    /// Sends a GET and reads its answer.
    pub async fn get(&mut self, target: &str) -> Answer {
        self.ask(target).await;
        self.answer().await
    }

    /// Waits until there is something to read, and reads none of it.
    pub async fn answered(&self) {
        timeout(PATIENCE, self.stream.readable())
            .await
            .expect("there is an answer in time")
            .unwrap();
    }

    /// Reads the next answer; one with status 0 when the connection was closed before its end.
    pub async fn answer(&mut self) -> Answer {
        let more = async {
            while !is_whole(&self.read) {
                if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                    return Answer::parse(&[]);
                }
            }
            let answer = Answer::parse(&self.read);
            self.read
                .drain(..head_length(&self.read).unwrap() + answer.body.len());
            answer
        };
        timeout(PATIENCE, more)
            .await
            .expect("there is an answer in time")
    }

    /// Reads until the connection is closed, and gives what came.
    pub async fn rest(mut self) -> Vec<u8> {
        let closed = timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        closed
            .expect("the connection is closed in time")
            .unwrap_or_default();
        self.read
    }
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn is_whole(bytes: &[u8]) -> bool {
    head_length(bytes).is_some_and(|head| {
        let length = Answer::parse(bytes)
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        bytes.len() >= head + length
    })
}
