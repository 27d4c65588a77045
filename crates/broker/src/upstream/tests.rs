use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Locked};

use arcbroker_policy::{Cloud, Resource};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::challenge::KeyFiles;
use crate::clock::Now;
use crate::dial::Opened;
use crate::token::Class;

const HIMDS: u32 = 998;

fn clock() -> Clock {
    Clock::from_fn(|| Now {
        wall: Duration::from_secs(1_000_000),
        boot: Duration::from_secs(500),
    })
}

fn options(kind: Kind, root: PathBuf) -> Options {
    Options {
        choice: Choice::configured(kind),
        root,
        himds: Himds {
            endpoint: "127.0.0.1:40342".parse().unwrap(),
            owners: vec![0, HIMDS].into(),
            keys: KeyFiles {
                dir: PathBuf::from("/nowhere"),
                owners: vec![0, HIMDS].into(),
            },
        },
        imds: Imds {
            endpoint: SocketAddr::new(imds::ADDRESS, 80),
            owners: vec![0, HIMDS].into(),
        },
    }
}

fn wanted(identity: Identity) -> Wanted {
    let key = Key {
        identity,
        resource: Resource::parse("https://vault.azure.net", Cloud::Public).unwrap(),
    };
    Wanted { key, bypass: false }
}

#[test]
fn the_request_names_exactly_what_is_asked_for() {
    let target = |identity: Identity| target(Kind::Himds, &wanted(identity));
    let plain = "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net";
    assert_eq!(target(Identity::System), plain);
    let id = "resource-id:/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    assert!(
        target(id.parse().unwrap())
            .starts_with(&format!("{plain}&msi_res_id=%2Fsubscriptions%2Fs%2F")),
        "U13"
    );
    let past = Wanted {
        bypass: true,
        ..wanted(Identity::System)
    };
    let imds = super::target(Kind::Imds, &past);
    assert_eq!(
        imds,
        plain.replace("2020-06-01", "2018-02-01") + "&bypass_cache=true"
    );
}

/// What was sent over connections of which the other end answers each request the same.
#[derive(Clone, Default)]
struct Wiretap {
    heard: Arc<Locked<Vec<(SocketAddr, String)>>>,
    owner_asked: Arc<AtomicUsize>,
}

impl Wiretap {
    fn connector(&self, answer: &'static str) -> Connector {
        let tap = self.clone();
        Connector::from_fn(move |address| {
            let (ours, theirs) = duplex(64 * 1024);
            let (tap, asked) = (tap.clone(), Arc::clone(&tap.owner_asked));
            tokio::spawn(async move { tap.serve(theirs, address, answer).await });
            let owner = move || {
                asked.fetch_add(1, Ordering::Relaxed);
                Ok(Some(HIMDS))
            };
            async {
                Ok(Opened {
                    stream: Box::new(ours),
                    owner: Box::new(owner),
                })
            }
        })
    }

