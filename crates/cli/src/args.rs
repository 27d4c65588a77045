//! The command line.

pub(crate) mod audit;
pub(crate) mod policy;

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use arcbroker_client::{
    ADMIN_SOCKET_VARIABLE, Client, Identity, OWNER_VARIABLE, Owner, SOCKET_VARIABLE, TokenRequest,
    wire::{DEFAULT_ADMIN_SOCKET, DEFAULT_TOKEN_SOCKET, Lifetime},
};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::{duration, exit::Exit, settings::CONFIG_VARIABLE};

/// Access tokens of this machine's managed identity, from the arcbroker daemon.
#[derive(Debug, Parser)]
#[command(name = "arcbroker", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    /// The daemon's configuration, which names the policy and the audit file
    /// [default: /etc/arcbroker/broker.toml, where it is there]
    #[arg(long, global = true, value_name = "FILE", env = CONFIG_VARIABLE)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, Usage> {
        let args: Vec<OsString> = args.into_iter().collect();
        let read = definition().try_get_matches_from(&args).and_then(|found| {
            Self::from_arg_matches(&found).map_err(|error| error.format(&mut definition()))
        });
        read.map_err(|error| Usage {
            exit: match error.exit_code() {
                0 => Exit::OK,
                _ if names(&args, "status") => Exit::USAGE_OF_STATUS,
                _ if names(&args, "exec") => Exit::NOT_RUN,
                _ => Exit::USAGE,
            },
            error,
        })
    }
}

/// A command line that cannot be carried out, or asks for help.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) error: clap::Error,
    pub(crate) exit: Exit,
}

/// Where the broker is.
#[derive(Debug, clap::Args)]
pub(crate) struct Sockets {
    /// The socket that tokens come from
    #[arg(long, global = true, value_name = "PATH", env = SOCKET_VARIABLE, default_value = DEFAULT_TOKEN_SOCKET)]
    socket: PathBuf,
    /// The socket for administrators
    #[arg(long, global = true, value_name = "PATH", env = ADMIN_SOCKET_VARIABLE, default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,
    /// A user, besides root and yourself, who may serve these sockets
    #[arg(long, global = true, value_name = "USER", env = OWNER_VARIABLE)]
    socket_owner: Option<Owner>,
}

impl Sockets {
    pub(crate) fn tokens(&self) -> Client {
        self.believing(Client::new(&self.socket))
    }

    pub(crate) fn admin(&self) -> Client {
        self.believing(Client::new(&self.admin_socket))
    }

