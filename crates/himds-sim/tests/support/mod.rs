//! A small HTTP client that shows exactly what was sent, and ways to start a simulator.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use himds_sim::{Options, Simulator};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    net::TcpStream,
    time::timeout,
};

pub const VAULT: &str = "https://vault.azure.net";
pub const TOKEN: &str = "/metadata/identity/oauth2/token";
pub const METADATA: (&str, &str) = ("Metadata", "true");

/// Long enough for a slow machine, short enough that a hang fails the test.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// A simulator with a directory of its own.
pub struct World {
    pub sim: Simulator,
    pub dir: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path().join("tokens"));
        change(&mut options);
        Self {
            sim: Simulator::start(options).await.unwrap(),
            dir,
        }
    }

    /// One with a single fault.
    pub async fn faulty(fault: &str) -> Self {
        let world = Self::new().await;
        world.fault(fault);
        world
    }

    pub fn fault(&self, fault: &str) {
        self.sim.set_fault(fault.parse().unwrap());
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_get(target, headers).await.unwrap()
    }

    pub async fn try_get(&self, target: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        request(self.sim.address(), "GET", target, headers).await
    }

    /// The first request, for `VAULT`.
    pub async fn challenge(&self) -> Answer {
        self.get(&token_target(""), &[METADATA]).await
    }

    /// The second request, for `VAULT`.
    pub async fn redeem(&self, key: &str) -> Answer {
        self.redeem_with(key, "").await
    }

    pub async fn redeem_with(&self, key: &str, more: &str) -> Answer {
        self.get(
            &token_target(more),
            &[METADATA, ("Authorization", &format!("Basic {key}"))],
        )
        .await
    }

    /// Both requests, with more query parameters.
    pub async fn token_with(&self, more: &str) -> Answer {
        let challenge = self.get(&token_target(more), &[METADATA]).await;
        self.redeem_with(&challenge.key(), more).await
    }

    /// Both requests, for `VAULT`.
    pub async fn token(&self) -> Answer {
        self.token_with("").await
    }

    /// A good key, or an empty one where none is needed.
    pub async fn key_if(&self, needed: bool) -> String {
        if needed {
            self.challenge().await.key()
        } else {
            String::new()
        }
    }

    pub fn key_files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.sim.tokens_dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    pub async fn no_key_files_remain(&self) {
        eventually("the key files are gone", || self.key_files().is_empty()).await;
    }
}

/// Waits until something holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        timeout(DEADLINE, waiting).await.is_ok(),
        "waited in vain: {what}"
    );
}

/// The token path with api-version and resource, and more if wanted.
pub fn token_target(more: &str) -> String {
    format!("{TOKEN}?api-version=2020-06-01&resource={VAULT}{more}")
}

/// An answer, names of headers as they were sent.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A field of the JSON body that is a string.
    pub fn text(&self, field: &str) -> String {
        self.json()[field]
            .as_str()
            .unwrap_or_else(|| panic!("no text `{field}` in {self:?}"))
            .to_owned()
    }

    /// Names of the JSON body's fields, in their order.
    pub fn fields(&self) -> Vec<String> {
        let body = String::from_utf8(self.body.clone()).unwrap();
        let fields = self.json();
        let mut names: Vec<String> = fields.as_object().unwrap().keys().cloned().collect();
        names.sort_by_key(|name| body.find(&format!("\"{name}\":")).unwrap());
        names
    }

    pub fn realm(&self) -> PathBuf {
        let header = self
            .header("www-authenticate")
            .unwrap_or_else(|| panic!("no challenge: {self:?}"));
        PathBuf::from(
            header
                .strip_prefix("Basic realm=")
                .unwrap_or_else(|| panic!("{header}")),
        )
    }

    /// The content of the key file that the challenge names.
    pub fn key(&self) -> String {
        let path = self.realm();
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// One request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    Connection::open(address)
        .await?
        .request(method, target, headers)
        .await
}

/// A connection that can be used again.
pub struct Connection<S> {
    stream: BufReader<S>,
}

impl Connection<TcpStream> {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        self.request_with_body(method, target, headers, "").await
    }

    pub async fn request_with_body(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        if !body.is_empty() {
            head.push_str(&["Content-Length: ", &body.len().to_string(), "\r\n"].concat());
        }
        self.stream
            .write_all(format!("{head}\r\n{body}").as_bytes())
            .await?;
        timeout(DEADLINE, self.answer()).await?
    }

    pub async fn answer(&mut self) -> io::Result<Answer> {
        let status_line = String::from_utf8_lossy(&self.line().await?).into_owned();
        let broken = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("status line: {status_line:?}"),
            )
        };
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(broken)?;
        let mut answer = Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line().await?;
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                break;
            };
            let name = String::from_utf8_lossy(&line[..colon]).into_owned();
            answer.headers.push((name, line[colon + 2..].to_vec()));
        }
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body).await?;
        Ok(answer)
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await??;
        Ok(rest)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        line.strip_suffix(b"\r\n")
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Header, claims and signature of a JWT.
pub fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&decode(payload)).unwrap()
}

pub fn decode(text: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}
