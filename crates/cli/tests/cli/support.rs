//! A broker that answers from a script, and the command line that is tried against it.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use tempfile::TempDir;

/// Gives its answers in order, the last one again and again; one connection for each.
pub(crate) struct Broker {
    pub(crate) path: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    _directory: TempDir,
}

impl Broker {
    pub(crate) fn answering(answers: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let answer = &answers[number.min(answers.len() - 1)];
                seen.lock()
                    .unwrap()
                    .push(answer_one(stream.unwrap(), answer));
            }
        });
        Self {
            path,
            requests,
            _directory: directory,
        }
    }

    /// On both sockets.
    pub(crate) fn run(&self, line: &str) -> Ran {
        let path = self.path.to_str().unwrap();
        run(&format!("--socket {path} --admin-socket {path} {line}"))
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer_one(mut stream: UnixStream, answer: &str) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    // A client that is gone, or has read enough, is its own business.
    drop(stream.write_all(answer.as_bytes()));
    String::from_utf8(head).unwrap()
}

/// What a run left behind.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The program with arguments that contain no spaces.
pub(crate) fn run(line: &str) -> Ran {
    command(line).output().unwrap().into()
}

pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcbroker"));
    command
        .args(line.split_whitespace())
        .env_remove("ARCBROKER_CONFIG")
        .env_remove("ARCBROKER_SOCKET")
        .env_remove("ARCBROKER_ADMIN_SOCKET")
        .env_remove("ARCBROKER_SOCKET_OWNER");
    command
}

pub(crate) fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    )
}

pub(crate) fn token() -> String {
    answer(
        200,
        "",
        r#"{"access_token":"MARKER","refresh_token":"","expires_in":"3599","not_before":"1","resource":"https://vault.azure.net","token_type":"Bearer","expires_on":"1700003599"}"#,
    )
}

pub(crate) fn refusal(status: u16, headers: &str, description: &str) -> String {
    let error = if status == 403 { "access_denied" } else { "e" };
    let description = serde_json::Value::from(description);
    let body = format!(
        r#"{{"error":"{error}","error_description":{description},"request_id":"7f","schema":1}}"#
    );
    answer(status, headers, &body)
}