    fn believing(&self, client: Client) -> Client {
        match self.socket_owner {
            Some(owner) => client.with_owner(owner),
            None => client,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print an access token and a newline, nothing else
    Token(Token),
    /// Run a program, unmodified, with an address of its own from which every Azure SDK gets its tokens
    #[command(after_help = EXEC_EXIT_CODES)]
    Exec(Exec),
    /// Show how the broker sees this process, and which resources it may have
    Whoami {
        /// Print JSON, as documented in docs/protocol.md
        #[arg(long)]
        json: bool,
    },
    /// Show the broker's health, tokens and requests
    #[command(after_help = STATUS_EXIT_CODES)]
    Status {
        /// Print JSON, as documented in docs/protocol.md
        #[arg(long)]
        json: bool,
    },
    /// Allow somebody tokens: writes a rule, checks it with all others, and has the broker take it up
    #[command(
        after_help = "Exit codes: 0 done, or given already, 1 failed, 2 usage, 4 broker unreachable."
    )]
    Allow(policy::Allow),
    /// Take tokens away from somebody: edits the rules, so that this and nothing else is lost
    #[command(
        after_help = "Exit codes: 0 done, 1 failed, or other rules still give it, 2 usage, 4 broker unreachable."
    )]
    Revoke(policy::Revoke),
    /// Show who may have what, and by which rule
    Rules(policy::Rules),
    /// Try the policy, compare it, and put the next one in force
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Read and verify the record of decisions
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Have the broker load its policy again (needs root)
    #[command(
        after_help = "Exit codes: 0 in force, 1 refused: the old policy stays, 2 usage, 4 broker unreachable."
    )]
    Reload,
    /// Drop the broker's tokens: the next request gets a new one (needs root)
    Flush {
        /// Only those for this resource: a URI, or a short name
        resource: Option<String>,
    },
    /// Have the broker's tokens refreshed now; the old ones are served meanwhile (needs root)
    Refresh {
        /// Only those for this resource: a URI, or a short name
        resource: Option<String>,
    },
    /// Allow somebody tokens for a while: a rule in the broker's memory that ends by itself (needs root)
    Grant(policy::Grant),
    /// Explain a decision: that of a request, the last denials, or a made-up one (needs root)
    Why(Why),
    /// Try it all without Azure: a simulator of HIMDS and a broker in a temporary directory
    Demo {
        /// End by itself instead of waiting for Ctrl-C
        #[arg(long)]
        once: bool,
    },
    /// Print what a shell needs to complete command lines of arcbroker
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages of all commands: for those who make packages
    #[command(hide = true)]
    Manual { directory: PathBuf },
    /// Become PROGRAM, and get SIGTERM when PARENT ends
    #[command(hide = true)]
    Beneath {
        parent: i32,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Fish,
    Zsh,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    /// A URI, taken byte for byte, or a short name: arm, keyvault, storage, graph, sql …
    resource: String,
    #[command(flatten)]
    selector: Selector,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub(crate) format: Format,
    /// Fail (exit 5) if the token is good for less than this: 30s, 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) min_validity: Option<Duration>,
    /// For boot scripts: while the broker or a token cannot be had, try again for this long
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "0s", hide_default_value = true)]
    pub(crate) wait: Duration,
}

impl Token {
    pub(crate) fn request(&self) -> TokenRequest {
        TokenRequest::new(&self.resource).with_identity(self.selector.identity())
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    #[arg(
        long,
        help = "Also offer the address to programs that honour AZURE_POD_IDENTITY_AUTHORITY_HOST"
    )]
    pub(crate) imds: bool,
    /// Serve as long as anything runs in this unit: for programs that go into the background
    #[arg(long)]
    pub(crate) unit_lifetime: bool,
    /// Print the environment instead of running a program, and serve as long as the process that started this one
    #[arg(long, value_name = "FORMAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "sh")]
    pub(crate) print_env: Option<EnvFormat>,
    /// The program, and its arguments
    #[arg(
        trailing_var_arg = true,
        value_name = "PROGRAM",
        required_unless_present = "print_env",
        conflicts_with = "print_env"
    )]
    pub(crate) program: Vec<OsString>,
}

impl Exec {
    pub(crate) fn lifetime(&self) -> Lifetime {
        match (self.unit_lifetime, self.print_env) {
            (true, _) => Lifetime::Unit,
            (false, Some(_)) => Lifetime::Parent,
            (false, None) => Lifetime::Process,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum EnvFormat {
    /// Lines for a shell: eval "$(arcbroker exec --print-env)"
    Sh,
    #[value(help = "Lines for EnvironmentFile= of systemd")]
    Systemd,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// The number of a request, as a denial names it; with --user or --unit, a resource: a URI, or a
    /// short name. Without, the last denials
    pub(crate) subject: Option<String>,
    /// Judge a request of this user: a name or a number
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Judge a request from this service or scope; without --user, of root
    #[arg(long)]
    pub(crate) unit: Option<String>,
    /// … by somebody in this group as well: a name or a number
    #[arg(long)]
    pub(crate) group: Vec<String>,
    /// … in a container
    #[arg(long)]
    pub(crate) container: bool,
    /// … for a token of this identity, as the policy writes it
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// Print JSON, as documented in docs/protocol.md
    #[arg(long)]
    pub(crate) json: bool,
}

/// The identity to be; without any, the broker's default one.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
#[expect(
    clippy::struct_field_names,
    reason = "the options are named after them"
)]
struct Selector {
    /// Ask as the user-assigned identity with this client id
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Ask as the user-assigned identity with this object id
    #[arg(long, value_name = "ID")]
    object_id: Option<String>,
    /// Ask as the user-assigned identity with this Azure resource id
    #[arg(long, value_name = "ID")]
    resource_id: Option<String>,
}

impl Selector {
    fn identity(&self) -> Identity {
        let client = self.client_id.clone().map(Identity::ClientId);
        let object = self.object_id.clone().map(Identity::ObjectId);
        let resource = self.resource_id.clone().map(Identity::ResourceId);
        client.or(object).or(resource).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    #[value(
        help = "One JSON object: schema, access_token, expires_on, expires_in, resource, token_type, client_id"
    )]
    Json,
    /// The token alone
    Raw,
}

