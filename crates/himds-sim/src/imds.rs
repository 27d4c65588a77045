//! The token endpoint of IMDS, its rules for all requests, and its limits.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    fault::Draw,
    himds::{Unselectable, selected},
    hostile::{FIRST, throttled},
    issue::{self, Order},
    journal::Kind,
    request::Ask,
    route::Site,
    wire::{Answer, Reply},
};

/// The documented api-versions, oldest first.
pub(crate) const VERSIONS: [&str; 35] = [
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-08-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2024-03-15",
    "2024-07-17",
    "2025-04-07",
];

/// The version that brought tokens.
const FIRST_WITH_IDENTITY: &str = "2018-02-01";

/// Answers a token request.
pub(crate) async fn token(site: &Site, ask: &Ask, draw: &mut Draw) -> Answer {
    if let Some(answer) = FIRST.instead(draw, true).await {
        return answer;
    }
    let answer = match check_identity(ask).and_then(|()| order(site, ask)) {
        Ok(order) => issue::token(site, order, draw).await,
        Err(answer) => *answer,
    };
    FIRST.onto(answer, draw)
}

fn order(site: &Site, ask: &Ask) -> Result<Order, Box<Answer>> {
    let invalid = |description: &str| Box::new(Answer::error(400, "invalid_request", description));
    let resource = ask
        .parameter("resource")
        .ok_or_else(|| invalid("Required query variable 'resource' is missing"))?
        .to_owned();
    let selected = selected(&site.options, ask).map_err(|error| match error {
        Unselectable::Several => invalid("client_id, object_id and msi_res_id exclude each other"),
        Unselectable::NotAssigned => invalid("Identity not found"),
    })?;
    let (identity, mut echo) = match selected {
        Some((name, identity, value)) => (identity, vec![(name, value)]),
        None => (site.options.machine.system_identity(true), Vec::new()),
    };
    // Real machines name the client id unasked.
    if echo.iter().all(|(name, _)| *name != "client_id") {
        echo.push(("client_id", identity.client_id.clone()));
    }
    Ok(Order {
        resource,
        identity,
        echo,
        bypass_cache: ask.parameter("bypass_cache") == Some("true"),
    })
}

/// Checks what every request must have; bodies of the two refusals of headers are not confirmed.
pub(crate) fn check(ask: &Ask) -> Result<(), Box<Answer>> {
    let invalid =
        |description: &str| Err(Box::new(Answer::error(400, "invalid_request", description)));
    if !ask.says_metadata() {
        return invalid("Required metadata header not specified");
    }
    if ask.headers.contains_key("x-forwarded-for") {
        return invalid("The X-Forwarded-For header is not allowed");
    }
    if ask.repeats_a_parameter() {
        return invalid("Duplicate query parameters are not allowed");
    }
    if !ask
        .parameter("api-version")
        .is_some_and(|version| VERSIONS.contains(&version))
    {
        return Err(Box::new(bad_version()));
    }
    Ok(())
}

/// [`check`], and a version that knows tokens.
pub(crate) fn check_identity(ask: &Ask) -> Result<(), Box<Answer>> {
    check(ask)?;
    if ask
        .parameter("api-version")
        .is_some_and(|version| version < FIRST_WITH_IDENTITY)
    {
        return Err(Box::new(bad_version()));
    }
    Ok(())
}

fn bad_version() -> Answer {
    let newest: Vec<&str> = VERSIONS.into_iter().rev().take(3).collect();
    let body = serde_json::json!({
        "error": "Bad request. api-version is invalid or was not specified in the request. \
                  For more information refer to aka.ms/azureimds",
        "newest-versions": newest,
    });
    Answer::new(Kind::Error, Reply::json(400, &body))
}

/// The documented limits: 20 identity requests a second and 5 at a time, 5 others a second.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<Load>);

#[derive(Debug, Default)]
struct Load {
    identity: VecDeque<u64>,
    others: VecDeque<u64>,
    in_flight: usize,
}

const IDENTITY_PER_SECOND: usize = 20;
const IDENTITY_AT_A_TIME: usize = 5;
const OTHERS_PER_SECOND: usize = 5;

impl Limits {
    /// Lets an identity request in for as long as the permit is held.
    pub(crate) fn identity(&self, now_ms: u64) -> Result<Permit<'_>, Box<Answer>> {
        let mut load = self.lock();
        if load.in_flight >= IDENTITY_AT_A_TIME
            || !admit(&mut load.identity, IDENTITY_PER_SECOND, now_ms)
        {
            return Err(Box::new(throttled(true)));
        }
        load.in_flight += 1;
        Ok(Permit(self))
    }

    /// Lets any other request in.
    pub(crate) fn other(&self, now_ms: u64) -> Result<(), Box<Answer>> {
        if admit(&mut self.lock().others, OTHERS_PER_SECOND, now_ms) {
            Ok(())
        } else {
            Err(Box::new(throttled(true)))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn admit(recent: &mut VecDeque<u64>, most: usize, now_ms: u64) -> bool {
    recent.retain(|then| now_ms.saturating_sub(*then) < 1000);
    let admitted = recent.len() < most;
    if admitted {
        recent.push_back(now_ms);
    }
    admitted
}

/// The right of one identity request to be answered.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Limits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}
