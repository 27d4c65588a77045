//! Keeps the planned number of requests under way until all are answered.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::figures::{Figures, Tally};
use crate::response::{Head, Response};

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) socket: PathBuf,
    pub(crate) request: Vec<u8>,
    pub(crate) requests: u32,
    pub(crate) connections: u16,
    pub(crate) keep_alive: bool,
    /// At most one for each connection.
    pub(crate) threads: u16,
    /// After so long without a byte, the requests under way have failed.
    pub(crate) silence: Duration,
}

pub(crate) fn run(plan: &Plan) -> Figures {
    let begin = now();
    let tally = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads)
            .map(|index| {
                let connections = share(plan.connections.into(), plan.threads, index);
                let requests = share(plan.requests, plan.threads, index);
                let worker = Worker {
                    plan,
                    not_begun: requests,
                    tally: Tally::default(),
                };
                scope.spawn(move || worker.run(connections))
            })
            .collect();
        let tallies = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        tallies.fold(Tally::default(), Tally::merge)
    });
    Figures::new(plan.requests, begin.elapsed(), tally)
}

/// The part of `total` that falls to one of `threads`; the parts differ by 1 at most.
fn share(total: u32, threads: u16, index: u16) -> u32 {
    total / u32::from(threads) + u32::from(u32::from(index) < total % u32::from(threads))
}

/// One thread's share of the requests.
struct Worker<'plan> {
    plan: &'plan Plan,
    not_begun: u32,
    tally: Tally,
}

impl Worker<'_> {
    fn run(mut self, connections: u32) -> Tally {
        let mut lanes: Vec<_> = (0..connections).map(|_| Lane::new()).collect();
        for lane in &mut lanes {
            self.begin_next(lane);
        }
        while lanes.iter().any(|lane| lane.busy) {
            match readable(&lanes, self.plan.silence) {
                Ok(ready) => {
                    for index in ready {
                        if let Some(lane) = lanes.get_mut(index) {
                            self.advance(lane);
                        }
                    }
                }
                Err(failure) => {
                    self.give_up(&lanes, failure);
                    break;
                }
            }
        }
        self.tally
    }

    /// Sends the lane's next request. One that cannot be sent has failed, and the next is tried.
    fn begin_next(&mut self, lane: &mut Lane) {
        while self.not_begun > 0 && !lane.busy {
            self.not_begun -= 1;
            if let Err(error) = lane.send(self.plan) {
                let socket = self.plan.socket.display();
                self.finish(
                    lane,
                    Err(format!("cannot send a request to {socket}: {error}")),
                );
            }
        }
    }

    fn advance(&mut self, lane: &mut Lane) {
        if let Some(result) = lane.read().transpose() {
            self.finish(lane, result);
            self.begin_next(lane);
        }
    }

    fn finish(&mut self, lane: &mut Lane, result: Result<Head, String>) {
        let latency = lane.begin.elapsed();
        lane.busy = false;
        if !self.plan.keep_alive || !result.as_ref().is_ok_and(|head| head.keep_alive) {
            lane.stream = None;
        }
        self.tally.record(latency, result.and_then(must_be_200));
    }

    /// A server that went silent would hold up every further request for as long again.
    fn give_up(&mut self, lanes: &[Lane], failure: String) {
        let under_way: u32 = lanes.iter().map(|lane| u32::from(lane.busy)).sum();
        self.tally.failures += under_way + self.not_begun;
        self.tally.first_failure.get_or_insert(failure);
    }
}

fn must_be_200(head: Head) -> Result<(), String> {
    match head.status {
        200 => Ok(()),
        status => Err(format!("the server answered with status {status}")),
    }
}

/// A place for one request at a time, and the connection that it goes over.
struct Lane {
    stream: Option<UnixStream>,
    response: Response,
    begin: Instant,
    busy: bool,
}

impl Lane {
    fn new() -> Self {
        Self {
            stream: None,
            response: Response::new(),
            begin: now(),
            busy: false,
        }
    }

    fn send(&mut self, plan: &Plan) -> io::Result<()> {
        self.begin = now();
        self.response.restart();
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => UnixStream::connect(&plan.socket)?,
        };
        self.stream.insert(stream).write_all(&plan.request)?;
        self.busy = true;
        Ok(())
    }

    /// Takes what has arrived. `None` while the response is incomplete.
    fn read(&mut self) -> Result<Option<Head>, String> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        match stream.read(self.response.space()) {
            Ok(0) => {
                Err("the server closed the connection before its response was complete".to_owned())
            }
            Ok(count) => self
                .response
                .received(count)
                .map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(format!("cannot read the response: {error}")),
        }
    }
}

