//! Who asks on a program's endpoint and is not the program, and what is passed that is no listener.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use arcbroker_e2e::{PATIENCE, Program, Setup, World};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

const TOKEN: &str = "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net";

#[tokio::test(flavor = "multi_thread")]
async fn a02_a08_a09_t10_each_stray_request_is_refused_and_recorded() {
    let world = World::start().await;
    let program = Program::start(&world, &[], &[]).await;
    let host = format!("Host: {}", program.address);
    let with = format!("X-IDENTITY-HEADER: {}", program.secret);
    let wrong = format!("X-IDENTITY-HEADER: {}", "0".repeat(64));
    let rebound = format!("Host: evil.example:{}", program.address.port());
    let within = format!("/{}/metadata/identity/oauth2/token", "0".repeat(64));
    for (target, headers, status, stray) in [
        (TOKEN, vec![&*host], 401, "secret"),
        (TOKEN, vec![&host, &wrong], 401, "secret"),
        (&*within, vec![&host, "Metadata: true"], 401, "secret"),
        ("/", vec![&host], 401, "secret"),
        (TOKEN, vec![&rebound, &with], 403, "host"),
        (TOKEN, vec!["Host: 127.0.0.1", &with], 403, "host"),
        (
            TOKEN,
            vec![&host, &with, "Origin: https://evil.example"],
            403,
            "browser",
        ),
        (
            TOKEN,
            vec![&host, &with, "Sec-Fetch-Site: cross-site"],
            403,
            "browser",
        ),
        (
            TOKEN,
            vec![&host, &with, "X-Forwarded-For: 10.0.0.1"],
            400,
            "proxy",
        ),
    ] {
        let before = world.audit().len();
        let answer = program.get_bare(target, &headers).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert!(!answer.body.contains("access_token"));
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.json()["statusCode"], status);
        let records = world.audit();
        assert_eq!(records.len(), before + 1, "{headers:?}");
        let record = &records[before];
        assert_eq!(record["stray_uid"], nix::unistd::geteuid().as_raw());
        assert_eq!(
            (&record["outcome"], &record["stray"]),
            (&"denied".into(), &stray.into())
        );
        assert_eq!(record["id"], answer.json()["request_id"]);
    }
    assert_eq!(program.ask().await.status, 200);
    assert_eq!(world.simulator().tokens(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strays_does_not_fill_the_record() {
    let world = World::start().await;
    let program = Program::start(&world, &[], &[]).await;
    let mut refused = 0;
    for _ in 0..60 {
        let answer = program.get(TOKEN, &[]).await;
        match answer.status {
            401 => {}
            429 => refused += 1,
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert!(refused > 0);
    let records = world.audit().len();
    assert_eq!(records + refused, 60);
}

/// Does what `arcbroker exec` does, and passes these, of which it keeps none.
fn register(world: &World, passed: Vec<OwnedFd>) -> String {
    let mut stream = UnixStream::connect(world.token_socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /v1/endpoint HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: arcbroker-endpoint/1\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"ready\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            return String::from_utf8(head).unwrap();
        }
        head.push(byte[0]);
    }
    let numbers: Vec<_> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() {
        &[][..]
    } else {
        &control[..]
    };
    let data = [IoSlice::new(b"l")];
    sendmsg::<()>(stream.as_raw_fd(), &data, control, MsgFlags::empty(), None).unwrap();
    drop(passed);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn listener(address: &str) -> OwnedFd {
    TcpListener::bind(address).unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_tcp_listener_on_a_loopback_address_is_taken() {
    let world = World::start().await;
    let path = world.path("other.sock");
    for (passed, word) in [
        (vec![listener("127.0.0.1:0")], "\"secret\":"),
        (vec![listener("[::1]:0")], "\"secret\":"),
        (vec![listener("0.0.0.0:0")], "only 127.0.0.0/8 and ::1"),
        (
            vec![UdpSocket::bind("127.0.0.1:0").unwrap().into()],
            "not a listening TCP socket",
        ),
        (
            vec![std::os::unix::net::UnixListener::bind(path).unwrap().into()],
            "not a listening TCP socket",
        ),
        (
            vec![listener("127.0.0.1:0"), listener("127.0.0.1:0")],
            "exactly one",
        ),
        (vec![], "exactly one"),
    ] {
        let answer = register(&world, passed);
        assert!(answer.contains(word), "{word}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t42_who_passes_a_file_gets_no_endpoint_any_more() {
    let world = World::start().await;
    let program = Program::start(&world, &[], &[]).await;
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let refused = register(&world, vec![file]);
    assert!(refused.contains("not a socket"), "{refused}");
    let again = register(&world, vec![listener("127.0.0.1:0")]);
    assert!(again.starts_with("HTTP/1.1 403"), "{again}");
    assert_eq!(
        world.token("keyvault").await.status,
        200,
        "the socket serves as before"
    );
    drop(program);
}

/// A socket whose last close takes an hour, and the other end, which does not read.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (silent, _) = listener.accept().unwrap();
    let hour = libc::linger {
        l_onoff: 1,
        l_linger: 3600,
    };
    setsockopt(&client, sockopt::Linger, &hour).unwrap();
    client.set_nonblocking(true).unwrap();
    while client.write(&[0; 4096]).is_ok() {}
    (client.into(), silent)
}

#[tokio::test(flavor = "multi_thread")]
async fn t42_sockets_that_are_slow_to_close_keep_nobody_from_an_endpoint() {
    let world = World::start().await;
    let before = Program::start(&world, &[], &[]).await;
    // More than the daemon has threads for.
    let mut silent = Vec::new();
    for number in 0..100 {
        let (count, why) = if number % 2 == 0 {
            (1, "not a listening TCP socket")
        } else {
            (3, "exactly one")
        };
        let (passed, ends): (Vec<_>, Vec<_>) = (0..count).map(|_| lingering()).unzip();
        let answer = register(&world, passed);
        assert!(answer.contains(why), "{why}: {answer}");
        silent.extend(ends);
    }
    assert_eq!(before.ask().await.status, 200, "the endpoint of before");
    let after = Program::start(&world, &[], &[]).await;
    assert_eq!(after.ask().await.status, 200, "another one");
}

/// The listener stays shared with whoever passed it, who can make every accept wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_made_to_wait_holds_up_nobody_else() {
    let world = World::start().await;
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = register(&world, vec![kept.try_clone().unwrap().into()]);
    assert!(answer.contains("\"secret\":"), "{answer}");
    // The exit of this process ends it, so that it is served all the time.
    let address = kept.local_addr().unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let saboteur = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            kept.set_nonblocking(false).unwrap();
            let Ok(_client) = TcpStream::connect(address) else {
                return;
            };
            // Whoever is faster has it.
            kept.set_nonblocking(true).unwrap();
            let _taken = kept.accept();
        }
    });
    for _ in 0..50 {
        assert_eq!(world.token("keyvault").await.status, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    tokio::task::spawn_blocking(|| saboteur.join().unwrap())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_without_an_upgrade_is_explained() {
    let world = World::with(Setup::default()).await;
    let answer = world.get("/v1/endpoint").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("arcbroker exec"), "{answer:?}");
}
