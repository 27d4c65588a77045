use super::*;

const NOW: Now = Now {
    wall: Duration::from_secs(1_000_000),
    boot: Duration::from_secs(500),
};

fn issue(token: &str) -> Issue {
    Issue {
        access_token: Secret::from(token.to_owned()),
        expires_on: 1_003_600,
        expires_in: None,
        not_before: "999700".into(),
        client_id: None,
    }
}

fn resource() -> Resource {
    Resource::parse("https://vault.azure.net", arcbroker_policy::Cloud::Public).unwrap()
}

fn later(wall: u64, boot: u64) -> Now {
    Now {
        wall: NOW.wall + Duration::from_secs(wall),
        boot: NOW.boot + Duration::from_secs(boot),
    }
}

fn text(token: &AccessToken, now: Now) -> String {
    String::from_utf8(token.answer(now).concat()).unwrap()
}

#[test]
fn the_answer_has_the_order_and_types_that_every_sdk_accepts() {
    let token = AccessToken::new(&issue("T0K"), &resource(), NOW).unwrap();
    assert_eq!(
        text(&token, later(10, 10)),
        r#"{"access_token":"T0K","refresh_token":"","expires_in":"3590","not_before":"999700","resource":"https://vault.azure.net","token_type":"Bearer","expires_on":"1003600"}"#
    );
}

#[test]
fn a_user_assigned_identity_is_named_before_the_expiry() {
    let issue = Issue {
        client_id: Some("c".into()),
        ..issue("T0K")
    };
    let token = AccessToken::new(&issue, &resource(), NOW).unwrap();
    let text = text(&token, NOW);
    assert!(
        text.ends_with(r#""token_type":"Bearer","client_id":"c","expires_on":"1003600"}"#),
        "{text}"
    );
}

#[test]
fn the_stricter_clock_decides_what_is_left() {
    let token = AccessToken::new(&issue("T0K"), &resource(), NOW).unwrap();
    let left = |wall, boot| token.remaining(later(wall, boot)).as_secs();
    assert_eq!(left(0, 0), 3600);
    assert_eq!(left(100, 10), 3500, "the wall was set forward");
    assert_eq!(left(0, 100), 3500, "the wall was set back");
    assert_eq!(left(0, 9_999), 0);
}

#[test]
fn a_token_without_life_is_none() {
    for expires_on in [0, 999_999, 1_000_000] {
        assert!(
            AccessToken::new(
                &Issue {
                    expires_on,
                    ..issue("T")
                },
                &resource(),
                NOW
            )
            .is_none()
        );
    }
    let none_left = Issue {
        expires_in: Some(0),
        ..issue("T")
    };
    assert!(AccessToken::new(&none_left, &resource(), NOW).is_none());
    let endless = Issue {
        expires_on: u64::MAX,
        ..issue("T")
    };
    assert_eq!(
        AccessToken::new(&endless, &resource(), NOW).map(|t| t.expires_on()),
        Some(u64::MAX)
    );
}

#[test]
fn claims_are_read_and_the_shortest_life_counts() {
    let payload = URL_SAFE_NO_PAD.encode(r#"{"uti":"u1","tid":"t","aud":"a","exp":1000060}"#);
    let token = AccessToken::new(&issue(&format!("h.{payload}.s")), &resource(), NOW).unwrap();
    assert_eq!(token.claims().uti.as_deref(), Some("u1"));
    assert_eq!(token.remaining(NOW).as_secs(), 60);
    let odd = AccessToken::new(&issue("h.!!!.s"), &resource(), NOW).unwrap();
    assert!(odd.claims().uti.is_none());
}

#[test]
fn claims_name_an_identity_in_each_of_its_three_ways() {
    let id = "11111111-2222-3333-4444-555555555555";
    let claims = Claims {
        appid: Some(id.to_owned()),
        ..Claims::default()
    };
    assert!(claims.name(&Identity::client_id(&id.to_uppercase()).unwrap()));
    assert!(!claims.name(&Identity::object_id(id).unwrap()));
    assert!(!claims.name(&Identity::client_id(&id.replace('1', "6")).unwrap()));
    assert!(!claims.name(&Identity::System));
    let claims = Claims {
        oid: Some(id.to_owned()),
        ..Claims::default()
    };
    assert!(claims.name(&Identity::object_id(id).unwrap()));
    assert!(!Claims::default().name(&Identity::System));
}

#[test]
fn debug_shows_no_token() {
    let token = AccessToken::new(&issue("MARKER"), &resource(), NOW).unwrap();
    assert!(!format!("{token:?} {:?}", issue("MARKER")).contains("MARKER"));
}
