//! A program below `arcbroker exec`.

use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::{Answer, DAEMON_UID, PATIENCE, World, binary, is_root};

/// A shell with an endpoint of its own, which does what it is told.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    endpoint: Endpoint,
}

/// What whoever has the environment of a program can ask with.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// What opens it.
    pub secret: String,
}

impl Deref for Program {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// What a request to an endpoint has besides the secret.
const QUERY: &str = "api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net";

impl Program {
    /// Starts one, with these words before the command and these options.
    pub async fn start(world: &World, before: &[String], options: &[&str]) -> Self {
        let mut command = exec(world, before, options, &["sh"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut program = Self {
            child,
            input,
            output: BufReader::new(output),
            endpoint: Endpoint {
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
                secret: String::new(),
            },
        };
        let endpoint = program
            .run("echo $IDENTITY_ENDPOINT $IDENTITY_HEADER")
            .await;
        let (url, secret) = endpoint.trim().split_once(' ').expect("it has an endpoint");
        let address = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split('/').next());
        program.endpoint.address = address.unwrap().parse().unwrap();
        secret.clone_into(&mut program.endpoint.secret);
        program
    }

    /// What a line prints.
    pub async fn run(&mut self, line: &str) -> String {
        let line = format!("{line}\nprintf '\\0'\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
        let mut printed = Vec::new();
        let read = self.output.read_until(0, &mut printed);
        timeout(PATIENCE, read).await.expect("it answers").unwrap();
        assert_eq!(printed.pop(), Some(0), "the shell ended");
        String::from_utf8(printed).unwrap()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Ends it.
    pub async fn end(mut self) -> ExitStatus {
        drop(self.input);
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .unwrap()
    }

    /// To ask with when it has ended.
    pub fn asking(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// A request for a token of Key Vault by the program itself, with curl.
    pub async fn fetch(&mut self) -> Answer {
        self.fetch_through("").await
    }

    /// The same with these words before curl.
    pub async fn fetch_through(&mut self, before: &str) -> Answer {
        let curl = "curl --silent --include --max-time 20 --header \"X-IDENTITY-HEADER: $IDENTITY_HEADER\"";
        let printed = self
            .run(&format!("{before} {curl} \"$IDENTITY_ENDPOINT?{QUERY}\""))
            .await;
        Answer::parse(printed.as_bytes())
    }
}

impl Endpoint {
    /// A request for a token of Key Vault by this process, which is another than the program.
    pub async fn ask(&self) -> Answer {
        let secret = format!("X-IDENTITY-HEADER: {}", self.secret);
        self.get(&format!("/msi/token?{QUERY}"), &[&secret]).await
    }

    /// A GET by this process with these header lines.
    pub async fn get(&self, target: &str, headers: &[&str]) -> Answer {
        let host = format!("Host: {}", self.address);
        let mut lines = vec![host.as_str()];
        lines.extend(headers);
        self.get_bare(target, &lines).await
    }

    /// The same with no Host but what is among them.
    pub async fn get_bare(&self, target: &str, headers: &[&str]) -> Answer {
        let request = format!(
            "GET {target} HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n",
            headers.join("\r\n")
        );
        let exchange = async {
            let mut stream = TcpStream::connect(self.address)
                .await
                .expect("it is served");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            answer
        };
        Answer::parse(&timeout(PATIENCE, exchange).await.expect("it answers"))
    }
}

/// `arcbroker exec`, ready to be run.
pub fn exec(world: &World, before: &[String], options: &[&str], program: &[&str]) -> Command {
    let arcbroker = binary("arcbroker").display().to_string();
    let mut words = before
        .iter()
        .map(String::as_str)
        .chain([arcbroker.as_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg("exec").args(options);
    if !program.is_empty() {
        command.arg("--").args(program);
    }
    command
        .env("ARCBROKER_SOCKET", world.token_socket())
        .env("ARCBROKER_CONFIG", "")
        .env_remove("http_proxy")
        .kill_on_drop(true);
    if is_root() {
        command.env("ARCBROKER_SOCKET_OWNER", DAEMON_UID.to_string());
    }
    command
}
