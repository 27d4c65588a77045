use std::future::pending;
use std::sync::atomic::AtomicBool;
use std::task::Wake;

use tokio::task::JoinSet;

use super::*;

fn party(uid: u32) -> Party {
    Party { uid, unit: None }
}

/// Counts how often it is called.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Whether it is the seat's turn; if not, the bell rings when it is.
fn turn(seat: &Arc<Seat>, bell: &Arc<Bell>) -> bool {
    seat.has_turn(&Context::from_waker(&Waker::from(Arc::clone(bell))))
}

/// An event on each of these connections.
fn turns(seats: &[(Arc<Seat>, Arc<Bell>)]) -> usize {
    seats.iter().filter(|(seat, bell)| turn(seat, bell)).count()
}

fn seats(rounds: &Arc<Rounds>, uid: u32, count: usize) -> Vec<(Arc<Seat>, Arc<Bell>)> {
    let seat = |_| (rounds.seat(party(uid)), Arc::default());
    (0..count).map(seat).collect()
}

#[test]
fn in_a_round_one_caller_has_so_many_turns_and_another_one_as_many() {
    let rounds = Arc::new(Rounds::default());
    let (mine, other) = (seats(&rounds, 1, 100), seats(&rounds, 2, 1));
    let served = turns(&mine);
    assert_eq!(served, ALONE);
    assert!(turn(&other[0].0, &other[0].1));
}

#[test]
fn whoever_waits_is_called_in_order_and_only_once() {
    let rounds = Arc::new(Rounds::default());
    let mine = seats(&rounds, 1, 3 * ALONE + 1);
    for (seat, bell) in &mine {
        turn(seat, bell);
        // More events while it waits change nothing.
        turn(seat, bell);
    }
    // The second event of each of the first half was a turn, too.
    let waiting = &mine[ALONE / 2..];
    let mut called = 0;
    loop {
        let left = rounds.next();
        let next = (waiting.len() - called).min(ALONE);
        for (number, (seat, bell)) in waiting.iter().enumerate() {
            let is_next = (called..called + next).contains(&number);
            assert_eq!(bell.rung(), usize::from(is_next), "{number}");
            assert!(!is_next || turn(seat, bell));
        }
        called += next;
        assert_eq!(left, called < waiting.len());
        if !left {
            break;
        }
    }
    assert!(!rounds.next(), "nobody waits");
}

#[test]
fn who_was_called_has_its_turn_whatever_else_comes_in_the_round() {
    let rounds = Arc::new(Rounds::default());
    let mine = seats(&rounds, 1, 2 * ALONE);
    assert_eq!(turns(&mine), ALONE);
    rounds.next();
    let (first, second) = mine.split_at(ALONE);
    assert!(!first.iter().any(|(seat, bell)| turn(seat, bell)));
    assert!(second.iter().all(|(seat, bell)| turn(seat, bell)));
}

#[test]
fn a_request_that_is_begun_comes_before_those_that_are_not() {
    let rounds = Arc::new(Rounds::default());
    let mine = seats(&rounds, 1, 4 * ALONE);
    turns(&mine);
    let busy = seats(&rounds, 1, 1);
    lock(&busy[0].0.state).is_busy = true;
    assert!(!turn(&busy[0].0, &busy[0].1));
    rounds.next();
    assert_eq!(busy[0].1.rung(), 1);
    let called = mine.iter().filter(|(_, bell)| bell.rung() == 1).count();
    assert_eq!(called, ALONE - 1);
}

#[test]
fn the_bell_that_rings_is_the_last_one() {
    let rounds = Arc::new(Rounds::default());
    let mine = seats(&rounds, 1, ALONE + 1);
    turns(&mine);
    let (seat, old) = mine.last().unwrap();
    let new = Arc::default();
    assert!(!turn(seat, &new));
    rounds.next();
    assert_eq!((old.rung(), new.rung()), (0, 1));
}

#[test]
fn who_goes_while_it_waits_takes_nobody_s_turn_and_leaves_nothing_behind() {
    let rounds = Arc::new(Rounds::default());
    let mine = seats(&rounds, 1, 3 * ALONE);
    turns(&mine);
    let (gone, last) = mine[ALONE..].split_at(ALONE);
    for (seat, _) in gone {
        drop(Leave(seat));
    }
    assert!(!rounds.next());
    assert!(gone.iter().all(|(_, bell)| bell.rung() == 0));
    assert!(last.iter().all(|(_, bell)| bell.rung() == 1));
    assert!(gone.iter().all(|(seat, _)| Arc::strong_count(seat) == 1));
}

#[test]
fn who_opens_a_connection_for_each_request_has_no_more_turns() {
    let rounds = Arc::new(Rounds::default());
    let served = (0..100).filter(|_| turn(&rounds.seat(party(1)), &Arc::default()));
    assert_eq!(served.count(), ALONE);
}

/// A connection that does some work in so many steps and is ready for the next at once.
async fn steps(seat: Arc<Seat>, count: usize, on_step: impl Fn()) {
    let mut left = count;
    let work = poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        on_step();
        context.waker().wake_by_ref();
        Poll::Pending
    });
    seat.pace(work).await;
}

