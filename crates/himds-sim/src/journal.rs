//! A record of everything that the simulator was asked, and of what became of it.
//!
//! No secret is in it: of an `Authorization` header it keeps only whether its key was good.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hyper::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use serde::Serialize;

use crate::{clock::Clock, request::Ask};

/// One request and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Counts the requests from 1, in the order of their arrival.
    pub sequence: u64,
    /// When it arrived, in ms since the Unix epoch by the simulator's clock.
    pub time_ms: u64,
    /// Counts the connections from 1.
    pub connection: u64,
    /// The HTTP method.
    pub method: String,
    /// The path as it was sent.
    pub path: String,
    /// The query's names and values, decoded.
    pub query: Vec<(String, String)>,
    /// The headers, names in lower case, without those that hold secrets.
    pub headers: Vec<(String, String)>,
    /// What its `Authorization` header was worth.
    pub authorization: Authorization,
    /// The status that was answered; `None` if there was no answer.
    pub status: Option<u16>,
    /// The kind of answer.
    pub kind: Kind,
    /// Name of the key file that the answer made, or that the request used up.
    pub key: Option<String>,
    /// The faults that struck it.
    pub faults: Vec<&'static str>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Entry {
    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        first(&self.query, name)
    }

    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

/// What the `Authorization` header of a request was worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authorization {
    /// There was none.
    Absent,
    /// There was one, and it was not looked at.
    Unread,
    /// Its key was good, and is used up now.
    Matched,
    /// Its key was good once, but came too late.
    Expired,
    /// It held no key that is good: a wrong one, or one used before.
    Unknown,
}

/// The kind of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// None, yet or for ever.
    Nothing,
    /// 401 with a challenge.
    Challenge,
    /// 200 with a token, or with what a fault made of one.
    Token,
    /// Instance metadata.
    Instance,
    /// Anything else with status 200.
    Other,
    /// A redirect.
    Redirect,
    /// An error.
    Error,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is being answered.
    Pending,
    /// The answer was handed to the connection.
    Answered,
    /// A broken answer was handed to the connection, which then ends.
    Broken,
    /// It is left without an answer until the client goes.
    Hung,
    /// The connection was closed without an answer.
    Closed,
    /// The connection was reset without an answer.
    Reset,
    /// The client went before it was answered.
    Abandoned,
}

/// What became of a request, to be filled in.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) authorization: Option<Authorization>,
    pub(crate) status: Option<u16>,
    pub(crate) kind: Kind,
    pub(crate) key: Option<String>,
    pub(crate) faults: Vec<&'static str>,
    pub(crate) outcome: Outcome,
}

/// The newest requests; older ones are forgotten, so that a load test does not fill the memory.
#[derive(Debug)]
pub(crate) struct Journal {
    clock: Clock,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    last: u64,
    entries: VecDeque<Entry>,
}

const KEPT: usize = 100_000;

impl Journal {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            book: Mutex::default(),
        }
    }

    /// Notes that a request has arrived. Dropping the ticket means that the client went away.
    pub(crate) fn open(self: &Arc<Self>, ask: &Ask) -> Ticket {
        let mut book = self.lock();
        book.last += 1;
        let sequence = book.last;
        if book.entries.len() == KEPT {
            book.entries.pop_front();
        }
        book.entries
            .push_back(arrival(sequence, self.clock.millis(), ask));
        Ticket {
            journal: Arc::clone(self),
            sequence,
            open: true,
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().entries.clear();
    }

    fn amend(&self, sequence: u64, change: impl FnOnce(&mut Entry)) {
        let mut book = self.lock();
        let Ok(index) = book
            .entries
            .binary_search_by_key(&sequence, |entry| entry.sequence)
        else {
            return; // forgotten, or cleared
        };
        if let Some(entry) = book.entries.get_mut(index) {
            change(entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open entry of one request.
#[derive(Debug)]
pub(crate) struct Ticket {
    journal: Arc<Journal>,
    sequence: u64,
    open: bool,
}

impl Ticket {
    pub(crate) fn close(mut self, verdict: Verdict) {
        self.open = false;
        self.journal.amend(self.sequence, |entry| {
            entry.authorization = verdict.authorization.unwrap_or(entry.authorization);
            entry.status = verdict.status;
            entry.kind = verdict.kind;
            entry.key = verdict.key;
            entry.faults = verdict.faults;
            entry.outcome = verdict.outcome;
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.journal
                .amend(self.sequence, |entry| entry.outcome = Outcome::Abandoned);
        }
    }
}

fn arrival(sequence: u64, time_ms: u64, ask: &Ask) -> Entry {
    let kept = ask
        .headers
        .iter()
        .filter(|(name, _)| ![AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(*name));
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    Entry {
        sequence,
        time_ms,
        connection: ask.connection,
        method: ask.method.to_string(),
        path: ask.path.clone(),
        query: ask.query.clone(),
        headers: kept.map(header).collect(),
        authorization: if ask.authorization().is_some() {
            Authorization::Unread
        } else {
            Authorization::Absent
        },
        status: None,
        kind: Kind::Nothing,
        key: None,
        faults: Vec::new(),
        outcome: Outcome::Pending,
    }
}

fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}
