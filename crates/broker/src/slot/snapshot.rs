//! A slot as it is written down for the next daemon.

use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::wire::TokenAnswer;
use arcbroker_policy::Resource;
use serde::{Deserialize, Serialize};

use super::{Held, Lead, Slot};
use crate::clock::Now;
use crate::token::AccessToken;

/// What a daemon that comes later needs to know of a slot. Holds a secret where there is a token.
///
/// A remembered failure is not among it, nor that a resource has refused the token: who asks finds
/// out again.
#[derive(Debug, Deserialize, Serialize)]
pub struct Snapshot {
    /// Since boot: when somebody last asked.
    asked: Duration,
    /// Since boot: when upstream was last asked past its own cache.
    bypassed: Option<Duration>,
    token: Option<HeldToken>,
}

#[derive(Debug, Deserialize, Serialize)]
struct HeldToken {
    answer: TokenAnswer,
    ends_wall: Duration,
    ends_boot: Duration,
    lifetime: Duration,
    refresh_below: Duration,
    hold_until: Duration,
    lead: Lead,
    same_again: bool,
    due_now: bool,
}

impl Snapshot {
    /// Whether there is a token in it.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

impl Slot {
    /// As it is now; `None` where there never was a token.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.had_token.then(|| Snapshot {
            asked: self.asked,
            bypassed: self.bypassed,
            token: self.token.as_ref().and_then(HeldToken::of),
        })
    }

    /// As it was then; `None` where there is a token that cannot be one for this resource.
    pub fn restore(snapshot: Snapshot, resource: &Resource) -> Option<Self> {
        let token = match snapshot.token {
            Some(token) => Some(token.restore(resource)?),
            None => None,
        };
        Some(Self {
            token,
            asked: snapshot.asked,
            bypassed: snapshot.bypassed,
            had_token: true,
            ..Self::default()
        })
    }
}

impl Snapshot {
    /// Since boot: when the token was received, where there is one.
    pub fn received(&self) -> Option<Duration> {
        let token = self.token.as_ref()?;
        Some(token.ends_boot.saturating_sub(token.lifetime))
    }
}

impl HeldToken {
    fn of(held: &Held) -> Option<Self> {
        let ends = held.token.ends();
        Some(Self {
            answer: held.token.said()?,
            ends_wall: ends.wall,
            ends_boot: ends.boot,
            lifetime: held.token.lifetime(),
            refresh_below: held.refresh_below,
            hold_until: held.hold_until,
            lead: held.lead,
            same_again: held.same_again,
            due_now: held.due_now,
        })
    }

    fn restore(self, resource: &Resource) -> Option<Held> {
        let ends = Now {
            wall: self.ends_wall,
            boot: self.ends_boot,
        };
        let token = AccessToken::again(self.answer, resource, ends, self.lifetime)?;
        Some(Held {
            token: Arc::new(token),
            refresh_below: self.refresh_below,
            hold_until: self.hold_until,
            lead: self.lead,
            same_again: self.same_again,
            due_now: self.due_now,
        })
    }
}
