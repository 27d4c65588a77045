//! What upstream can do wrong, and what the daemon must take each for.
//!
//! The table of [`Class`] is read from the documents, not from the daemon's sources: where the two
//! disagree, an invariant breaks.

use std::time::Duration;

use crate::dice::Dice;

/// The first request, without a key, or the second, with one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stage {
    /// Without a key.
    Challenge,
    /// With one.
    Token,
}

/// How upstream treats a conversation, if not well.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fault {
    /// Nobody listens.
    Refused,
    /// The kernel connects the caller to itself.
    ToItself,
    /// No answer to the connect.
    Blackholed,
    /// Accepted and closed.
    ClosedAtOnce,
    /// In the backlog for ever: nobody holds the other end.
    NeverAccepted,
    /// Another user holds the port.
    Stranger,
    /// Another user takes the connection over after the challenge.
    StrangerLater,
    /// No answer.
    Hangs(Stage),
    /// Half an answer, then the end.
    Breaks(Stage),
    /// Bytes that are not HTTP.
    Babbles(Stage),
    /// A body without end.
    Floods(Stage),
    /// A status, with a `Retry-After`.
    Status(Stage, u16, RetryAfter),
    /// Late, but within the daemon's patience, which is 10 s and then 30 s.
    Slow(Stage, Duration),
    /// A token without a challenge.
    Unchallenged,
    /// A 401 without a challenge.
    NoChallenge,
    /// A 401 with two.
    TwoChallenges,
    /// A challenge that names a file elsewhere.
    ForeignRealm,
    /// A challenge whose key file is not there.
    KeyMissing,
    /// A key file that anybody could have written.
    KeyUntrusted,
    /// A key file that is written anew before its key is used.
    KeyRotated,
    /// A 200 that is no token.
    Body(BadBody),
    /// A token that has ended.
    Expired,
    /// A token that ends soon.
    Short(Duration),
    /// A token that ends sooner than the one before.
    Sooner,
    /// The token from before, however little is left of it.
    SameAgain,
    /// An `expires_in` that is too large: HIMDS has shown such.
    LongExpiresIn,
    /// An `expires_in` that is too small.
    ShortExpiresIn,
}

/// Ways in which a 200 is no token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BadBody {
    /// Nothing.
    Empty,
    /// Not JSON.
    Text,
    /// Ends in the middle.
    Torn,
    /// No expiry.
    NoExpiry,
    /// For another resource.
    OtherResource,
    /// Not a bearer token.
    OtherKind,
    /// With a line break in the token.
    Unprintable,
}

/// What a `Retry-After` says; `None` sends none.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RetryAfter(pub Option<&'static str>);

/// What the daemon must take a failed conversation for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// Nobody is there.
    Down,
    /// Somebody else is.
    Hostile,
    /// Broken off, too late, or not HTTP.
    Broken,
    /// The key was refused.
    StaleKey,
    /// The challenge cannot be answered.
    Challenge,
    /// The request is wrong.
    Permanent,
    /// Refused, but that may change.
    Refused,
    /// Upstream fails.
    Server,
    /// Upstream is being updated.
    Upgrading,
    /// Upstream wants fewer requests.
    Throttled,
    /// The answer is no token.
    Garbage,
}

const RETRY_AFTERS: [RetryAfter; 13] = [
    RetryAfter(None),
    RetryAfter(Some("0")),
    RetryAfter(Some("1")),
    RetryAfter(Some("7")),
    RetryAfter(Some("120")),
    RetryAfter(Some("300")),
    RetryAfter(Some("301")),
    RetryAfter(Some("1000000000000")),
    RetryAfter(Some("99999999999999999999999999")),
    RetryAfter(Some("-1")),
    RetryAfter(Some("1.5")),
    RetryAfter(Some("soon")),
    RetryAfter(Some("Wed, 21 Oct 2026 07:28:00 GMT")),
];

impl RetryAfter {
    /// How long upstream is to be left alone: whole seconds, from 1 to 300; anything else says
    /// nothing.
    pub fn means(self) -> Option<Duration> {
        let text = self.0?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Of what has more digits than fit, the limit is all that matters.
        digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX).clamp(1, 300)))
    }
}

impl Class {
    /// The class of a status; 401 is none of them.
    pub fn of_status(status: u16) -> Self {
        match status {
            408 | 500..=599 => Self::Server,
            403 | 404 => Self::Refused,
            410 => Self::Upgrading,
            429 => Self::Throttled,
            _ => Self::Permanent,
        }
    }

    /// For how long a request may be told of this failure without upstream being asked again.
    pub fn remembered(self) -> Duration {
        Duration::from_secs(match self {
            Self::Down => 1,
            Self::Broken | Self::Server => 2,
            Self::Hostile | Self::StaleKey => 5,
            Self::Challenge | Self::Upgrading | Self::Throttled | Self::Garbage => 10,
            Self::Refused => 30,
            Self::Permanent => 60,
        })
    }

