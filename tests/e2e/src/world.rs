//! One broker, one simulator, one directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

use arcbroker_client::Client;
use arcbroker_client::wire::StatusAnswer;
use himds_sim::{Clock, Options, Simulator};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::process::Command;

use crate::{
    Answer, Connection, DAEMON_UID, Daemon, HIMDS_GID, PATIENCE, SOCKET_GID, User, binary,
    eventually, is_root,
};

/// What a test wants to be different.
#[derive(Debug)]
pub struct Setup {
    /// The file `policy.d/test.toml`.
    pub policy: String,
    /// Lines that are added to the tables of the configuration, by the name of the table.
    pub config: Vec<(&'static str, String)>,
    /// Where tokens come from: `[upstream] kind`.
    pub kind: &'static str,
    /// Files below the root in which the daemon looks for signs of a kind.
    pub signs: Vec<(&'static str, &'static str)>,
    /// The simulator.
    pub simulator: fn(&mut Options),
    /// What the simulator takes for the time.
    pub clock: Clock,
    /// A program below which the daemon runs; `{dir}` in it stands for the test's directory.
    pub wrapper: Vec<String>,
}

/// A port of nobody.
const NOBODY: &str = "http://127.0.0.1:1";

/// A rule that lets the user who runs the tests have Key Vault, storage and ARM.
impl Default for Setup {
    fn default() -> Self {
        let uid = geteuid();
        Self {
            policy: format!(
                "version = 1\n[[rule]]\nname = \"test\"\nuser = {uid}\nresources = [\"keyvault\", \"storage\", \"arm\"]\n"
            ),
            config: Vec::new(),
            kind: "auto",
            signs: Vec::new(),
            simulator: |_| {},
            clock: Clock::system(),
            wrapper: Vec::new(),
        }
    }
}

/// Everything that runs for one test.
#[derive(Debug)]
pub struct World {
    pub(crate) simulator: Option<Simulator>,
    pub(crate) options: Options,
    /// Keeps the simulator's port from others while it is stopped.
    pub(crate) port: Option<TcpSocket>,
    wrapper: Vec<String>,
    /// The daemon under test.
    pub daemon: Daemon,
    /// Removed last: by then nobody writes into it.
    dir: TempDir,
}

impl World {
    /// Starts with the default set-up.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// Starts a simulator and a daemon, and waits until both answer.
    pub async fn with(setup: Setup) -> Self {
        let dir = make_directories();
        let mut options = Options::new(dir.path().join("tokens"));
        options.key_mode = 0o640;
        options.clock = setup.clock.clone();
        (setup.simulator)(&mut options);
        let simulator = Simulator::start(options.clone()).await.unwrap();
        // To be started again on the same port.
        options.listen = simulator.address();
        write_policy(dir.path(), &setup.policy);
        for (file, text) in &setup.signs {
            let path = dir.path().join("root").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(
            dir.path().join("broker.toml"),
            config(dir.path(), &simulator.endpoint(), options.imds, &setup),
        )
        .unwrap();
        let place = dir.path().display().to_string();
        let wrapper: Vec<_> = setup
            .wrapper
            .iter()
            .map(|word| word.replace("{dir}", &place))
            .collect();
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let daemon = Daemon::spawn_through(
            &wrapper,
            &dir.path().join("broker.toml"),
            &dir.path().join("log"),
        );
        let mut world = Self {
            dir,
            simulator: Some(simulator),
            options,
            port: None,
            wrapper: setup.wrapper.clone(),
            daemon,
        };
        world.wait_ready().await;
        world
    }

    /// Starts the daemon once more with the same files, after the old one has ended.
    pub async fn restart_daemon(&mut self) {
        self.daemon.signal(nix::sys::signal::Signal::SIGTERM);
        self.daemon.wait().await;
        self.start_daemon().await;
    }

    /// Starts a daemon with the same files, in place of one that has ended.
    pub async fn start_daemon(&mut self) {
        let wrapper: Vec<_> = self.wrapper.iter().map(String::as_str).collect();
        self.daemon = Daemon::spawn_through(&wrapper, &self.path("broker.toml"), &self.path("log"));
        self.wait_ready().await;
    }

    async fn wait_ready(&mut self) {
        let (socket, daemon) = (
            self.admin_socket(),
            std::cell::RefCell::new(&mut self.daemon),
        );
        eventually("the daemon is ready", || async {
            assert!(
                daemon.borrow_mut().is_running(),
                "the daemon ended:\n{}",
                daemon.borrow().log()
            );
            UnixStream::connect(&socket).await.is_ok()
        })
        .await;
    }

    /// A path in the directory of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The token socket.
    pub fn token_socket(&self) -> PathBuf {
        self.path("run/token.sock")
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.path("run/admin.sock")
    }

    /// Writes the policy file anew.
    pub fn write_policy(&self, policy: &str) {
        write_policy(self.dir.path(), policy);
    }

    /// A client of the admin socket.
    pub fn admin_client(&self) -> Client {
        let client = Client::new(self.admin_socket());
        if is_root() {
            client.with_owner(DAEMON_UID)
        } else {
            client
        }
    }

    /// Runs the shipped `arcbroker` on the sockets and with the configuration of this test.
    pub async fn arcbroker(&self, arguments: &[&str]) -> Output {
        let owner = if is_root() {
            DAEMON_UID
        } else {
            geteuid().as_raw()
        };
        let run = Command::new(binary("arcbroker"))
            .arg("--socket")
            .arg(self.token_socket())
            .arg("--admin-socket")
            .arg(self.admin_socket())
            .args(["--socket-owner", &owner.to_string()])
            .args(arguments)
            .env("ARCBROKER_CONFIG", self.path("broker.toml"))
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, run).await;
        output.expect("the command ends").unwrap()
    }