/// Waits until at least one busy lane can be read, and gives the indices of those that can.
fn readable(lanes: &[Lane], silence: Duration) -> Result<Vec<usize>, String> {
    let busy = lanes.iter().enumerate().filter(|(_, lane)| lane.busy);
    let (indices, mut fds): (Vec<_>, Vec<_>) = busy
        .filter_map(|(index, lane)| {
            Some((
                index,
                PollFd::new(lane.stream.as_ref()?.as_fd(), PollFlags::POLLIN),
            ))
        })
        .unzip();
    match poll(
        &mut fds,
        PollTimeout::try_from(silence).unwrap_or(PollTimeout::MAX),
    ) {
        Ok(0) => Err(format!(
            "the server sent nothing for {} s",
            silence.as_secs_f64()
        )),
        Ok(_) => Ok(indices
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| fd.any() == Some(true))
            .map(|(index, _)| index)
            .collect()),
        Err(Errno::EINTR) => Ok(Vec::new()),
        Err(error) => Err(format!("cannot wait for the server: {error}")),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a load generator measures real time, and nothing else here reads it"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    /// Answers every request with `response`, and counts the connections.
    struct Server {
        directory: tempfile::TempDir,
        accepted: Arc<AtomicU32>,
    }

    impl Server {
        fn start(response: &'static [u8]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
            let accepted = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&accepted);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    count.fetch_add(1, Ordering::SeqCst);
                    thread::spawn(move || answer_all(stream.unwrap(), response));
                }
            });
            Self {
                directory,
                accepted,
            }
        }

        fn plan(&self, keep_alive: bool) -> Plan {
            Plan {
                socket: self.directory.path().join("socket"),
                request: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                requests: 101,
                connections: 5,
                keep_alive,
                threads: 2,
                silence: Duration::from_secs(30),
            }
        }
    }

    fn answer_all(mut stream: UnixStream, response: &[u8]) {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            let (first, rest) = response.split_at(response.len() / 2);
            if stream
                .write_all(first)
                .and_then(|()| stream.write_all(rest))
                .is_err()
            {
                return;
            }
        }
    }

    #[test]
    fn kept_connections_serve_all_requests() {
        let server = Server::start(OK);
        let figures = run(&server.plan(true));
        assert_eq!((figures.requests, figures.failures), (101, 0));
        assert_eq!(server.accepted.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn without_keep_alive_every_request_has_its_own_connection() {
        let server = Server::start(OK);
        let figures = run(&server.plan(false));
        assert_eq!((figures.requests, figures.failures), (101, 0));
        assert_eq!(server.accepted.load(Ordering::SeqCst), 101);
    }

    #[test]
    fn a_connection_that_the_server_closes_is_replaced() {
        let server =
            Server::start(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let figures = run(&server.plan(true));
        assert_eq!(figures.failures, 0);
        assert_eq!(server.accepted.load(Ordering::SeqCst), 101);
    }

    #[test]
    fn another_status_than_200_is_a_failure() {
        let server = Server::start(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        let figures = run(&server.plan(true));
        assert_eq!(figures.failures, 101);
        assert_eq!(
            figures.first_failure.as_deref(),
            Some("the server answered with status 403")
        );
    }

    #[test]
    fn without_a_server_every_request_fails() {
        let server = Server::start(OK);
        let figures = run(&Plan {
            socket: server.directory.path().join("absent"),
            ..server.plan(false)
        });
        assert_eq!(figures.failures, 101);
        assert!(figures.first_failure.unwrap().contains("absent"));
    }

    #[test]
    fn a_silent_server_ends_the_run() {
        let server = Server::start(b"");
        let figures = run(&Plan {
            silence: Duration::from_millis(50),
            ..server.plan(true)
        });
        assert_eq!(figures.failures, 101);
        assert!(
            figures
                .first_failure
                .unwrap()
                .contains("sent nothing for 0.05 s")
        );
    }

    #[test]
    fn shares_add_up_to_the_total() {
        let shares: Vec<_> = (0..3).map(|index| share(11, 3, index)).collect();
        assert_eq!(shares, [4, 4, 3]);
    }
}
