//! The command lines about the policy.

use std::{path::PathBuf, time::Duration};

use arcbroker_policy::Cloud;
use clap::{ArgGroup, Subcommand};

use crate::{duration, policy::request::Request, settings::Settings};

/// Which files are meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Files {
    /// The policy files, in place of those that the configuration names
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// The cloud whose resources short names stand for, in place of the machine's
    #[arg(long, value_name = "NAME", value_parser = cloud)]
    pub(crate) cloud: Option<Cloud>,
}

impl Files {
    pub(crate) fn dir(&self, settings: &Settings) -> PathBuf {
        self.policy_dir
            .clone()
            .unwrap_or_else(|| settings.policy_dir.clone())
    }

    /// What the command line says, what is configured, what the daemon knows, or the public cloud.
    pub(crate) fn cloud(&self, known: Option<Cloud>, settings: &Settings) -> Cloud {
        self.cloud.or(settings.cloud).or(known).unwrap_or_default()
    }
}

fn cloud(name: &str) -> Result<Cloud, String> {
    Cloud::from_az_environment(name).ok_or_else(|| {
        let names = Cloud::ALL.map(Cloud::az_environment);
        format!("write one of {}", names.join(", "))
    })
}

/// Who: all kinds that are named must hold, and of several of a kind, one.
#[derive(Debug, clap::Args)]
pub(crate) struct Who {
    /// A user, by name or number
    #[arg(long, value_name = "USER")]
    pub(crate) user: Vec<String>,
    /// A group, by name or number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// A unit of the system: NAME.service, NAME@*.service
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Vec<String>,
    /// Processes in containers; without it, those of the host (`rules` then shows both)
    #[arg(long)]
    pub(crate) container: bool,
}

/// Whose tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct Whom {
    #[command(flatten)]
    who: Who,
    /// Whose tokens: system (the default), client-id:GUID, object-id:GUID, resource-id:ID
    #[arg(long, value_name = "ID")]
    identity: Vec<String>,
}

impl Whom {
    pub(crate) fn request(&self, resources: &[String], bypass: bool) -> Request {
        Request {
            users: self.who.user.clone(),
            groups: self.who.group.clone(),
            units: self.who.unit.clone(),
            container: self.who.container,
            identities: self.identity.clone(),
            bypass,
            resources: resources.to_vec(),
        }
    }
}

/// One more rule.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("subject").args(["user", "group", "unit"]).multiple(true).required(true))]
pub(crate) struct Allow {
    #[command(flatten)]
    pub(crate) who: Whom,
    /// Let them also ask for a new token while the kept one is good
    #[arg(long)]
    pub(crate) bypass_cache: bool,
    /// The name of the rule
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Show the rule and what it would change, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) files: Files,
    /// A URI, taken byte for byte, or a short name: arm, keyvault, storage, graph, sql …
    #[arg(required = true)]
    pub(crate) resources: Vec<String>,
}

/// Less of the rules.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("subject").args(["user", "group", "unit", "rule"]).multiple(true).required(true))]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) who: Whom,
    /// Remove this whole rule
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "group", "unit", "container", "identity", "resources"])]
    pub(crate) rule: Option<String>,
    /// Show what it would change, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) files: Files,
    /// A URI, taken byte for byte, a short name, or '*' for all
    #[arg(required_unless_present = "rule")]
    pub(crate) resources: Vec<String>,
}

/// A rule that ends by itself.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").args(["user", "group", "unit", "list", "end"]).multiple(true).required(true))]
pub(crate) struct Grant {
    #[command(flatten)]
    pub(crate) who: Whom,
    /// For how long, a day at the most: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse, required_unless_present_any = ["list", "end"])]
    pub(crate) time: Option<Duration>,
    /// Why: it is in the log, in the audit records and in the status
    #[arg(long, required_unless_present_any = ["list", "end"])]
    pub(crate) reason: Option<String>,
    /// Show those that have not ended
    #[arg(long, conflicts_with_all = ["user", "group", "unit", "container", "identity", "time", "reason", "end", "resources"])]
    pub(crate) list: bool,
    /// End one before its time
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["user", "group", "unit", "container", "identity", "time", "reason", "resources"])]
    pub(crate) end: Option<u64>,
    /// A URI, taken byte for byte, or a short name: arm, keyvault, storage, graph, sql …
    #[arg(required_unless_present_any = ["list", "end"])]
    pub(crate) resources: Vec<String>,
}

/// Which rules to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Rules {
    #[command(flatten)]
    pub(crate) who: Who,
    /// Print JSON, as documented in docs/protocol.md
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: Files,
    /// Only rules that give this: a URI, or a short name
    pub(crate) resource: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Hold the policy to decisions that are expected of it
    #[command(after_help = TEST_EXIT_CODES)]
    Test(Test),
    /// Show who gains and who loses what between two directories of policy files
    #[command(after_help = DIFF_EXIT_CODES)]
    Diff(Diff),
    /// Judge past audit records by a policy, and list every decision that would be another one
    #[command(after_help = REPLAY_EXIT_CODES)]
    Replay(Replay),
    /// Put the files of the shadow directory in force, and keep the old ones aside
    Promote(Promote),
}

/// What is expected.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The expectations: TOML, as in docs/policy.md
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) files: Files,
}

/// Two policies.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// A directory of policy files
    pub(crate) old: PathBuf,
    /// Another
    pub(crate) new: PathBuf,
    /// The cloud whose resources short names stand for
    #[arg(long, value_name = "NAME", value_parser = cloud)]
    pub(crate) cloud: Option<Cloud>,
    /// Print JSON, as documented in docs/protocol.md
    #[arg(long)]
    pub(crate) json: bool,
}

/// A policy, and how far back.
#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// Only records of this time: 12h, 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// The policy files to judge by, in place of those in force
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: Option<PathBuf>,
    /// The cloud whose resources short names stand for
    #[arg(long, value_name = "NAME", value_parser = cloud)]
    pub(crate) cloud: Option<Cloud>,
    /// Print JSON, as documented in docs/protocol.md
    #[arg(long)]
    pub(crate) json: bool,
}

/// The shadow policy.
#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The cloud whose resources short names stand for, in place of the machine's
    #[arg(long, value_name = "NAME", value_parser = cloud)]
    pub(crate) cloud: Option<Cloud>,
}

const TEST_EXIT_CODES: &str =
    "Exit codes: 0 all met, 1 some not met, or a file has mistakes, 2 usage.";

const DIFF_EXIT_CODES: &str =
    "Exit codes: 0 same, 1 different, 2 usage, or a file cannot be read or has mistakes.";

const REPLAY_EXIT_CODES: &str = "Exit codes: 0 every decision is the same, 1 some flip, \
    2 usage, or a file cannot be read or has mistakes.";
