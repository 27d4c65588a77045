//! `[upstream]`: where tokens come from, and how much is asked for.

use arcbroker_policy::{Cloud, Identity, IdentityError, Spanned};

use crate::challenge::KeyFiles;
use crate::detect::Choice;
use crate::himds::Himds;
use crate::imds::{self, Imds};
use crate::kind::Kind;
use crate::section::Section;
use crate::{turns, upstream};

const HIMDS: &str = "http://127.0.0.1:40342";
const IMDS: &str = "http://169.254.169.254";
pub(super) const TOKENS_DIR: &str = "/var/opt/azcmagent/tokens";
const DETECT_ROOT: &str = "/";
const FETCHES_PER_SECOND: u32 = 5;

/// `None` is "auto".
const KINDS: [(&str, Option<Kind>); 3] = [
    ("auto", None),
    ("himds", Some(Kind::Himds)),
    ("imds", Some(Kind::Imds)),
];

/// The whole table.
pub(super) struct Read {
    pub(super) options: upstream::Options,
    pub(super) cloud: Option<Cloud>,
    pub(super) identity: Identity,
    pub(super) turns: turns::Options,
}

pub(super) fn read(section: &mut Section<'_, '_>) -> Read {
    let kind = section.choice("kind", &KINDS).flatten();
    let himds_endpoint = section.endpoint(
        "himds-endpoint",
        HIMDS,
        |ip| ip.is_loopback(),
        "this is not a loopback address: a token asked for there would cross the network",
    );
    let imds_endpoint = section.endpoint(
        "imds-endpoint",
        IMDS,
        |ip| ip.is_loopback() || ip == imds::ADDRESS,
        "this is neither the address of IMDS nor a loopback address: a token asked for there would cross the network",
    );
    let dir = section.path("tokens-dir", TOKENS_DIR);
    let root = section.path("detect-root", DETECT_ROOT);
    let owners = section.lasting_owners(&["root", "himds"]);
    let options = upstream::Options {
        choice: kind.map_or_else(Choice::undecided, Choice::configured),
        root,
        himds: Himds {
            endpoint: himds_endpoint,
            owners: owners.clone(),
            keys: KeyFiles {
                dir,
                owners: owners.clone(),
            },
        },
        imds: Imds {
            endpoint: imds_endpoint,
            owners,
        },
    };
    Read {
        options,
        cloud: cloud(section),
        identity: identity(section),
        turns: turns(section, kind),
    }
}

fn cloud(section: &mut Section<'_, '_>) -> Option<Cloud> {
    let named = Cloud::ALL.map(|cloud| (cloud.az_environment(), Some(cloud)));
    let choices: Vec<_> = std::iter::once(("auto", None)).chain(named).collect();
    section.choice("cloud", &choices).flatten()
}

fn identity(section: &mut Section<'_, '_>) -> Identity {
    let Some(text) = section.string("identity") else {
        return Identity::System;
    };
    text.value.parse().unwrap_or_else(|error: IdentityError| {
        section.error(&text, error.problem(), error.help());
        Identity::System
    })
}

fn turns(section: &mut Section<'_, '_>, kind: Option<Kind>) -> turns::Options {
    let written = section.integer("fetches-per-second", 1..=1_000_000);
    let number = |written: &Spanned<i64>| u32::try_from(written.value).unwrap_or(u32::MAX);
    let mut per_second = written.as_ref().map_or(FETCHES_PER_SECOND, number);
    if let (Some(kind), Some(written)) = (kind, &written)
        && let Some(most) = kind.most_per_second().filter(|most| per_second > *most)
    {
        let what = format!("{kind} takes no more than {most} requests for tokens in a second");
        section
            .diagnostics
            .warning_at(written, what, format!("{most} is used"));
        per_second = most;
    }
    turns::Options {
        conversations: kind.unwrap_or(Kind::Himds).conversations(),
        per_second,
    }
}
