//! What a peer is told for whom there is no room.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::refusal::{TOO_MANY, UNAVAILABLE};
use crate::reply::Refusal;
use crate::throttle::Limit;

/// For a peer to send its request, so that it can be told.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a peer is turned away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Farewell {
    /// Its user or its unit has too many connections.
    Crowd(Limit),
    /// The broker cannot look at it, and so can judge nobody.
    Exhausted,
}

impl Farewell {
    /// Tells the peer, once it has asked: a client does not look for an answer to a request that it could
    /// not send or has yet to send.
    pub(crate) async fn tell<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        let answer = self.answer();
        let told = async {
            let mut request = [0; 1024];
            if stream.read(&mut request).await? > 0 {
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
                while stream.read(&mut request).await? > 0 {}
            }
            io::Result::Ok(())
        };
        if !matches!(timeout(PATIENCE, told).await, Ok(Ok(()))) {
            tracing::debug!("a peer may not have heard why it was turned away");
        }
    }

    /// Before there is HTTP on this connection.
    fn answer(self) -> String {
        let refusal = match self {
            Self::Crowd(limit) => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY, limit.to_string())
            }
            Self::Exhausted => Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                UNAVAILABLE,
                "arcbroker has no file descriptors left to find out who asks. Ask again; an administrator can raise \
                 LimitNOFILE= of its service",
            ),
        };
        let reason = refusal.status.canonical_reason().unwrap_or_default();
        let code = refusal.status.as_u16();
        let body = serde_json::to_string(&refusal.answer(None)).unwrap_or_default();
        let length = body.len();
        format!(
            "HTTP/1.1 {code} {reason}\r\ncontent-type: application/json; charset=utf-8\r\nretry-after: 1\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_says_when_to_come_back_and_is_as_long_as_it_says() {
        for (why, status, key) in [
            (
                Farewell::Crowd(Limit::UserConnections),
                429,
                "connections-per-user",
            ),
            (
                Farewell::Crowd(Limit::UnitConnections),
                429,
                "connections-per-unit",
            ),
            (Farewell::Exhausted, 503, "LimitNOFILE"),
        ] {
            let answer = why.answer();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
            assert!(head.ends_with(&format!("content-length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["statusCode"], status);
            assert!(body["message"].as_str().unwrap().contains(key), "{body}");
        }
    }
}
