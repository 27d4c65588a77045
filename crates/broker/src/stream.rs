//! A connection that neither hangs on a peer that does not read nor cuts off one that still sends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

/// Bytes that are read away when a connection ends.
const LINGER: usize = 256 * 1024;

/// A Unix stream for hyper.
#[derive(Debug)]
pub struct Stream {
    io: TokioIo<UnixStream>,
    /// How long a write may wait for the peer to read.
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Wraps a stream.
    pub fn new(stream: UnixStream, stall: Duration) -> Self {
        Self {
            io: TokioIo::new(stream),
            stall,
            stalled: None,
        }
    }

    fn guard<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer does not read its answer",
        )))
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.guard(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.guard(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// On a Unix socket, bytes that nobody has read turn the close into a reset, and the peer then
/// loses the answer that tells it what was wrong. What is there by now is read away.
impl Drop for Stream {
    fn drop(&mut self) {
        let mut buffer = [0; 4096];
        let mut left = LINGER;
        while let Ok(read @ 1..) = self.io.inner().try_read(&mut buffer) {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    }
}