    /// A client of our own crate. As root, it is told that the daemon's user owns the socket.
    pub fn client(&self) -> Client {
        let client = Client::new(self.token_socket());
        if is_root() {
            client.with_owner(DAEMON_UID)
        } else {
            client
        }
    }

    /// A GET on the token socket with `Metadata: true`.
    pub async fn get(&self, target: &str) -> Answer {
        self.get_with(target, &["Metadata: true"]).await
    }

    /// A GET on the token socket with these header lines and no others but Host.
    pub async fn get_with(&self, target: &str, headers: &[&str]) -> Answer {
        let mut request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        Answer::parse(&self.raw(request.as_bytes()).await)
    }

    /// A request for a token for this resource.
    pub async fn token(&self, resource: &str) -> Answer {
        self.get(&format!(
            "/metadata/identity/oauth2/token?api-version=2019-11-01&resource={resource}"
        ))
        .await
    }

    /// Sends bytes on a new connection to the token socket, and reads until it is closed.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        exchange(&self.token_socket(), bytes).await
    }

    /// A GET on the admin socket.
    pub async fn admin(&self, target: &str) -> Answer {
        self.ask_admin("GET", target).await
    }

    /// A POST on the admin socket.
    pub async fn command(&self, target: &str) -> Answer {
        self.ask_admin("POST", target).await
    }

    async fn ask_admin(&self, method: &str, target: &str) -> Answer {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        Answer::parse(&exchange(&self.admin_socket(), request.as_bytes()).await)
    }

    /// What `/v1/status` says.
    pub async fn status(&self) -> StatusAnswer {
        serde_json::from_str(&self.admin("/v1/status").await.body).unwrap()
    }

    /// All audit records.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("log.d/audit.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A connection to the token socket that is kept.
    pub async fn connect(&self) -> Connection {
        Connection::open(&self.token_socket()).await
    }

    /// A request for a token by another user; needs root.
    pub async fn token_as(&self, user: &User, resource: &str) -> Answer {
        let target = format!(
            "http://localhost/metadata/identity/oauth2/token?api-version=2019-11-01&resource={resource}"
        );
        self.get_as(user, &target).await
    }

    /// A GET by another user; needs root.
    pub async fn get_as(&self, user: &User, url: &str) -> Answer {
        let output = self
            .curl_as(user, &["--include", "--header", "Metadata: true", url])
            .await;
        assert!(output.status.success(), "{output:?}");
        Answer::parse(&output.stdout)
    }