/// As derived, but an empty environment variable counts as none, as in the library.
fn definition() -> clap::Command {
    let variables = [
        ("socket", SOCKET_VARIABLE),
        ("admin_socket", ADMIN_SOCKET_VARIABLE),
        ("socket_owner", OWNER_VARIABLE),
        ("config", CONFIG_VARIABLE),
    ];
    let empty = variables
        .into_iter()
        .filter(|(_, variable)| env::var_os(variable).is_some_and(|value| value.is_empty()));
    empty.fold(Args::command(), |command, (option, _)| {
        command.mut_arg(option, |arg| arg.env(None::<&'static str>))
    })
}

/// Whether a command line that is wrong somewhere is one of this command, of which exit code 2 means
/// something else.
fn names(args: &[OsString], command: &str) -> bool {
    definition()
        .ignore_errors(true)
        .try_get_matches_from(args)
        .is_ok_and(|matches| matches.subcommand_name() == Some(command))
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 denied by policy, \
    4 broker unreachable, 5 no token to be had upstream.";

const EXEC_EXIT_CODES: &str = "Exit codes: those of the program; 125 it was not run, 126 it cannot be run, \
    127 there is no such program.";

const STATUS_EXIT_CODES: &str = "Exit codes: 0 healthy, 1 degraded or starting, \
    2 failing (a wanted resource has no token), 4 broker unreachable, 64 usage.";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, Usage> {
        Args::read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definitions_are_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_of_status_has_a_code_of_its_own() {
        for (line, exit) in [
            ("arcbroker", Exit::USAGE),
            ("arcbroker tokne arm", Exit::USAGE),
            ("arcbroker token", Exit::USAGE),
            ("arcbroker token status --wait x", Exit::USAGE),
            ("arcbroker --socket status token", Exit::USAGE),
            ("arcbroker status --jsno", Exit::USAGE_OF_STATUS),
            ("arcbroker status extra", Exit::USAGE_OF_STATUS),
            (
                "arcbroker --socket /s status --socket",
                Exit::USAGE_OF_STATUS,
            ),
            ("arcbroker exec", Exit::NOT_RUN),
            ("arcbroker exec --no-such-option", Exit::NOT_RUN),
            ("arcbroker exec --print-env true", Exit::NOT_RUN),
            ("arcbroker status --help", Exit::OK),
            ("arcbroker --version", Exit::OK),
        ] {
            assert_eq!(read(line).unwrap_err().exit, exit, "{line}");
        }
    }

    #[test]
    fn what_follows_a_program_is_its_own() {
        for line in [
            "arcbroker exec -- app --imds -x",
            "arcbroker exec app --imds -x",
        ] {
            let args = read(line).unwrap();
            let Command::Exec(exec) = args.command else {
                panic!("{args:?}");
            };
            assert!(!exec.imds, "{line}");
            assert_eq!(exec.program, ["app", "--imds", "-x"], "{line}");
        }
    }

    #[test]
    fn one_identity_at_a_time() {
        let args = read("arcbroker token arm --object-id o").unwrap();
        let Command::Token(token) = args.command else {
            panic!("{args:?}");
        };
        let expected = TokenRequest::new("arm").with_identity(Identity::ObjectId("o".into()));
        assert_eq!(token.request(), expected);
        assert!(read("arcbroker token arm --object-id o --client-id c").is_err());
    }
}
