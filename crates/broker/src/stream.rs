//! A connection that neither hangs on a peer that does not read nor cuts off one that still sends.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};

/// Bytes that are read away when a connection ends.
const LINGER: usize = 256 * 1024;

/// A stream of the operating system.
pub trait Socket:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + AsFd + Unpin + Send + 'static
{
    /// Reads what is there by now.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A stream for hyper.
#[derive(Debug)]
pub struct Stream<S: Socket> {
    io: TokioIo<S>,
    /// How long a write may wait for the peer to read.
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: Socket> Stream<S> {
    /// Wraps a stream.
    pub fn new(stream: S, stall: Duration) -> Self {
        Self {
            io: TokioIo::new(stream),
            stall,
            stalled: None,
        }
    }

    /// The stream.
    pub fn socket(&mut self) -> &mut S {
        self.io.inner_mut()
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

impl Socket for UnixStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::try_read(self, buffer)
    }
}

impl Socket for TcpStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::try_read(self, buffer)
    }
}

impl<S: Socket> Read for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: Socket> Write for Stream<S> {
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

/// Bytes that nobody has read turn the close of a socket into a reset, and the peer then
/// loses the answer that tells it what was wrong. What is there by now is read away.
impl<S: Socket> Drop for Stream<S> {
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
