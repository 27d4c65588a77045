use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;

const HIMDS: u32 = 998;
const STRANGER: u32 = 1000;
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

fn address() -> SocketAddr {
    "127.0.0.1:40342".parse().unwrap()
}

fn himds() -> Owners {
    vec![0, HIMDS].into()
}

/// Connections that never leave memory; their other ends arrive in the channel.
fn memory(
    owner: impl Fn() -> io::Result<Option<u32>> + Clone + Send + Sync + 'static,
) -> (Connector, mpsc::UnboundedReceiver<DuplexStream>) {
    let (tell, ends) = mpsc::unbounded_channel();
    let connector = Connector::from_fn(move |_| {
        let (ours, theirs) = duplex(64 * 1024);
        tell.send(theirs).unwrap();
        let owner = Box::new(owner.clone());
        let stream = Box::new(ours);
        async { Ok(Opened { stream, owner }) }
    });
    (connector, ends)
}

#[tokio::test]
async fn a_link_is_the_same_over_memory_as_over_tcp() {
    let (connector, mut ends) = memory(|| Ok(Some(HIMDS)));
    let mut link = Link::dial(&connector, address(), &himds()).await.unwrap();
    let mut end = ends.recv().await.unwrap();
    let server = tokio::spawn(async move {
        let mut request = vec![0; 4096];
        let length = end.read(&mut request).await.unwrap();
        end.write_all(ANSWER.as_bytes()).await.unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    let answer = link
        .get("/path?a=b", None, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(answer.body(), "hi");
    let request = server.await.unwrap();
    assert!(
        request.starts_with("GET /path?a=b HTTP/1.1\r\nhost: 127.0.0.1:40342\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\nmetadata: true\r\n"), "{request}");
}

#[tokio::test]
async fn a_stranger_is_sent_nothing() {
    let (connector, mut ends) = memory(|| Ok(Some(STRANGER)));
    let error = Link::dial(&connector, address(), &himds())
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Owner { uid: STRANGER, .. }),
        "{error}"
    );
    let mut sent = Vec::new();
    let mut end = ends.recv().await.unwrap();
    end.read_to_end(&mut sent).await.unwrap();
    assert!(sent.is_empty(), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_waited_for_and_no_longer_than_ten_seconds() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let third = || Ok((ASKED.fetch_add(1, Ordering::Relaxed) == 2).then_some(HIMDS));
    let (connector, _ends) = memory(third);
    Link::dial(&connector, address(), &himds()).await.unwrap();
    assert_eq!(ASKED.load(Ordering::Relaxed), 3);

    let (connector, _ends) = memory(|| Ok(None));
    let error = Link::dial(&connector, address(), &himds())
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Slow { limit, .. } if limit == ACCEPT),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_closes_before_it_has_an_owner_is_closed() {
    let (connector, mut ends) = memory(|| Ok(None));
    let address = address();
    let owners = himds();
    let dial = Link::dial(&connector, address, &owners);
    let close = async { drop(ends.recv().await) };
    let (result, ()) = tokio::join!(dial, close);
    let error = result.unwrap_err();
    assert!(matches!(error, DialError::Closed(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_way_of_connecting_may_take_longer_than_a_second() {
    let connector = Connector::from_fn(|_| pending());
    let error = Link::dial(&connector, address(), &himds())
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Slow { limit, .. } if limit == Duration::from_secs(1)),
        "{error}"
    );
}

#[test]
fn the_host_header_has_a_port_where_it_is_not_that_of_http() {
    for (address, expected) in [
        ("169.254.169.254:80", "169.254.169.254"),
        ("127.0.0.1:40342", "127.0.0.1:40342"),
        ("[::1]:80", "[::1]"),
        ("[::1]:8080", "[::1]:8080"),
    ] {
        assert_eq!(host(address.parse().unwrap()), expected);
    }
}

#[tokio::test]
async fn a_request_that_never_left_is_told_from_one_that_may_have_arrived() {
    let (connector, mut ends) = memory(|| Ok(Some(HIMDS)));
    let mut link = Link::dial(&connector, address(), &himds()).await.unwrap();
    let mut end = ends.recv().await.unwrap();
    let server = tokio::spawn(async move {
        let mut request = vec![0; 4096];
        assert!(end.read(&mut request).await.unwrap() > 0);
        end.write_all(ANSWER.as_bytes()).await.unwrap();
    });
    let limit = Duration::from_secs(30);
    link.get("/", None, limit).await.unwrap();
    // Closed without a word after its answer.
    server.await.unwrap();
    let error = link.get("/", None, limit).await.unwrap_err();
    assert!(matches!(error, DialError::Closed(_)), "{error:?}");

    let mut link = Link::dial(&connector, address(), &himds()).await.unwrap();
    let mut end = ends.recv().await.unwrap();
    let server = tokio::spawn(async move {
        let mut request = vec![0; 4096];
        assert!(end.read(&mut request).await.unwrap() > 0);
    });
    let error = link.get("/", None, limit).await.unwrap_err();
    server.await.unwrap();
    assert!(matches!(error, DialError::Http { .. }), "{error:?}");
}
