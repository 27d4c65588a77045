use arcbroker_client::Secret;
use arcbroker_policy::{Cloud, Resource};

use super::*;
use crate::token::{Class, Issue};

const DAY: u64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(20);

fn at(seconds: u64) -> Now {
    Now {
        wall: Duration::from_secs(1_000_000 + seconds),
        boot: Duration::from_secs(seconds),
    }
}

fn token(name: &str, received: u64, expires: u64) -> AccessToken {
    let issue = Issue {
        access_token: Secret::from(name.to_owned()),
        expires_on: 1_000_000 + expires,
        expires_in: None,
        not_before: String::new(),
        client_id: None,
    };
    let resource = Resource::parse("https://vault.azure.net", Cloud::Public).unwrap();
    AccessToken::new(&issue, &resource, at(received)).unwrap()
}

fn with_token(received: u64, expires: u64) -> Slot {
    let mut slot = Slot::default();
    land(
        &mut slot,
        Ok(token("first", received, expires)),
        at(received),
        1.0,
    );
    slot
}

fn land(slot: &mut Slot, result: Result<AccessToken, FetchError>, now: Now, jitter: f64) {
    let errand = slot.errand(now);
    slot.land(errand, result, now, jitter);
}

fn failure(class: Class) -> Result<AccessToken, FetchError> {
    Err(FetchError::new(class, "no"))
}

#[test]
fn an_empty_slot_waits_for_a_fetch() {
    assert!(matches!(
        Slot::default().plan(at(0), false, PATIENCE, Wish::default()),
        Plan::Wait(PATIENCE)
    ));
}

