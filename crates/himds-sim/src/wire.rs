//! Answers, and how they leave: through hyper, or byte by byte where HTTP is to be broken.

use std::{fmt::Write as _, io, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::journal::{Authorization, Kind, Outcome};

/// An answer, and what the journal is to say about it.
pub(crate) struct Answer {
    pub(crate) sent: Sent,
    pub(crate) status: Option<u16>,
    pub(crate) kind: Kind,
    pub(crate) key: Option<String>,
    pub(crate) authorization: Option<Authorization>,
}

impl Answer {
    pub(crate) fn new(kind: Kind, reply: Reply) -> Self {
        Self {
            status: Some(reply.status),
            sent: reply.into(),
            kind,
            key: None,
            authorization: None,
        }
    }

    /// An error body as HIMDS and IMDS write it.
    pub(crate) fn error(status: u16, error: &str, description: &str) -> Self {
        let body = serde_json::json!({ "error": error, "error_description": description });
        Self::new(Kind::Error, Reply::json(status, &body))
    }

    pub(crate) fn other(body: &impl Serialize) -> Self {
        Self::new(Kind::Other, Reply::json(200, body))
    }

    pub(crate) fn nothing(then: Then) -> Self {
        let sent = Sent::Raw(Script {
            bytes: Vec::new(),
            pace: None,
            then,
        });
        Self {
            sent,
            status: None,
            kind: Kind::Nothing,
            key: None,
            authorization: None,
        }
    }

    /// Applies a change to an answer that is whole; a broken one stays as it is.
    pub(crate) fn map(mut self, change: impl FnOnce(Reply) -> Sent) -> Self {
        if let Sent::Whole(reply) = self.sent {
            self.sent = change(reply);
        }
        self
    }

    pub(crate) fn with_header(self, name: &str, value: &str) -> Self {
        self.map(|reply| reply.with_header(name, value).into())
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match &self.sent {
            Sent::Whole(_) => Outcome::Answered,
            Sent::Raw(script) if !script.bytes.is_empty() => Outcome::Broken,
            Sent::Raw(Script {
                then: Then::Hang, ..
            }) => Outcome::Hung,
            Sent::Raw(Script {
                then: Then::Close, ..
            }) => Outcome::Closed,
            Sent::Raw(Script {
                then: Then::Reset, ..
            }) => Outcome::Reset,
        }
    }
}

/// What goes to the connection.
pub(crate) enum Sent {
    /// An answer that hyper writes; the connection stays.
    Whole(Reply),
    /// Bytes that this module writes; then the connection ends.
    Raw(Script),
}

/// An HTTP answer. Names of headers are written as given where the answer goes out raw.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
        .with_header("Content-Type", content_type)
    }

    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        // Strings, numbers and maps with string keys always have a JSON form.
        Self::new(
            status,
            "application/json; charset=utf-8",
            serde_json::to_vec(body).unwrap_or_default(),
        )
    }

    pub(crate) fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Its head as HTTP/1.1 writes it, with `framing` as the last header lines.
    pub(crate) fn head(&self, framing: &str) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut head = format!(
            "HTTP/1.1 {} {}\r\n",
            self.status,
            reason.unwrap_or("Unknown")
        )
        .into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(framing.as_bytes());
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The whole answer as HTTP/1.1 writes it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut framing = String::new();
        // Writing to a string cannot fail.
        let _ = write!(framing, "Content-Length: {}\r\n", self.body.len());
        let mut bytes = self.head(&framing);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn is_legal(&self) -> bool {
        let legal = |(name, value): &(String, Vec<u8>)| {
            HeaderName::from_bytes(name.as_bytes()).is_ok()
                && HeaderValue::from_bytes(value).is_ok()
        };
        self.headers.iter().all(legal)
    }
}

impl From<Reply> for Sent {
    fn from(reply: Reply) -> Self {
        if reply.is_legal() {
            Self::Whole(reply)
        } else {
            Self::Raw(Script::closing(reply.bytes()))
        }
    }
}

impl From<Reply> for Response<Full<Bytes>> {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(Full::new(Bytes::from(reply.body)));
        *response.status_mut() =
            StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in &reply.headers {
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value),
            ) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// Bytes to write to a connection, and how to end it.
pub(crate) struct Script {
    pub(crate) bytes: Vec<u8>,
    /// The pause between two bytes, if they are not to go out at once.
    pub(crate) pace: Option<Duration>,
    pub(crate) then: Then,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Then {
    /// It is closed.
    Close,
    /// It is reset.
    Reset,
    /// It is left alone until the client closes it.
    Hang,
}

impl Script {
    pub(crate) fn closing(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            pace: None,
            then: Then::Close,
        }
    }

    pub(crate) async fn play(self, mut stream: TcpStream) -> io::Result<()> {
        match self.pace {
            None => stream.write_all(&self.bytes).await?,
            Some(pace) => {
                stream.set_nodelay(true)?;
                for byte in &self.bytes {
                    stream.write_all(std::slice::from_ref(byte)).await?;
                    tokio::time::sleep(pace).await;
                }
            }
        }
        match self.then {
            Then::Reset => return stream.set_zero_linger(),
            Then::Close => stream.shutdown().await?,
            Then::Hang => {}
        }
        // Unread bytes at the close would turn it into a reset, which may destroy what was sent.
        drain(&mut stream).await
    }
}

async fn drain(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
