//! A kept connection, opened anew when it has been idle: as the pool of an SDK does it.

use std::path::PathBuf;
use std::time::Duration;

use arcbroker_e2e::{Answer, Connection};
use tokio::time::Instant;

/// The daemon closes an idle connection after 5 s; a little before that it is not used any more.
const IDLE: Duration = Duration::from_secs(4);

/// A connection to one socket.
#[derive(Debug)]
pub struct Line {
    socket: PathBuf,
    open: Option<(Connection, Instant)>,
}

impl Line {
    /// Connects with the first request.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, open: None }
    }

    /// Sends a GET.
    pub async fn ask(&mut self, target: &str) {
        self.send("GET", target).await;
    }

    /// Waits for the answer to what was sent.
    pub async fn answer(&mut self) -> Answer {
        let (connection, used) = self.open.as_mut().unwrap();
        let answer = connection.answer().await;
        *used = Instant::now();
        if answer.status == 0 {
            self.open = None;
        }
        answer
    }

    /// Sends a GET and waits for its answer.
    pub async fn get(&mut self, target: &str) -> Answer {
        self.send("GET", target).await;
        self.answer().await
    }

    /// Sends a POST without a body and waits for its answer.
    pub async fn post(&mut self, target: &str) -> Answer {
        self.send("POST", target).await;
        self.answer().await
    }

    async fn send(&mut self, method: &str, target: &str) {
        let now = Instant::now();
        let (connection, used) = match self.open.take() {
            Some((connection, used)) if now - used < IDLE => self.open.insert((connection, used)),
            _ => self
                .open
                .insert((Connection::open(&self.socket).await, now)),
        };
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n");
        connection.send(request.as_bytes()).await.unwrap();
        *used = now;
    }
}
