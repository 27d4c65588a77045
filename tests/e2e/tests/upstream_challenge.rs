//! The conversation with HIMDS when it behaves, and when it is merely odd.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::{fs, io};

use arcbroker_e2e::{Setup, World, is_root};
use himds_sim::{Authorization, Kind};

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const ARM: &str = "https%3A%2F%2Fmanagement.azure.com%2F";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

#[tokio::test(flavor = "multi_thread")]
async fn u01_a_token_takes_two_requests_on_one_connection() {
    let world = World::start().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    let asked = world.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0].authorization, Authorization::Absent);
    assert_eq!(
        (asked[0].status, asked[0].kind),
        (Some(401), Kind::Challenge)
    );
    // Only the very bytes of the file are worth that.
    assert_eq!(asked[1].authorization, Authorization::Matched);
    assert_eq!(asked[0].key, asked[1].key);
    assert_eq!(asked[0].connection, asked[1].connection);
    for entry in &asked {
        assert_eq!(entry.method, "GET");
        assert_eq!(entry.parameter("api-version"), Some("2020-06-01"));
        assert_eq!(entry.parameter("resource"), Some("https://vault.azure.net"));
        assert_eq!(entry.query.len(), 2, "nothing that was not asked for");
        assert_eq!(entry.header("metadata"), Some("true"));
        let names: Vec<_> = entry
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let known = ["host", "user-agent", "metadata"];
        assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u01_u02_u06_what_the_rfc_and_real_agents_allow_is_accepted() {
    let world = World::with(Setup {
        policy: World::anything(),
        ..Setup::default()
    })
    .await;
    for (number, fault) in [
        "lower-case-name",
        "upper-case-name",
        "lower-case-scheme",
        "trailing-space",
        "key-newline",
        "key-size=1",
        "key-size=4096",
        "challenge-body",
        "challenge-retry-after=30",
        "first-informational=3",
        "second-informational=3",
        "wrong-audience",
        "other-tenant",
    ]
    .into_iter()
    .enumerate()
    {
        world.simulator().clear_journal();
        world.fault(fault);
        let answer = world
            .token(&format!("https%3A%2F%2Fcase-{number}.example"))
            .await;
        world.simulator().clear_faults();
        assert_eq!(
            answer.status,
            200,
            "{fault}: {answer:?}\n{}",
            world.daemon.log()
        );
        assert_eq!(world.asked().len(), 2, "{fault}");
        assert_eq!(
            world.with_key()[0].authorization,
            Authorization::Matched,
            "{fault}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hu5_a_connection_that_is_closed_after_the_challenge_is_made_anew() {
    let world = World::start().await;
    world.fault("close-after-challenge");
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "{}",
        world.daemon.log()
    );
    let asked = world.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_ne!(asked[0].connection, asked[1].connection);
    assert_eq!(
        asked[0].key, asked[1].key,
        "the key of the one challenge is used"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hu5_a_connection_that_breaks_after_the_challenge_costs_one_challenge_at_most() {
    let world = World::start().await;
    world.fault("drop-after-challenge:1");
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "{}",
        world.daemon.log()
    );
    let (asked, with_key) = (world.asked(), world.with_key());
    // Whether the end is seen before or after the key was to be sent is a matter of time.
    assert!(matches!(asked.len(), 2 | 3), "{asked:?}");
    assert_eq!(with_key.len(), 1, "{asked:?}");
    assert_ne!(with_key[0].connection, asked[0].connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn u04_a_tokens_directory_behind_a_link_may_be_called_by_either_name() {
    let mut world = World::with(Setup {
        simulator: |options| {
            // The simulator says the name with the link in it.
            let link = options.tokens_dir.with_file_name("link");
            symlink(&options.tokens_dir, &link).unwrap();
            options.tokens_dir = link;
        },
        ..Setup::default()
    })
    .await;
    world.reconfigure("/tokens\"", "/link\"").await;
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "{}",
        world.daemon.log()
    );

    let mut world = World::start().await;
    symlink(world.path("tokens"), world.path("link")).unwrap();
    world.reconfigure("/tokens\"", "/link\"").await;
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "{}",
        world.daemon.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u07_a_key_that_is_not_there_is_worth_one_more_challenge() {
    let world = World::start().await;
    world.fault("key-missing:1");
    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(
        (world.simulator().challenges(), world.with_key().len()),
        (2, 1)
    );

    world.simulator().clear_journal();
    world.fault("key-missing");
    let answer = world.token(STORAGE).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (502, "server_error")
    );
    assert_eq!(
        (world.simulator().challenges(), world.with_key().len()),
        (2, 0)
    );
    let failure = world.status().await.upstream.last_failure.unwrap();
    assert!(failure.contains("the key file is not there"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u08_a_key_that_may_not_be_read_names_the_group_and_causes_no_storm() {
    let world = World::start().await;
    world.fault("key-mode=0");
    for _ in 0..20 {
        let answer = world.token(VAULT).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (502, "server_error")
        );
    }
    assert_eq!(
        (world.simulator().challenges(), world.with_key().len()),
        (1, 0)
    );
    let failure = world.status().await.upstream.last_failure.unwrap();
    assert!(failure.contains("group himds"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u11_a_token_without_a_challenge_is_not_used() {
    let world = World::start().await;
    world.fault("direct-token");
    let answer = world.token(VAULT).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (502, "server_error")
    );
    assert!(world.with_key().is_empty());
    let status = world.status().await;
    assert!(
        status.tokens.iter().all(|token| token.expires_on.is_none()),
        "{status:?}"
    );
    let failure = status.upstream.last_failure.unwrap();
    assert!(failure.contains("without a challenge"), "{failure}");
    assert!(
        !(answer.body + &world.said().await).contains("eyJ"),
        "no token anywhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u16_a_redirect_is_not_followed() {
    let world = World::start().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let target = format!(
        "http://{}/metadata/identity/oauth2/token",
        elsewhere.local_addr().unwrap()
    );
    for (fault, resource) in [
        (format!("redirect={target}:*"), VAULT),
        (format!("second-redirect={target}:*"), STORAGE),
        ("redirect".to_owned(), ARM),
    ] {
        world.fault(&fault);
        let answer = world.token(resource).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (502, "server_error"),
            "{fault}"
        );
        world.simulator().clear_faults();
    }
    let nobody = elsewhere.accept().map_err(|error| error.kind());
    assert_eq!(nobody.map(|_| ()), Err(io::ErrorKind::WouldBlock));
    assert!(
        !world
            .simulator()
            .journal()
            .iter()
            .any(|entry| entry.path == "/redirected")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u17_proxies_of_the_environment_are_not_asked() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let names = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let mut wrapper = vec!["env".to_owned()];
    wrapper.extend(names.map(|name| format!("{name}={url}")));
    // Only what the simulator is asked counts: not where the environment says that it is.
    wrapper.push(format!(
        "IDENTITY_ENDPOINT={url}/metadata/identity/oauth2/token"
    ));
    wrapper.push(format!("IMDS_ENDPOINT={url}"));
    let world = World::with(Setup {
        wrapper,
        ..Setup::default()
    })
    .await;
    if is_root() {
        // Only root may look: the daemon may not be dumped.
        let environment = fs::read(format!("/proc/{}/environ", world.daemon.pid())).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(environment.contains(&format!("ALL_PROXY={url}")));
    }

    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(world.asked().len(), 2);
    let nobody = proxy.accept().map_err(|error| error.kind());
    assert_eq!(nobody.map(|_| ()), Err(io::ErrorKind::WouldBlock));
}