    /// Runs curl as another user on the token socket; needs root.
    pub async fn curl_as(&self, user: &User, arguments: &[&str]) -> Output {
        let mut before = vec!["setpriv".to_owned()];
        before.extend(user.setpriv());
        self.curl_in(&before, arguments).await
    }

    /// Runs curl on the token socket, with these words before the command.
    pub async fn curl_in(&self, before: &[String], arguments: &[&str]) -> Output {
        let mut words = before.iter().map(String::as_str).chain(["curl"]);
        let run = Command::new(words.next().unwrap())
            .args(words)
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--unix-socket",
            ])
            .arg(self.token_socket())
            .args(arguments)
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(PATIENCE, run)
            .await
            .expect("curl ends")
            .unwrap()
    }
}

/// Sends bytes on a new connection and reads until it is closed.
async fn exchange(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The other end may have had enough before all is sent; what it said is still there to read.
    stream.write_all(bytes).await.unwrap_or_default();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the connection is closed in time")
        .unwrap_or_default();
    answer
}

/// What is made from now on may be read by the daemon, which is another user.
pub(crate) fn let_others_read() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// The directories of a machine, with the owners and modes that the package gives them.
fn make_directories() -> TempDir {
    let_others_read();
    let dir = tempfile::Builder::new().prefix("arcb").tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    // setgid: key files belong to the group that may read them.
    for (name, mode, gid) in [
        ("tokens", 0o2750, HIMDS_GID),
        ("policy.d", 0o755, 0),
        ("run", 0o755, SOCKET_GID),
        ("log.d", 0o750, DAEMON_UID),
    ] {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        if is_root() {
            let owner = if matches!(name, "run" | "log.d") {
                DAEMON_UID
            } else {
                0
            };
            chown(&path, Some(owner), Some(gid)).unwrap();
        }
        set_mode(&path, mode);
    }
    dir
}

fn write_policy(dir: &Path, policy: &str) {
    let path = dir.join("policy.d/test.toml");
    fs::write(&path, policy).unwrap();
    set_mode(&path, 0o644);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The machine that the daemon sees has no sign of any kind but those of the set-up: what the real
/// one has must not matter.
fn config(dir: &Path, endpoint: &str, imds: bool, setup: &Setup) -> String {
    let (uid, dir) = (geteuid(), dir.display());
    // Nobody listens on the port of the other kind.
    let (himds, imds) = if imds {
        (NOBODY, endpoint)
    } else {
        (endpoint, NOBODY)
    };
    let kind = setup.kind;
    let group = if is_root() {
        SOCKET_GID
    } else {
        getegid().as_raw()
    };
    let tables = [
        (
            "upstream",
            format!(
                "kind = \"{kind}\"\nhimds-endpoint = \"{himds}\"\nimds-endpoint = \"{imds}\"\n\
                 detect-root = \"{dir}/root\"\ntokens-dir = \"{dir}/tokens\"\nowners = [{uid}]\n\
                 # Tests ask for many resources at once.\nfetches-per-second = 1000\n"
            ),
        ),
        (
            "sockets",
            format!(
                "token = \"{dir}/run/token.sock\"\ntoken-group = \"{group}\"\nadmin = \"{dir}/run/admin.sock\"\n"
            ),
        ),
        (
            "policy",
            format!(
                "dir = \"{dir}/policy.d\"\nshadow-dir = \"{dir}/policy.shadow.d\"\nowners = [{uid}]\n"
            ),
        ),
        ("callers", String::new()),
        (
            "audit",
            format!(
                "file = \"{dir}/log.d/audit.jsonl\"\n\
                 # Not that of the machine on which the tests run.\njournal-socket = \"{dir}/journal.sock\"\n"
            ),
        ),
        ("limits", String::new()),
        ("log", "level = \"debug\"\n".to_owned()),
    ];
    let more = |name: &str| -> Vec<&str> {
        setup
            .config
            .iter()
            .filter(|(table, _)| *table == name)
            .map(|(_, lines)| lines.as_str())
            .collect()
    };
    let table =
        |(name, lines): &(&str, String)| format!("[{name}]\n{lines}{}\n", more(name).join("\n"));
    tables.iter().map(table).collect::<Vec<_>>().concat()
}
