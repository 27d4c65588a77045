//! Faults of the 401 answer.

use crate::support::World;

/// The header of the challenge under a fault.
async fn challenge_header(fault: &str) -> (World, String) {
    let world = World::faulty(fault).await;
    let header = world.challenge().await.header("www-authenticate").unwrap();
    (world, header)
}

/// The only file in the tokens directory.
fn only_file(world: &World) -> String {
    let files = world.key_files();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn h30_the_scheme_is_another_one() {
    for (fault, start) in [
        ("other-scheme", "Bearer realm=/"),
        ("other-scheme=Negotiate", "Negotiate realm=/"),
        ("lower-case-scheme", "basic realm=/"),
        ("two-spaces", "Basic  realm=/"),
        ("quoted-realm", "Basic realm=\"/"),
    ] {
        let (_world, header) = challenge_header(fault).await;
        assert!(header.starts_with(start), "{fault}: {header}");
    }
}

#[tokio::test]
async fn h30_the_header_has_more_than_the_realm() {
    for (fault, end) in [
        ("second-parameter", ".key, charset=\"UTF-8\""),
        ("trailing-space", ".key "),
        ("quoted-realm", ".key\""),
    ] {
        let (_world, header) = challenge_header(fault).await;
        assert!(header.ends_with(end), "{fault}: {header}");
    }
}

#[tokio::test]
async fn h30_the_header_is_missing_or_there_twice() {
    let world = World::faulty("no-challenge-header").await;
    let answer = world.challenge().await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, None)
    );

    let world = World::faulty("two-challenge-headers:1").await;
    let headers = world.challenge().await.all("www-authenticate");
    assert_eq!(headers.len(), 2);
    for header in headers {
        let key = std::fs::read_to_string(header.strip_prefix("Basic realm=").unwrap()).unwrap();
        assert_eq!(world.redeem(&key).await.status, 200);
    }
}

#[tokio::test]
async fn h30_the_headers_name_is_written_otherwise() {
    for (fault, name) in [
        ("lower-case-name", "www-authenticate"),
        ("upper-case-name", "WWW-AUTHENTICATE"),
    ] {
        let world = World::faulty(fault).await;
        let answer = world.challenge().await;
        assert!(
            answer.headers.iter().any(|(key, _)| key == name),
            "{answer:?}"
        );
        assert_eq!(world.redeem(&answer.key()).await.status, 200);
    }
}

#[tokio::test]
async fn a_bad_key_is_not_challenged_again() {
    let world = World::faulty("bad-key-status=401:1").await;
    assert_eq!(world.token().await.status, 200, "a good key is not struck");
    let answer = world.redeem("wrong").await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, None)
    );
    assert!(world.redeem("wrong").await.realm().exists());
}

#[tokio::test]
async fn the_401_has_a_huge_header_another_body_or_a_retry_after() {
    let world = World::faulty("huge-header").await;
    assert_eq!(
        world.challenge().await.header("x-huge").unwrap().len(),
        65_536
    );
    let world = World::faulty("challenge-body=nothing to see").await;
    assert_eq!(world.challenge().await.body, b"nothing to see");
    let world = World::faulty("challenge-body").await;
    assert!(world.challenge().await.body.is_empty());
    let world = World::faulty("challenge-retry-after=Thu, 01 Jan 2037 00:00:00 GMT").await;
    assert_eq!(
        world.challenge().await.header("retry-after").unwrap(),
        "Thu, 01 Jan 2037 00:00:00 GMT"
    );
}

#[tokio::test]
async fn h30_the_realm_is_any_text() {
    for realm in [
        "",
        "/etc/passwd",
        "relative.key",
        "/a/../b.key",
        "/x.key\u{e9}",
        "/100%25.key",
        "a=b",
        "/with space.key",
    ] {
        let (world, header) = challenge_header(&format!("realm={realm}:*")).await;
        assert_eq!(header, format!("Basic realm={realm}"));
        only_file(&world);
    }
}

#[tokio::test]
async fn h30_the_realm_leads_to_the_good_file_on_a_forbidden_way() {
    let (world, header) = challenge_header("realm-dotdot").await;
    let realm = header.strip_prefix("Basic realm=").unwrap();
    assert!(realm.contains("/tokens/../tokens/"), "{realm}");
    let key = std::fs::read_to_string(realm).unwrap();
    assert_eq!(
        world.redeem(&key).await.status,
        200,
        "a client that follows it gets a token"
    );

    let (world, header) = challenge_header("realm-relative").await;
    assert_eq!(
        format!("/{}", header.strip_prefix("Basic realm=").unwrap()),
        only_file(&world)
    );

    let (world, header) = challenge_header("realm-nul").await;
    assert_eq!(
        header
            .strip_prefix("Basic realm=")
            .unwrap()
            .replace('\0', ""),
        only_file(&world)
    );
    assert!(header.ends_with("\0.key"));
}

#[tokio::test]
async fn h30_the_key_is_in_another_directory_or_of_another_kind() {
    let world = World::faulty("realm-other-directory").await;
    let answer = world.challenge().await;
    assert_eq!(answer.realm().parent().unwrap(), world.dir.path());
    assert!(world.key_files().is_empty());
    assert_eq!(world.redeem(&answer.key()).await.status, 200);

    let elsewhere = tempfile::tempdir().unwrap();
    let world = World::faulty(&format!(
        "realm-other-directory={}",
        elsewhere.path().display()
    ))
    .await;
    let answer = world.challenge().await;
    assert_eq!(answer.realm().parent().unwrap(), elsewhere.path());
    assert_eq!(world.redeem(&answer.key()).await.status, 200);
    assert!(!answer.realm().exists(), "it is removed there as well");

    for (fault, extension) in [("realm-extension", "txt"), ("realm-extension=KEY", "KEY")] {
        let world = World::faulty(fault).await;
        let answer = world.challenge().await;
        assert_eq!(answer.realm().extension().unwrap(), extension);
        assert_eq!(world.redeem(&answer.key()).await.status, 200);
    }
}
