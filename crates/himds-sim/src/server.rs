//! Listening, accepting, and one task for each connection.

use std::{
    convert::Infallible,
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    fault::Draw,
    fault_table::Name,
    route::{self, Site},
    wire::{Script, Sent},
};

const BACKLOG: u32 = 1024;

/// Listens on the address, and on `[::1]` with the same port where that is wanted.
pub(crate) fn bind(address: SocketAddr, ipv6: bool) -> io::Result<Vec<TcpListener>> {
    let mut attempts = 0;
    loop {
        let main = listen(address)?;
        if !ipv6 {
            return Ok(vec![main]);
        }
        let port = main.local_addr()?.port();
        match listen(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
            Ok(second) => return Ok(vec![main, second]),
            // The free port of the one may be taken on the other.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && address.port() == 0
                    && attempts < 20 =>
            {
                attempts += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let explain = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // So that the port of a simulator that was stopped can be taken again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address).map_err(explain)?;
    socket.listen(BACKLOG).map_err(explain)
}

/// Accepts until it is told to stop; then all connections end at once.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    site: Arc<Site>,
    numbers: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = told_to(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
                    connections.spawn(connection(Arc::clone(&site), number, stream));
                }
                Err(error) if is_the_clients(&error) => {}
                // Out of descriptors or memory: trying at once would only burn a core.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn told_to(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say it.
    drop(stop.wait_for(|stop| *stop).await);
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn connection(site: Arc<Site>, number: u64, stream: TcpStream) {
    let mut draw = Draw::new(&site.faults);
    if draw.hits(Name::ResetOnAccept) {
        // A connection that is gone already needs no reset.
        let _ = stream.set_zero_linger();
        return;
    }
    if draw.hits(Name::NeverRead) {
        std::future::pending::<()>().await;
    }
    let _ = stream.set_nodelay(true);
    converse(site, number, stream).await;
}

/// Serves requests until the client goes, or until an answer is one that hyper cannot write: then
/// the stream is taken from hyper and the rest of its life is the script's.
async fn converse(site: Arc<Site>, number: u64, stream: TcpStream) {
    let (scripts, mut script) = mpsc::channel::<Script>(1);
    let service = service_fn(move |request| {
        let (site, scripts) = (Arc::clone(&site), scripts.clone());
        async move {
            let sent = {
                let _inside = site.crowd.enter();
                route::answer(&site, number, request).await
            };
            match sent {
                Sent::Whole(reply) => Ok::<Response<Full<Bytes>>, Infallible>(reply.into()),
                Sent::Raw(script) => {
                    let _ = scripts.send(script).await;
                    std::future::pending().await
                }
            }
        }
    });
    let mut connection = http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let script = tokio::select! {
        // What goes wrong with a connection is its client's concern, or a test's.
        _ = &mut connection => return,
        script = script.recv() => script,
    };
    if let Some(script) = script {
        let stream = connection.into_parts().io.into_inner();
        let _ = script.play(stream).await;
    }
}
