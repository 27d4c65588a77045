//! A caller knows that its token is of no use, or an administrator does.

use crate::support::*;

/// Upstream keeps its tokens, as HIMDS does.
fn keeping(honours: bool) -> Arc<World> {
    let world = Arc::new(World::new());
    world.script(keep(Duration::ZERO, honours));
    world
}

fn keep(after: Duration, honours: bool) -> Script {
    Script::Keep {
        life: DAY,
        after,
        honours,
    }
}

async fn ask_instead_of(world: &World, refused: &Acquired) -> Result<Acquired, FetchError> {
    let wish = Wish {
        not: Some(refused.token.digest()),
        bypass: false,
    };
    world.cache.token(&world.grant(VAULT), wish).await
}

fn bypassed(world: &World) -> usize {
    world.source.bypassed.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn b20_a_refused_token_is_replaced_once_for_all_who_hold_it() {
    let world = keeping(true);
    let refused = world.token().await.unwrap();
    let asks: Vec<_> = (0..100)
        .map(|_| {
            let (world, digest) = (Arc::clone(&world), refused.token.digest());
            tokio::spawn(async move {
                let wish = Wish {
                    not: Some(digest),
                    bypass: false,
                };
                world.cache.token(&world.grant(VAULT), wish).await
            })
        })
        .collect();
    for ask in asks {
        assert_eq!(world.number_of(&ask.await.unwrap().unwrap()), "2");
    }
    assert_eq!((world.asked(), bypassed(&world)), (2, 1));
    let late = ask_instead_of(&world, &refused).await.unwrap();
    assert_eq!(
        late.from,
        From::Cache,
        "B21: it is not the kept one any more"
    );
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_know_the_bypass_is_asked_once_a_minute() {
    let world = keeping(false);
    let refused = world.token().await.unwrap();
    for _ in 0..600 {
        let again = ask_instead_of(&world, &refused).await.unwrap();
        assert_eq!(again.token.digest(), refused.token.digest());
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(bypassed(&world), 10);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ran_already_does_not_count_as_the_answer_to_a_refusal() {
    let world = keeping(true);
    let refused = world.token().await.unwrap();
    world.script(keep(Duration::from_secs(2), true));
    advance(14 * HOUR).await;
    world.cache.sweep();
    settle().await;
    assert_eq!(world.asked(), 2, "the refresh runs");
    let answer = ask_instead_of(&world, &refused).await.unwrap();
    assert_ne!(answer.token.digest(), refused.token.digest());
    assert_eq!((world.asked(), bypassed(&world)), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_only_who_knows_better_goes_without_the_refused_token() {
    let world = keeping(true);
    let refused = world.token().await.unwrap();
    world.script(Script::Fail(Class::Server));
    let error = ask_instead_of(&world, &refused).await.unwrap_err();
    assert_eq!(error.class, Class::Server);
    assert_eq!(world.token().await.unwrap().from, From::Cache);
    world.script(keep(Duration::ZERO, true));
    world.pass(Duration::from_secs(40)).await;
    let answer = ask_instead_of(&world, &refused).await.unwrap();
    assert_eq!(world.number_of(&answer), world.asked().to_string());
}

#[tokio::test(start_paused = true)]
async fn b22_a_wish_for_a_new_token_is_granted_once_a_minute_and_never_costs_the_old_one() {
    let world = keeping(true);
    world.token().await.unwrap();
    let wish = Wish {
        not: None,
        bypass: true,
    };
    let ask = async || world.cache.token(&world.grant(VAULT), wish).await.unwrap();
    advance(Duration::from_secs(10)).await;
    assert_eq!(world.number_of(&ask().await), "2");
    assert_eq!(world.number_of(&ask().await), "2");
    assert_eq!(bypassed(&world), 1);
    advance(MINUTE).await;
    world.script(Script::Fail(Class::Server));
    let kept = ask().await;
    assert_eq!(world.number_of(&kept), "2");
    assert_eq!(kept.from, From::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_flush_makes_worthless_what_is_under_way_and_no_two_fetches_run_for_one_key() {
    let world = Arc::new(World::new());
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(5),
    });
    let waiting = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token().await }
    });
    settle().await;
    advance(Duration::from_secs(3)).await;
    assert_eq!(world.cache.flush(None), 1);
    let late = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token().await }
    });
    for answer in [waiting, late] {
        let acquired = answer.await.unwrap().unwrap();
        assert_eq!(world.number_of(&acquired), "2", "from after the flush");
    }
    assert_eq!(world.source.most_running.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_for_one_resource_or_for_all_and_the_tokens_come_back_by_themselves() {
    let world = World::new();
    for resource in [VAULT, "https://storage.azure.com"] {
        let grant = world.grant(resource);
        world.cache.token(&grant, Wish::default()).await.unwrap();
    }
    let vault = world.grant(VAULT).resource().clone();
    assert_eq!(world.cache.flush(Some(&vault)), 1);
    world.cache.sweep();
    settle().await;
    assert_eq!(world.token().await.unwrap().from, From::Cache);
    assert_eq!((world.number().await.as_str(), world.asked()), ("2", 3));
    assert_eq!(world.cache.flush(None), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_by_command_costs_nobody_a_wait() {
    let world = World::new();
    assert_eq!(world.number().await, "1");
    world.script(Script::Give {
        life: 2 * DAY,
        after: Duration::from_secs(5),
    });
    assert_eq!(world.cache.refresh(None), 1);
    let acquired = world.token().await.unwrap();
    assert_eq!(
        (world.number_of(&acquired).as_str(), acquired.from),
        ("1", From::Cache)
    );
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.number().await, "2");
}