    /// Whether upstream as a whole does not work: such failures open the breaker.
    pub fn is_ill(self) -> bool {
        matches!(self, Self::Down | Self::Broken | Self::Server)
    }

    /// Whether upstream works, though it did not give a token.
    pub fn is_well(self) -> bool {
        !self.is_ill() && !matches!(self, Self::Hostile | Self::Upgrading)
    }

    /// Whether a `Retry-After` beside it is about all requests, and not only about this one.
    pub fn speaks_for_all(self) -> bool {
        matches!(self, Self::Server | Self::Throttled | Self::Upgrading)
    }
}

impl Fault {
    /// A fault for an episode.
    pub fn draw(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0 | 1 => dice.pick(&[
                Self::Refused,
                Self::Refused,
                Self::ToItself,
                Self::Blackholed,
                Self::ClosedAtOnce,
                Self::NeverAccepted,
            ]),
            2 => dice.pick(&[Self::Stranger, Self::StrangerLater]),
            3 | 4 => Self::draw_transport(dice),
            5 | 6 => Self::draw_status(dice),
            7 => dice.pick(&[
                Self::Unchallenged,
                Self::NoChallenge,
                Self::TwoChallenges,
                Self::ForeignRealm,
                Self::KeyMissing,
                Self::KeyUntrusted,
                Self::KeyRotated,
            ]),
            8 => Self::Body(dice.pick(&[
                BadBody::Empty,
                BadBody::Text,
                BadBody::Torn,
                BadBody::NoExpiry,
                BadBody::OtherResource,
                BadBody::OtherKind,
                BadBody::Unprintable,
            ])),
            _ => Self::draw_life(dice),
        }
    }

    fn draw_transport(dice: &mut Dice) -> Self {
        let stage = dice.pick(&[Stage::Challenge, Stage::Token]);
        match dice.below(6) {
            0 => Self::Hangs(stage),
            1 => Self::Breaks(stage),
            2 => Self::Babbles(stage),
            3 => Self::Floods(stage),
            _ => Self::Slow(
                stage,
                dice.between(Duration::from_millis(500), Duration::from_secs(9)),
            ),
        }
    }

    fn draw_status(dice: &mut Dice) -> Self {
        let stage = dice.pick(&[Stage::Challenge, Stage::Token]);
        let statuses = [
            400, 403, 404, 405, 408, 410, 429, 429, 429, 500, 502, 503, 503, 504,
        ];
        Self::Status(stage, dice.pick(&statuses), dice.pick(&RETRY_AFTERS))
    }

    fn draw_life(dice: &mut Dice) -> Self {
        match dice.below(7) {
            0 => Self::Expired,
            1 => Self::Sooner,
            2 => Self::SameAgain,
            3 => Self::LongExpiresIn,
            4 => Self::ShortExpiresIn,
            _ => Self::Short(dice.spread(Duration::from_secs(30), Duration::from_hours(1))),
        }
    }

    /// Whether the daemon never gets to say anything.
    pub fn is_mute(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::ToItself
                | Self::Blackholed
                | Self::ClosedAtOnce
                | Self::NeverAccepted
                | Self::Stranger
        )
    }

    /// What a conversation with this fault comes to, where it fails.
    pub fn class(self) -> Option<Class> {
        Some(match self {
            Self::Refused | Self::ToItself => Class::Down,
            Self::Blackholed
            | Self::ClosedAtOnce
            | Self::NeverAccepted
            | Self::Hangs(_)
            | Self::Breaks(_)
            | Self::Babbles(_) => Class::Broken,
            Self::Stranger | Self::StrangerLater => Class::Hostile,
            Self::Floods(_) | Self::Body(_) | Self::Expired => Class::Garbage,
            Self::Status(_, status, _) => Class::of_status(status),
            Self::Unchallenged
            | Self::NoChallenge
            | Self::TwoChallenges
            | Self::ForeignRealm
            | Self::KeyMissing
            | Self::KeyUntrusted => Class::Challenge,
            Self::KeyRotated => Class::StaleKey,
            Self::Slow(..)
            | Self::Short(_)
            | Self::Sooner
            | Self::SameAgain
            | Self::LongExpiresIn
            | Self::ShortExpiresIn => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_whole_seconds_within_limits_or_nothing() {
        let meanings: Vec<_> = RETRY_AFTERS
            .iter()
            .map(|after| after.means().map(|time| time.as_secs()))
            .collect();
        let some = [0, 1, 7, 120, 300, 301, 300, 300].map(|limit: u64| Some(limit.clamp(1, 300)));
        assert_eq!(meanings[1..9], some);
        assert_eq!(meanings[0], None);
        assert!(meanings[9..].iter().all(Option::is_none));
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let mut dice = Dice::new(3);
        let kinds: std::collections::HashSet<_> = (0..5_000)
            .map(|_| std::mem::discriminant(&Fault::draw(&mut dice)))
            .collect();
        assert_eq!(kinds.len(), 27);
    }
}
