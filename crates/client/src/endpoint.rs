//! Getting an endpoint: the one request that hands something over.

use std::{
    io::{self, IoSlice},
    net::TcpListener,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use hyper::{
    Method, StatusCode,
    client::conn::http1,
    header::{CONNECTION, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest},
    net::UnixStream,
};
use zeroize::Zeroizing;

use crate::{
    Error,
    transport::{Answer, Transport, request},
    wire::{ENDPOINT_PROTOCOL, EndpointAnswer, ErrorAnswer, Lifetime, READY, path},
};

/// Between tries while the broker is being replaced.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// Bytes of the longest line that is read.
const MAX_LINE: u64 = 64 * 1024;

impl Transport {
    /// Passes a listener, and gets to know what the broker serves on it.
    pub(crate) async fn endpoint(
        &self,
        listener: &TcpListener,
        lifetime: Lifetime,
    ) -> Result<EndpointAnswer, Error> {
        let mut pauses = PAUSES.into_iter();
        let exchange = async {
            loop {
                let result = match self.upgrade(lifetime).await {
                    Ok(stream) => hand_over(stream, listener).await,
                    Err(error) => Err(error),
                };
                // A broker that ends is followed by another one.
                match (result, pauses.next()) {
                    (Err(error), Some(pause)) if is_of_the_moment(&error) => {
                        tokio::time::sleep(pause).await;
                    }
                    (result, _) => return result,
                }
            }
        };
        self.within_deadline(exchange).await
    }

    async fn upgrade(&self, lifetime: Lifetime) -> Result<UnixStream, Error> {
        let http = |_| Error::Protocol("it is not HTTP");
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(stream).await.map_err(http)?;
        tokio::spawn(async { connection.with_upgrades().await.unwrap_or_default() });
        let target = format!("{}?lifetime={lifetime}", path::ENDPOINT);
        let target = target
            .parse()
            .map_err(|_| Error::Protocol("its path cannot be asked for"))?;
        let mut request = request(&Method::GET, target);
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(ENDPOINT_PROTOCOL));
        let response = sender
            .send_request(request)
            .await
            .map_err(|_| self.hung_up())?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match Answer::read(response).await?.decode() {
                Ok::<serde_json::Value, _>(_) => Error::Protocol("it gives no endpoints"),
                Err(error) => error,
            });
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(http)?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| Error::Protocol("its connection is no Unix socket"))?;
        let mut stream = parts.io.into_inner();
        // Hyper may have read some of it.
        let mut ready = parts.read_buf.to_vec();
        while ready.len() < READY.len() {
            match stream.read_buf(&mut ready).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(self.hung_up()),
            }
        }
        if ready == READY.as_bytes() {
            Ok(stream)
        } else {
            Err(Error::Protocol("it does not ask for the listener"))
        }
    }
}

fn is_of_the_moment(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } => true,
        Error::Unreachable { source, .. } => source.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

async fn hand_over(stream: UnixStream, listener: &TcpListener) -> Result<EndpointAnswer, Error> {
    let passed: [RawFd; 1] = [listener.as_raw_fd()];
    let sent = stream.async_io(Interest::WRITABLE, || {
        let control = [ControlMessage::ScmRights(&passed)];
        let data = [IoSlice::new(b"l")];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        Ok(sendmsg::<()>(
            stream.as_raw_fd(),
            &data,
            &control,
            flags,
            None,
        )?)
    });
    sent.await
        .map_err(|_| Error::Protocol("it does not take the listener"))?;
    let mut line = Zeroizing::new(Vec::with_capacity(1024));
    let mut answer = BufReader::new(stream).take(MAX_LINE);
    let read = answer.read_until(b'\n', &mut line).await;
    read.map_err(|_| Error::Protocol("it closed the connection without an answer"))?;
    if line.is_empty() {
        return Err(Error::Unavailable {
            retry_after: None,
            description: "the broker ended before it answered".to_owned(),
            request_id: None,
        });
    }
    if let Ok(answer) = serde_json::from_slice(&line) {
        return Ok(answer);
    }
    match serde_json::from_slice::<ErrorAnswer>(&line) {
        Ok(refusal) if refusal.status_code >= 500 => Err(Error::Unavailable {
            retry_after: None,
            description: refusal.error_description,
            request_id: refusal.request_id,
        }),
        Ok(refusal) => Err(Error::BadRequest {
            description: refusal.error_description,
            request_id: refusal.request_id,
        }),
        Err(_) => Err(Error::Protocol("its content is not what was asked for")),
    }
}