    async fn serve(&self, mut end: DuplexStream, address: SocketAddr, answer: &str) {
        let mut request = vec![0; 8192];
        while let Ok(length @ 1..) = end.read(&mut request).await {
            let text = String::from_utf8(request[..length].to_vec()).unwrap();
            self.heard.lock().unwrap().push((address, text));
            end.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    fn heard(&self) -> Vec<(SocketAddr, String)> {
        self.heard.lock().unwrap().clone()
    }
}

fn ok(body: &serde_json::Value) -> &'static str {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .leak()
}

#[tokio::test]
async fn u19_imds_is_asked_once_without_a_challenge_and_nobody_for_its_owner() {
    let tap = Wiretap::default();
    let answer = ok(
        &json!({ "access_token": "a.token.of.twenty.bytes", "expires_on": "1086400",
            "resource": "https://vault.azure.net", "token_type": "Bearer" }),
    );
    let options = options(Kind::Imds, "/nowhere".into());
    let upstream = Upstream::new(options, tap.connector(answer), clock());
    upstream.fetch(&wanted(Identity::System)).await.unwrap();
    let heard = tap.heard();
    let [(address, request)] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert_eq!(address.to_string(), "169.254.169.254:80");
    assert!(
        request.starts_with("GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net HTTP/1.1\r\nhost: 169.254.169.254\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\nmetadata: true\r\n"), "{request}");
    let lower = request.to_lowercase();
    for header in ["forwarded", "authorization", "proxy"] {
        assert!(!lower.contains(header), "{request}");
    }
    assert_eq!(tap.owner_asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_stand_in_for_imds_on_loopback_must_be_held_by_an_owner() {
    let tap = Wiretap::default();
    let mut options = options(Kind::Imds, "/nowhere".into());
    options.imds.endpoint = "127.0.0.1:80".parse().unwrap();
    options.imds.owners = vec![0].into();
    let upstream = Upstream::new(options, tap.connector("x"), clock());
    let error = upstream.fetch(&wanted(Identity::System)).await.unwrap_err();
    assert_eq!(error.class, Class::Hostile);
    assert_eq!(
        &*error.detail,
        "IMDS: 127.0.0.1:80 is held by uid 998, whom `owners` in the configuration does not name; nothing was sent to it"
    );
    assert!(tap.heard().is_empty());
}

#[tokio::test]
async fn u20_what_imds_answers_while_it_is_updated_or_busy_is_never_final() {
    for (status, class) in [
        (404, Class::Server),
        (410, Class::Upgrading),
        (429, Class::Throttled),
        (500, Class::Server),
        (503, Class::Server),
        (400, Class::Permanent),
        (401, Class::Refused),
        (403, Class::Refused),
        (405, Class::Permanent),
        (421, Class::Permanent),
    ] {
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").leak();
        let options = options(Kind::Imds, "/nowhere".into());
        let upstream = Upstream::new(options, Wiretap::default().connector(answer), clock());
        let error = upstream.fetch(&wanted(Identity::System)).await.unwrap_err();
        assert_eq!(error.class, class, "{status}");
        assert!(error.detail.starts_with("IMDS answered"), "{error}");
        let is_left_alone = error.retry_after.is_some();
        assert_eq!(is_left_alone, matches!(status, 401 | 403 | 429), "{status}");
    }
}

#[tokio::test]
async fn documents_of_imds_are_asked_for_in_a_version_that_names_the_cloud() {
    let tap = Wiretap::default();
    let options = options(Kind::Imds, "/nowhere".into());
    let upstream = Upstream::new(options, tap.connector(ok(&json!({}))), clock());
    upstream.document("/metadata/instance").await.unwrap();
    let heard = tap.heard();
    assert!(
        heard[0]
            .1
            .starts_with("GET /metadata/instance?api-version=2020-06-01 "),
        "{heard:?}"
    );
}

#[tokio::test]
async fn an_agent_that_comes_later_is_found_until_something_has_answered() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(Kind::Himds, root.path().to_owned());
    options.choice = Choice::undecided();
    let down = Connector::from_fn(|address| async move { Err(DialError::Down(address)) });
    let upstream = Upstream::new(options, down, clock());
    upstream.look_again().await;
    assert_eq!(upstream.choice(), Choice::undecided());

    let units = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    std::fs::write(units.join("himdsd.service"), "").unwrap();
    upstream.look_again().await;
    let found = upstream.choice();
    assert!(found.is_settled() && found.kind == Kind::Himds, "{found:?}");
    std::fs::remove_file(units.join("himdsd.service")).unwrap();
    upstream.look_again().await;
    assert_eq!(upstream.choice(), found, "what is settled stays");
}

#[tokio::test]
async fn only_an_owner_on_himdss_port_is_a_sign_of_himds() {
    let root = tempfile::tempdir().unwrap();
    for (owners, kind) in [(vec![0, HIMDS], Kind::Himds), (vec![0], Kind::Imds)] {
        let chassis = root.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&chassis).unwrap();
        std::fs::write(
            chassis.join("chassis_asset_tag"),
            "7783-7084-3265-9085-8269-3286-77\n",
        )
        .unwrap();
        let mut options = options(Kind::Himds, root.path().to_owned());
        options.choice = Choice::undecided();
        options.himds.owners = owners.into();
        let tap = Wiretap::default();
        options.decide(&tap.connector("x")).await;
        assert_eq!(options.choice.kind, kind);
        assert!(tap.heard().is_empty(), "it is looked at, and sent nothing");
    }
}