#[tokio::test]
async fn a_caller_with_a_thousand_busy_connections_delays_another_one_by_one_round_a_step() {
    const STEPS: usize = 50;
    let rounds = Arc::new(Rounds::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&rounds).run());
    let flood = Arc::new(AtomicUsize::new(0));
    for _ in 0..1000 {
        let flood = Arc::clone(&flood);
        let count = move || {
            flood.fetch_add(1, Ordering::Relaxed);
        };
        tasks.spawn(steps(rounds.seat(party(1)), usize::MAX, count));
    }
    while flood.load(Ordering::Relaxed) < 1000 {
        yield_now().await;
    }
    let (seen, between) = (
        flood.load(Ordering::Relaxed),
        Arc::new(Mutex::new(Vec::new())),
    );
    let on_step = {
        let (flood, between) = (Arc::clone(&flood), Arc::clone(&between));
        move || lock(&between).push(flood.load(Ordering::Relaxed))
    };
    steps(rounds.seat(party(2)), STEPS, on_step).await;
    let between = lock(&between);
    assert_eq!(between.len(), STEPS);
    let mut before = seen;
    for (step, &now) in between.iter().enumerate() {
        // Until it is noticed that the flood is not alone any more.
        let most = if step < 5 { 2 * ALONE } else { 2 * TOGETHER };
        assert!(now - before <= most, "{step}: {}", now - before);
        before = now;
    }
}

#[test]
fn a_caller_has_smaller_turns_while_others_are_there_and_for_a_while_after() {
    let rounds = Arc::new(Rounds::default());
    let (mine, other) = (seats(&rounds, 1, 3 * ALONE), seats(&rounds, 2, 1));
    assert_eq!(turns(&mine), ALONE);
    assert!(!rounds.is_shared());
    assert_eq!(turns(&other), 1);
    assert!(rounds.next());
    assert!(rounds.is_shared());
    let called = || mine.iter().map(|(_, bell)| bell.rung()).sum::<usize>();
    assert_eq!(called(), TOGETHER);
    for _ in 1..CALM {
        rounds.next();
    }
    assert!(rounds.is_shared());
    rounds.next();
    assert!(!rounds.is_shared());
    assert_eq!(called(), 2 * ALONE - TOGETHER);
    turns(&mine);
    turns(&mine);
    rounds.next();
    assert_eq!(called(), ALONE);
}

/// Rounds that pass while somebody who lets connections in gives way.
async fn rounds_given(rounds: &Arc<Rounds>) -> u64 {
    let before = rounds.number();
    rounds.give_way().await;
    rounds.number() - before
}

#[tokio::test]
async fn who_lets_connections_in_gives_way_for_a_request_s_worth_of_turns_where_callers_share() {
    let rounds = Arc::new(Rounds::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&rounds).run());
    for _ in 0..2 * ALONE {
        tasks.spawn(steps(rounds.seat(party(1)), usize::MAX, || ()));
    }
    // The first rounds begin when the flood does.
    while rounds.number() < 10 {
        yield_now().await;
    }
    assert_eq!(rounds_given(&rounds).await, 1, "nobody else is there");
    steps(rounds.seat(party(2)), 2, || ()).await;
    assert!(rounds.is_shared());
    for _ in 0..10 {
        assert_eq!(rounds_given(&rounds).await, LOOKS as u64);
    }
}

#[tokio::test]
async fn everybody_ends_however_many_they_are_and_whoever_goes() {
    let rounds = Arc::new(Rounds::default());
    let mut runs = JoinSet::new();
    runs.spawn(Arc::clone(&rounds).run());
    let mut tasks = JoinSet::new();
    let mut idle = Vec::new();
    for number in 0..2000_u32 {
        let seat = rounds.seat(party(number % 7));
        if number % 5 == 0 {
            // Busy until it is dropped, wherever it is then.
            idle.push(tokio::spawn(steps(seat, usize::MAX, || ())));
        } else {
            tasks.spawn(steps(seat, 100, || ()));
        }
    }
    for (number, task) in idle.into_iter().enumerate() {
        if number % 10 == 0 {
            yield_now().await;
        }
        task.abort();
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    let all = tokio::time::timeout(std::time::Duration::from_mins(1), all);
    all.await.expect("nobody waits for ever");
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_where_nobody_waits() {
    let rounds = Arc::new(Rounds::default());
    let ran = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&rounds).run());
    let seat = rounds.seat(party(1));
    tasks.spawn({
        let ran = Arc::clone(&ran);
        seat.pace(async move {
            ran.store(true, Ordering::Relaxed);
            pending::<()>().await;
        })
    });
    // Paused time goes on only where there is nothing to do.
    tokio::time::sleep(std::time::Duration::from_hours(1)).await;
    assert!(ran.load(Ordering::Relaxed));
    assert_eq!(rounds.number(), 1);
}

#[tokio::test]
async fn one_turn_begins_one_request_of_all_that_a_peer_has_sent() {
    let rounds = Arc::new(Rounds::default());
    let seat = rounds.seat(party(1));
    let polls = Arc::new(AtomicUsize::new(0));
    let work = {
        let seat = Arc::clone(&seat);
        async move {
            for _ in 0..5 {
                drop(seat.begin().await);
            }
        }
    };
    let mut work = Box::pin(work);
    let counted = {
        let polls = Arc::clone(&polls);
        poll_fn(move |context| {
            polls.fetch_add(1, Ordering::Relaxed);
            work.as_mut().poll(context)
        })
    };
    seat.pace(counted).await;
    assert_eq!(polls.load(Ordering::Relaxed), 5);
}
