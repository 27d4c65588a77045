//! Who is served next, where there are more than can be: in each round every caller gets as much as
//! every other one who wants it, however many connections it has.
//!
//! A round lasts from one look at all sockets to the next. In it, so many connections of one caller
//! are attended to; those above wait in the caller's line, and the next round begins with them. So
//! whoever comes waits for one round, and that is as long as there are callers, not as long as the
//! flood of one of them. Nobody is slowed down where there is nobody else: a round ends when there is
//! no more to do in it.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::brief::{Brief, Party};
use crate::lock::lock;

/// How often the connections of a caller are attended to in one round where nobody else is. A request
/// takes about three times: it is read, recorded and answered. A look at the sockets costs a call of the
/// system, and who is alone need not pay for more of them.
const ALONE: usize = 16;
/// The same where there are others, who wait for it.
const TOGETHER: usize = 1;
/// Looks at the sockets before more connections are let in, where there are several callers. A request on
/// a new connection takes about as many turns, so that no more come than can be served: else those who
/// are there would pay for those who come.
const LOOKS: usize = 4;
/// Rounds since anybody else was there, until a caller is taken to be alone: some 20 ms of a flood.
const CALM: u64 = 1024;

/// The lines of all callers of one listener.
#[derive(Debug)]
pub struct Rounds {
    /// Of this round.
    number: AtomicU64,
    /// Callers who had a turn in it.
    callers: AtomicUsize,
    /// The round from which on a caller is taken to be alone.
    calm_from: AtomicU64,
    lines: Mutex<Brief<Party, Arc<Line>>>,
    /// Lines that somebody waits in.
    waited_in: Mutex<Vec<Arc<Line>>>,
    /// A line was empty and is not any more.
    wanted: Notify,
}

/// The connections of one caller. Locked before the seats in it.
#[derive(Debug, Default)]
struct Line(Mutex<LineState>);

#[derive(Debug, Default)]
struct LineState {
    /// The round that `served` is of.
    round: u64,
    served: usize,
    /// With a request under way: what is begun is ended first, so that little is under way at a time.
    begun: VecDeque<Arc<Seat>>,
    /// All others.
    fresh: VecDeque<Arc<Seat>>,
    /// Whether it is among those that are waited in.
    is_waited_in: bool,
}

/// The place of one connection.
#[derive(Debug)]
pub struct Seat {
    rounds: Arc<Rounds>,
    line: Arc<Line>,
    state: Mutex<SeatState>,
}

#[derive(Debug, Default)]
struct SeatState {
    turn: Turn,
    /// A request is under way.
    is_busy: bool,
    /// A request was begun since the last turn.
    has_begun: bool,
}

/// What a connection that wants to be attended to has.
#[derive(Debug, Default)]
enum Turn {
    /// None yet.
    #[default]
    None,
    /// A place in the line, and how it is called.
    Waits(Waker),
    /// It was called, and what it does next is counted already.
    Called,
}

/// A request under way.
#[derive(Debug)]
pub struct Begun<'s>(&'s Seat);

/// Ends with the connection.
struct Leave<'s>(&'s Seat);

impl Rounds {
    /// A place for a new connection of this caller.
    pub fn seat(self: &Arc<Self>, party: Party) -> Arc<Seat> {
        // One that nobody is in still counts until its round ends: a caller who opens a connection
        // for each request gets no more than one who keeps them.
        let matters = |line: &Arc<Line>| Arc::strong_count(line) > 1;
        let line = Arc::clone(lock(&self.lines).entry(party, matters, Arc::default));
        Arc::new(Seat {
            rounds: Arc::clone(self),
            line,
            state: Mutex::default(),
        })
    }

    /// Whether more than one caller was there lately.
    pub fn is_shared(&self) -> bool {
        self.number() < self.calm_from.load(Ordering::Relaxed)
    }