#[test]
fn a_token_is_served_alone_until_half_of_its_life_and_refreshed_behind_the_answer_after() {
    let mut slot = with_token(0, DAY);
    assert!(matches!(
        slot.plan(at(DAY / 2 - 1), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(DAY / 2), false, PATIENCE, Wish::default()),
        Plan::ServeAndRefresh(_)
    ));
    assert!(matches!(
        slot.plan(at(DAY / 2), true, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
}

#[test]
fn jitter_moves_the_refresh_by_a_tenth_of_the_half_life() {
    for (jitter, first_due) in [(0.9, 45 * DAY / 100), (1.1, 55 * DAY / 100)] {
        let mut slot = Slot::default();
        land(&mut slot, Ok(token("t", 0, DAY)), at(0), jitter);
        assert!(!slot.is_due(at(first_due - 2), Duration::MAX), "{jitter}");
        assert!(slot.is_due(at(first_due + 2), Duration::MAX), "{jitter}");
    }
}

#[test]
fn below_the_soft_floor_a_request_waits_but_never_past_the_hard_floor() {
    let mut slot = with_token(0, DAY);
    assert!(matches!(
        slot.plan(at(DAY - 299), false, PATIENCE, Wish::default()),
        Plan::Wait(PATIENCE)
    ));
    let Plan::Wait(most) = slot.plan(at(DAY - 65), true, PATIENCE, Wish::default()) else {
        panic!("waits")
    };
    assert_eq!(most, Duration::from_secs(5));
}

#[test]
fn below_the_hard_floor_there_is_no_token() {
    let mut slot = with_token(0, DAY);
    assert!(slot.token(at(DAY - 60)).is_some());
    assert!(slot.token(at(DAY - 59)).is_none());
    assert!(matches!(
        slot.plan(at(DAY - 59), false, PATIENCE, Wish::default()),
        Plan::Wait(PATIENCE)
    ));
}

#[test]
fn a_failed_refresh_takes_nothing_away_and_delays_the_next() {
    let mut slot = with_token(0, DAY);
    land(&mut slot, failure(Class::Server), at(DAY / 2), 1.0);
    assert!(matches!(
        slot.plan(at(DAY / 2 + 1), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(DAY / 2 + 2), false, PATIENCE, Wish::default()),
        Plan::ServeAndRefresh(_)
    ));
}

#[test]
fn the_gap_between_refreshes_doubles_up_to_half_a_minute() {
    let mut slot = with_token(0, DAY);
    let mut now = DAY / 2;
    for gap in [1, 2, 4, 8, 16, 30, 30] {
        land(&mut slot, failure(Class::Down), at(now), 1.0);
        assert!(!slot.is_due(at(now + gap - 1), Duration::MAX), "{gap}");
        now += gap;
        assert!(slot.is_due(at(now), Duration::MAX), "{gap}");
    }
}

#[test]
fn a_failure_is_repeated_until_its_time_is_over() {
    for (class, seconds) in [(Class::Down, 1), (Class::Server, 2), (Class::Permanent, 60)] {
        let mut slot = Slot::default();
        land(&mut slot, failure(class), at(100), 1.0);
        let Plan::Refuse(error) = slot.plan(at(100), false, PATIENCE, Wish::default()) else {
            panic!("{class:?}")
        };
        assert_eq!(error.retry_after, Some(Duration::from_secs(seconds)));
        assert!(
            matches!(
                slot.plan(at(100 + seconds), false, PATIENCE, Wish::default()),
                Plan::Wait(_)
            ),
            "{class:?}"
        );
    }
}

#[test]
fn upstream_is_left_alone_for_as_long_as_it_asks() {
    let mut slot = Slot::default();
    let error = FetchError {
        retry_after: Some(Duration::from_secs(77)),
        ..FetchError::new(Class::Throttled, "")
    };
    land(&mut slot, Err(error), at(0), 1.0);
    assert!(matches!(
        slot.plan(at(76), false, PATIENCE, Wish::default()),
        Plan::Refuse(_)
    ));
    assert!(matches!(
        slot.plan(at(77), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn the_same_token_again_does_not_loop() {
    let mut slot = with_token(0, 900);
    land(&mut slot, Ok(token("again", 500, 903)), at(500), 1.0);
    assert!(matches!(
        slot.plan(at(559), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(561), false, PATIENCE, Wish::default()),
        Plan::ServeAndRefresh(_)
    ));
}

#[test]
fn i12_the_same_token_past_the_cache_is_asked_for_again_before_requests_wait() {
    let mut slot = with_token(0, 900);
    land(&mut slot, Ok(token("first", 310, 900)), at(310), 1.0);
    let errand = slot.errand(at(371));
    assert!(errand.bypass, "less than ten minutes are left");
    slot.land(errand, Ok(token("first", 371, 900)), at(371), 1.0);
    // 529 s are left, and 229 s until requests wait.
    for (seconds, due) in [(480, false), (486, true)] {
        let plan = slot.plan(at(seconds), false, PATIENCE, Wish::default());
        assert_eq!(matches!(plan, Plan::ServeAndRefresh(_)), due, "{seconds}");
    }
}

#[test]
fn a_token_that_ends_sooner_does_not_replace_one_that_ends_later() {
    let mut slot = with_token(0, DAY);
    land(&mut slot, Ok(token("worse", 10, 3600)), at(10), 1.0);
    assert_eq!(slot.token(at(10)).unwrap().expires_on(), 1_000_000 + DAY);
    land(&mut slot, Ok(token("better", 20, 2 * DAY)), at(20), 1.0);
    assert_eq!(
        slot.token(at(20)).unwrap().expires_on(),
        1_000_000 + 2 * DAY
    );
}

#[test]
fn a_token_that_is_short_from_the_start_is_served_until_half_of_it_is_gone() {
    let mut slot = with_token(0, 240);
    assert!(matches!(
        slot.plan(at(100), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(130), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn b17_a_short_token_is_replaced_as_soon_as_it_is_below_the_floor() {
    let mut slot = with_token(0, 310);
    assert!(matches!(
        slot.plan(at(9), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(11), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn only_what_was_asked_for_lately_is_refreshed() {
    let mut slot = with_token(0, 3 * DAY);
    slot.plan(at(0), false, PATIENCE, Wish::default());
    let due = 3 * DAY / 2;
    assert!(slot.is_due(at(due), Duration::from_secs(due)));
    assert!(!slot.is_due(at(due), Duration::from_secs(due - 1)));
}

fn refused(slot: &mut Slot, now: u64) -> Wish {
    Wish {
        not: slot.token(at(now)).map(|token| token.digest()),
        bypass: false,
    }
}

#[test]
fn b20_the_digest_of_the_token_that_is_there_has_upstream_asked_past_its_cache() {
    let mut slot = with_token(0, DAY);
    let wish = refused(&mut slot, 100);
    assert!(!slot.errand(at(100)).bypass);
    assert!(matches!(
        slot.plan(at(100), false, PATIENCE, wish),
        Plan::Wait(PATIENCE)
    ));
    assert!(slot.errand(at(100)).bypass);
    let others = slot.plan(at(100), true, PATIENCE, Wish::default());
    assert!(matches!(others, Plan::Serve(_)), "others have no complaint");
    land(&mut slot, Ok(token("better", 100, 3600)), at(100), 1.0);
    assert_eq!(
        slot.token(at(100)).unwrap().expires_on(),
        1_003_600,
        "it replaces the refused one although it ends sooner"
    );
    assert!(!slot.errand(at(100)).bypass);
}

#[test]
fn b21_another_digest_costs_nothing() {
    let mut slot = with_token(0, DAY);
    let wish = Wish {
        not: Some(Digest::of(b"another")),
        bypass: false,
    };
    assert!(matches!(
        slot.plan(at(100), false, PATIENCE, wish),
        Plan::Serve(_)
    ));
    assert!(!slot.errand(at(100)).bypass);
}

#[test]
fn an_agent_that_ignores_the_bypass_is_not_asked_again_and_again() {
    let mut slot = with_token(0, DAY);
    let wish = refused(&mut slot, 100);
    slot.plan(at(100), false, PATIENCE, wish);
    land(&mut slot, Ok(token("first", 100, DAY)), at(100), 1.0);
    for now in [100, 130, 159] {
        let plan = slot.plan(at(now), false, PATIENCE, wish);
        assert!(matches!(plan, Plan::Serve(_)), "{now}: {plan:?}");
    }
    assert!(matches!(
        slot.plan(at(160), false, PATIENCE, wish),
        Plan::Wait(_)
    ));
}

#[test]
fn who_knows_that_the_token_was_refused_gets_no_other_word_than_the_failure() {
    let mut slot = with_token(0, DAY);
    let wish = refused(&mut slot, 100);
    slot.plan(at(100), false, PATIENCE, wish);
    land(&mut slot, failure(Class::Down), at(100), 1.0);
    assert!(matches!(
        slot.plan(at(100), false, PATIENCE, wish),
        Plan::Refuse(_)
    ));
    assert!(matches!(
        slot.plan(at(100), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(101), false, PATIENCE, wish),
        Plan::Wait(_)
    ));
    assert!(slot.errand(at(101)).bypass, "upstream was not asked yet");
}

#[test]
fn an_agent_that_refuses_the_bypass_is_asked_without_it_the_next_time() {
    let mut slot = with_token(0, DAY);
    let wish = refused(&mut slot, 100);
    slot.plan(at(100), false, PATIENCE, wish);
    land(&mut slot, failure(Class::Permanent), at(100), 1.0);
    assert!(!slot.errand(at(200)).bypass);
}

#[test]
fn b22_a_wish_for_a_new_token_waits_for_no_longer_than_the_old_one_lives() {
    let mut slot = with_token(0, DAY);
    let wish = Wish {
        not: None,
        bypass: true,
    };
    let Plan::Wait(most) = slot.plan(at(DAY - 65), false, PATIENCE, wish) else {
        panic!("waits")
    };
    assert_eq!(most, Duration::from_secs(5));
    land(&mut slot, failure(Class::Server), at(DAY - 65), 1.0);
    assert!(!slot.errand(at(DAY - 60)).bypass, "a wish is asked once");
}

#[test]
fn b22_a_new_token_replaces_one_that_ends_at_the_same_time_but_not_one_that_ends_later() {
    let wish = Wish {
        not: None,
        bypass: true,
    };
    for (name, expires, taken) in [("second", DAY, true), ("third", DAY - 1, false)] {
        let mut slot = with_token(0, DAY);
        slot.plan(at(100), false, PATIENCE, wish);
        land(&mut slot, Ok(token(name, 100, expires)), at(100), 1.0);
        let digest = slot.token(at(100)).unwrap().digest();
        assert_eq!(digest == Digest::of(name.as_bytes()), taken, "{name}");
    }
}

#[test]
fn a_token_that_upstream_keeps_too_long_is_asked_for_past_its_cache() {
    let mut slot = with_token(0, 3600);
    land(&mut slot, Ok(token("first", 1800, 3600)), at(1800), 1.0);
    assert!(!slot.errand(at(2900)).bypass, "there is still time");
    assert!(
        slot.errand(at(3001)).bypass,
        "less than 10 minutes are left"
    );
    land(&mut slot, Ok(token("first", 3001, 3600)), at(3001), 1.0);
    assert!(!slot.errand(at(3060)).bypass, "once a minute");
    assert!(slot.errand(at(3061)).bypass);
}

#[test]
fn i30_the_same_token_twice_is_asked_for_after_half_of_what_is_left_and_a_minute_at_least() {
    let mut slot = with_token(0, 3600);
    for (now, gap) in [
        (1800, 900),
        // Ten minutes are left then; after that, half of what is left until it is five.
        (2700, 300),
        (3000, 150),
        (3150, 75),
        (3225, 60),
        (3300, 60),
    ] {
        land(&mut slot, Ok(token("first", now, 3600)), at(now), 1.0);
        assert!(!slot.is_due(at(now + gap - 1), Duration::MAX), "{now}");
        assert!(slot.is_due(at(now + gap), Duration::MAX), "{now}");
    }
}

#[test]
fn a_flush_drops_everything_and_what_was_asked_for_before_it() {
    let mut slot = with_token(0, DAY);
    let before = slot.errand(at(5));
    assert!(slot.expects(before));
    slot.flush();
    assert!(slot.token(at(5)).is_none());
    assert!(!slot.expects(before));
    assert!(slot.expects(slot.errand(at(5))));
    assert!(
        slot.is_due(at(5), Duration::MAX),
        "and it is fetched without a request"
    );
}

#[test]
fn a_refresh_by_command_makes_a_fresh_token_due_whatever_held_it_off() {
    let mut slot = with_token(0, DAY);
    land(&mut slot, failure(Class::Permanent), at(10), 1.0);
    assert!(!slot.is_due(at(11), Duration::MAX));
    slot.refresh();
    assert!(slot.is_due(at(11), Duration::MAX));
    assert!(slot.errand(at(11)).bypass);
    assert_eq!(slot.view(at(11)).refresh_in, Some(Duration::ZERO));
    let plan = slot.plan(at(11), false, PATIENCE, Wish::default());
    assert!(matches!(plan, Plan::ServeAndRefresh(_)), "nobody waits");
    land(&mut slot, Ok(token("first", 11, DAY)), at(11), 1.0);
    assert!(!slot.is_due(at(12), Duration::MAX));
}

#[test]
fn a_step_of_the_wall_clock_makes_a_token_due_once() {
    let stepped = |seconds: u64, step: i64| {
        let now = at(seconds);
        Now {
            wall: Duration::from_secs(now.wall.as_secs().saturating_add_signed(step)),
            boot: now.boot,
        }
    };
    for step in [-3600, -121, 121, 3600] {
        let mut slot = with_token(0, DAY);
        assert!(!slot.is_due(at(100), Duration::MAX));
        assert!(slot.is_due(stepped(100, step), Duration::MAX), "{step}");
        let plan = slot.plan(stepped(100, step), false, PATIENCE, Wish::default());
        assert!(matches!(plan, Plan::ServeAndRefresh(_)), "{step}");
        land(
            &mut slot,
            Ok(token("first", 0, DAY)),
            stepped(100, step),
            1.0,
        );
        assert!(!slot.is_due(stepped(400, step), Duration::MAX), "{step}");
    }
    for step in [-119, -1, 1, 119] {
        let mut slot = with_token(0, DAY);
        assert!(!slot.is_due(stepped(100, step), Duration::MAX), "{step}");
    }
}

#[test]
fn the_same_token_again_never_lengthens_a_life_that_a_clock_has_bounded() {
    let mut slot = with_token(0, DAY);
    // The wall was set back by an hour: now it promises 25 h.
    let back = Now {
        wall: Duration::from_secs(1_000_000 + 100 - 3600),
        boot: Duration::from_secs(100),
    };
    let again = |now: Now| {
        let issue = Issue {
            access_token: Secret::from("first".to_owned()),
            expires_on: 1_000_000 + DAY,
            expires_in: None,
            not_before: String::new(),
            client_id: None,
        };
        let resource = Resource::parse("https://vault.azure.net", Cloud::Public).unwrap();
        AccessToken::new(&issue, &resource, now).unwrap()
    };
    land(&mut slot, Ok(again(back)), back, 1.0);
    assert_eq!(
        slot.remaining(back),
        Duration::from_secs(DAY - 100),
        "the boot clock knows better"
    );
}

#[test]
fn a_failure_delays_little_once_requests_begin_to_wait() {
    let mut slot = with_token(0, DAY);
    for _ in 0..8 {
        land(&mut slot, failure(Class::Down), at(DAY - 290), 1.0);
    }
    assert!(slot.is_due(at(DAY - 289), Duration::MAX));
}

#[test]
fn what_failed_is_tried_again_when_its_time_has_come_and_only_if_there_is_a_need() {
    let mut slot = Slot::default();
    land(&mut slot, failure(Class::Down), at(10), 1.0);
    assert_eq!(slot.retry_in(at(10), Duration::MAX), None, "nobody had it");
    let mut slot = with_token(0, DAY);
    land(&mut slot, failure(Class::Down), at(10), 1.0);
    assert_eq!(slot.retry_in(at(10), Duration::MAX), None, "not due");
    land(&mut slot, failure(Class::Server), at(DAY / 2), 1.0);
    let pause = Duration::from_secs(4);
    assert_eq!(slot.retry_in(at(DAY / 2), Duration::MAX), Some(pause));
    assert_eq!(slot.retry_in(at(DAY / 2), Duration::ZERO), None, "unwanted");
    assert_eq!(
        slot.retry_in(at(2 * DAY), Duration::MAX),
        Some(Duration::ZERO),
        "lost, and wanted back"
    );
}
