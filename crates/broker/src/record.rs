//! What an audit record says, and how it is written: one line of JSON that no terminal obeys.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use arcbroker_policy::{Caller, Identity, Unit};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use crate::clock::Clock;
use crate::stray::Strayed;

/// The version of a record.
const SCHEMA: u32 = 1;

/// Bytes of the longest text in a record. What callers can send is shorter.
const LONGEST_TEXT: usize = 1024;

/// How a request for a token ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A token was handed out.
    Issued,
    /// No rule allows it.
    Denied,
    /// It was no request that can be judged.
    Malformed,
    /// It was allowed, but there was no token.
    Unavailable,
    /// The client went away before the answer.
    Abandoned,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Issued,
        Self::Denied,
        Self::Malformed,
        Self::Unavailable,
        Self::Abandoned,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Abandoned => "abandoned",
        }
    }

    /// The one with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One decision. `docs/protocol.md` has the keys.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// The number that the client was told.
    pub id: RequestId,
    /// Who asked.
    pub caller: &'a Caller,
    /// Name of the user, for display.
    pub user: Option<&'a str>,
    /// Process that connected.
    pub pid: Option<i32>,
    /// This run of the caller's unit.
    pub invocation: Option<&'a str>,
    /// Whose token.
    pub identity: Option<&'a Identity>,
    /// For what.
    pub resource: Option<&'a str>,
    /// The rule that allowed it.
    pub rule: Option<&'a str>,
    /// Hash of the policy that was asked.
    pub policy: &'a str,
    /// `cache`, `fetch` or `stale`, for an issued token.
    pub cache: Option<&'a str>,
    /// How long the answer took.
    pub took: Duration,
    /// Of the issued token.
    pub token: Option<TokenFacts<'a>>,
    /// The endpoint of the caller that was asked.
    pub endpoint: Option<SocketAddr>,
    /// Why it is not the caller who asked there.
    pub stray: Option<Strayed>,
}

/// What a record says of an issued token.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// Unix seconds.
    pub expires_on: u64,
    /// The claim under which Entra logs the token's use.
    pub uti: Option<&'a str>,
    /// First 12 hex digits of its SHA-256.
    pub sha256: &'a str,
}

/// A number for a request: unique while the daemon runs, and very likely ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestId {
    pub(crate) run: u32,
    pub(crate) number: u64,
}

/// Records that are written but for their place in the chain.
#[derive(Debug, Default)]
pub struct Drafts {
    text: Vec<u8>,
    cuts: Vec<Cut>,
}

/// Where in a draft its place in the chain comes, and where it ends.
#[derive(Debug)]
struct Cut {
    link: usize,
    end: usize,
}

impl Drafts {
    /// Adds a record, as of now.
    pub fn push(&mut self, record: &Record<'_>, clock: &Clock) {
        self.object(&Head::new(clock));
        // Its brace: the object goes on.
        self.text.pop();
        let link = self.text.len();
        self.object(&Body::new(record));
        if let Some(brace) = self.text.get_mut(link) {
            *brace = b',';
        }
        let end = self.text.len();
        self.cuts.push(Cut { link, end });
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.cuts.len()
    }

    /// How much memory they take.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// What comes before, and what comes after the place in the chain.
    pub(crate) fn halves(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.cuts.iter().map(|cut| cut.end));
        starts.zip(&self.cuts).map(|(start, cut)| {
            let part = |range| self.text.get(range).unwrap_or_default();
            (part(start..cut.link), part(cut.link..cut.end))
        })
    }

    fn object(&mut self, object: &impl Serialize) {
        let mut serializer = serde_json::Serializer::with_formatter(&mut self.text, Visible);
        let written = object.serialize(&mut serializer);
        debug_assert!(
            written.is_ok(),
            "a record has only strings and numbers, and a Vec takes them all"
        );
    }
}

/// What a line begins with. The order of the keys is part of the format.
#[derive(Serialize)]
struct Head {
    schema: u32,
    time: Text<humantime::Rfc3339Timestamp>,
}

/// What comes after the place in the chain.
#[derive(Serialize)]
struct Body<'a> {
    id: Text<RequestId>,
    outcome: Outcome,
    uid: u32,
    gid: u32,
    user: Option<&'a str>,
    pid: Option<i32>,
    unit: Option<&'a str>,
    invocation: Option<&'a str>,
    container: Option<bool>,
    identity: Option<Text<&'a Identity>>,
    resource: Option<&'a str>,
    rule: Option<&'a str>,
    policy: &'a str,
    cache: Option<&'a str>,
    ms: u64,
    expires_on: Option<u64>,
    uti: Option<&'a str>,
    token_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stray: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stray_uid: Option<u32>,
}

impl Head {
    fn new(clock: &Clock) -> Self {
        let time = SystemTime::UNIX_EPOCH
            .checked_add(clock.now().wall)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            time: Text(humantime::format_rfc3339_millis(time)),
        }
    }
}

impl<'a> Body<'a> {
    fn new(record: &Record<'a>) -> Self {
        Self {
            id: Text(record.id),
            outcome: record.outcome,
            uid: record.caller.uid,
            gid: record.caller.gid,
            user: record.user.map(capped),
            pid: record.pid,
            unit: record.caller.unit.as_ref().map(Unit::as_str),
            invocation: record.invocation,
            container: record.caller.container,
            identity: record.identity.map(Text),
            resource: record.resource.map(capped),
            rule: record.rule.map(capped),
            policy: record.policy,
            cache: record.cache,
            ms: u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
            expires_on: record.token.map(|token| token.expires_on),
            uti: record.token.and_then(|token| token.uti).map(capped),
            token_sha256: record.token.map(|token| token.sha256),
            endpoint: record.endpoint,
            stray: record.stray.map(|stray| stray.why.as_str()),
            stray_uid: record.stray.and_then(|stray| stray.uid),
        }
    }
}

/// A name service or a token could hold more, and the longest line must fit into one datagram.
fn capped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST_TEXT))
        .unwrap_or(text)
}

/// JSON that shows on a terminal what is in it: JSON itself leaves DEL, the control characters
/// above it and those that hide or reorder others as they are.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if is_hidden(character) {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            } else {
                write!(writer, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Characters that command a terminal, or are not seen on it.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The text with every hidden character escaped but those that are `kept`.
pub(crate) fn visible(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) && !kept.contains(&character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

/// Written as the text that it is displayed as.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
