//! The control socket: faults and the journal, as HTTP on a Unix socket that only its owner may use.

use std::{
    convert::Infallible,
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::FileTypeExt as _, net},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    stat::{Mode, fchmod},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use crate::{
    fault::{Fault, FaultError},
    fault_table::Name,
    request::query_pairs,
    route::Site,
    wire::Reply,
};

/// A bound control socket; its file goes away with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    listener: Arc<UnixListener>,
}

impl ControlSocket {
    /// Binds a socket of mode 0600. One that nobody listens on any more makes room.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let explain = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("the control socket {}: {error}", path.display()),
            )
        };
        make_room(path)
            .and_then(|()| bind_private(path))
            .map_err(explain)
    }

    pub(crate) fn listener(&self) -> Arc<UnixListener> {
        Arc::clone(&self.listener)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn make_room(path: &Path) -> io::Result<()> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() || net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "is there already and in use; remove it or choose another path",
        ));
    }
    std::fs::remove_file(path)
}

fn bind_private(path: &Path) -> io::Result<ControlSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Before the bind, so that the file never has another mode: Linux takes it from the socket.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(128)?)?;
    let listener = Arc::new(UnixListener::from_std(net::UnixListener::from(socket))?);
    Ok(ControlSocket {
        path: path.to_owned(),
        listener,
    })
}

pub(crate) async fn serve(listener: Arc<UnixListener>, site: Arc<Site>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(Arc::clone(&site), stream))),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn connection(site: Arc<Site>, stream: UnixStream) {
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<Response<Full<Bytes>>, Infallible>(answer(&site, request).await.into()) }
    });
    // What goes wrong with a connection is its client's concern.
    let _ = http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(site: &Site, request: Request<Incoming>) -> Reply {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    match (path.as_str(), method) {
        ("/faults" | "/fault", Method::GET) => faults(site),
        ("/fault" | "/faults", Method::PUT) => set(site, request).await.unwrap_or_else(Reply::from),
        ("/fault" | "/faults", Method::DELETE) => {
            remove(site, request).await.unwrap_or_else(Reply::from)
        }
        ("/journal", Method::GET) => Reply::json(200, &site.journal.entries()),
        ("/journal", Method::DELETE) => {
            site.journal.clear();
            Reply::json(200, &json!([]))
        }
        ("/faults" | "/fault" | "/journal", _) => wrong(
            405,
            "write GET, PUT or DELETE for /fault, and GET or DELETE for /journal",
        ),
        _ => wrong(404, "there are only /fault, /faults and /journal"),
    }
}

/// A fault as the control socket takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    #[serde(default)]
    value: Value,
    count: Option<u32>,
}

async fn set(site: &Site, request: Request<Incoming>) -> Result<Reply, ControlError> {
    let wish: Wish = serde_json::from_slice(&body(request).await?)?;
    let value = match wish.value {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => return Err(ControlError::Kind),
    };
    let fault = Fault::new(&wish.name, value.as_deref())?;
    site.faults.set(match wish.count {
        Some(0) => return Err(ControlError::NoCount),
        Some(count) => fault.times(count),
        None => fault,
    });
    Ok(faults(site))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unwish {
    name: String,
}

async fn remove(site: &Site, request: Request<Incoming>) -> Result<Reply, ControlError> {
    let named = query_pairs(request.uri())
        .into_iter()
        .find(|(key, _)| key == "name")
        .map(|(_, name)| name);
    let body = body(request).await?;
    let name = match named {
        Some(name) => Some(name),
        None if body.is_empty() => None,
        None => Some(serde_json::from_slice::<Unwish>(&body)?.name),
    };
    match name {
        None => site.faults.clear(),
        Some(name) => site
            .faults
            .remove(Name::named(&name).ok_or(FaultError::Unknown(name))?),
    }
    Ok(faults(site))
}

fn faults(site: &Site) -> Reply {
    Reply::json(200, &site.faults.list())
}

const LARGEST_BODY: usize = 64 * 1024;

async fn body(request: Request<Incoming>) -> Result<Bytes, ControlError> {
    let body = Limited::new(request.into_body(), LARGEST_BODY)
        .collect()
        .await;
    Ok(body.map_err(|_| ControlError::Body)?.to_bytes())
}

/// Why a wish was not granted.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("the body is not {{\"name\": …, \"value\": …, \"count\": …}}: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the body broke off, or has more than 65536 bytes")]
    Body,
    #[error("`value` must be a string or a number")]
    Kind,
    #[error("`count` must be at least 1; leave it out to keep the fault until it is cleared")]
    NoCount,
    #[error(transparent)]
    Fault(#[from] FaultError),
}

impl From<ControlError> for Reply {
    fn from(error: ControlError) -> Self {
        wrong(400, &error.to_string())
    }
}

fn wrong(status: u16, error: &str) -> Reply {
    Reply::json(status, &json!({ "error": error }))
}