    /// For whoever lets connections in: gives way to those that are there already.
    pub async fn give_way(&self) {
        let looks = if self.is_shared() { LOOKS } else { 1 };
        for _ in 0..looks {
            // The runtime looks at all sockets before it comes back here.
            yield_now().await;
        }
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    fn quantum(&self) -> usize {
        if self.is_shared() { TOGETHER } else { ALONE }
    }

    /// Begins the rounds, one after the other, as long as somebody waits. Never ends.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.wanted.notified().await;
            loop {
                // The runtime looks at all sockets before it comes back here.
                yield_now().await;
                if !self.next() {
                    break;
                }
            }
        }
    }

    /// Begins the next round with those who wait. Whether it leaves anybody waiting.
    fn next(&self) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        if self.callers.swap(0, Ordering::Relaxed) > 1 {
            self.calm_from.store(number + CALM, Ordering::Relaxed);
        }
        let mut called = Vec::new();
        let lines = mem::take(&mut *lock(&self.waited_in));
        let left = lines
            .into_iter()
            .filter(|line| lock(&line.0).begin(self, &mut called))
            .collect::<Vec<_>>();
        let mut waited_in = lock(&self.waited_in);
        waited_in.extend(left);
        let is_waited_in = !waited_in.is_empty();
        drop(waited_in);
        called.into_iter().for_each(Waker::wake);
        is_waited_in
    }
}

impl LineState {
    /// Begins a round. Whether somebody still waits when it has begun.
    fn begin(&mut self, rounds: &Rounds, called: &mut Vec<Waker>) -> bool {
        self.enter(rounds);
        let quantum = rounds.quantum();
        while self.served < quantum
            && let Some(seat) = self.begun.pop_front().or_else(|| self.fresh.pop_front())
        {
            // Whoever is gone meanwhile is passed by.
            if let Some(waker) = lock(&seat.state).turn.call() {
                called.push(waker);
                self.served += 1;
            }
        }
        self.is_waited_in = !self.begun.is_empty() || !self.fresh.is_empty();
        self.is_waited_in
    }

    fn has_room(&mut self, rounds: &Rounds) -> bool {
        self.enter(rounds);
        let has_room = self.served < rounds.quantum();
        self.served += usize::from(has_room);
        has_room
    }

    fn enter(&mut self, rounds: &Rounds) {
        let number = rounds.number();
        if self.round != number {
            (self.round, self.served) = (number, 0);
            rounds.callers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Turn {
    fn call(&mut self) -> Option<Waker> {
        match mem::replace(self, Self::Called) {
            Self::Waits(waker) => Some(waker),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Seat {
    /// Does the work of a connection, in turns.
    pub async fn pace<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        let _leave = Leave(&self);
        let mut work = pin!(work);
        poll_fn(|context| {
            if self.has_turn(context) {
                work.as_mut().poll(context)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Begins a request: one in each turn, also where a peer has sent many at once.
    pub async fn begin(&self) -> Begun<'_> {
        poll_fn(|context| {
            let mut state = lock(&self.state);
            if state.has_begun {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            (state.is_busy, state.has_begun) = (true, true);
            Poll::Ready(Begun(self))
        })
        .await
    }

    /// Whether it is this connection's turn. If not, it is called when it is.
    fn has_turn(self: &Arc<Self>, context: &Context<'_>) -> bool {
        let mut line = lock(&self.line.0);
        let mut state = lock(&self.state);
        match &mut state.turn {
            Turn::Waits(waker) => {
                waker.clone_from(context.waker());
                return false;
            }
            Turn::Called => state.turn = Turn::None,
            Turn::None if line.has_room(&self.rounds) => {}
            Turn::None => {
                state.turn = Turn::Waits(context.waker().clone());
                self.wait_in(&mut line, state.is_busy);
                return false;
            }
        }
        state.has_begun = false;
        true
    }

    fn wait_in(self: &Arc<Self>, line: &mut LineState, is_busy: bool) {
        let queue = if is_busy {
            &mut line.begun
        } else {
            &mut line.fresh
        };
        queue.push_back(Arc::clone(self));
        if !mem::replace(&mut line.is_waited_in, true) {
            lock(&self.rounds.waited_in).push(Arc::clone(&self.line));
            self.rounds.wanted.notify_one();
        }
    }
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            // A new line was in none yet.
            number: AtomicU64::new(1),
            callers: AtomicUsize::new(0),
            calm_from: AtomicU64::new(0),
            lines: Mutex::default(),
            waited_in: Mutex::default(),
            wanted: Notify::new(),
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_busy = false;
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).turn = Turn::None;
    }
}

#[cfg(test)]
mod tests;
