//! Unmodified programs: `arcbroker exec` gives them an endpoint, and is gone.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::process::Stdio;

use arcbroker_e2e::{Program, Setup, User, World, eventually, exec, skip_unless_root};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const ALICE: User = User::in_socket_group(64_101);
const TOKEN: &str = "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net";

async fn output(world: &World, options: &[&str], program: &[&str]) -> std::process::Output {
    exec(world, &[], options, program).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_program_gets_tokens_and_one_request_is_one_record() {
    let world = World::start().await;
    let mut program = Program::start(&world, &[], &[]).await;
    let answer = program.fetch().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    for key in ["access_token", "expires_on", "resource", "token_type"] {
        assert!(body[key].is_string(), "{key}: {body}");
    }
    let records = world.audit();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record["outcome"], "issued");
    assert_eq!(record["pid"], program.pid());
    assert_eq!(record["endpoint"], program.address.to_string());
    assert!(record.get("stray").is_none());
    assert!(program.end().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_becomes_the_program_and_leaves_nothing_behind() {
    let world = World::start().await;
    let mut program = Program::start(&world, &[], &[]).await;
    let pid = program.pid();
    assert_eq!(program.run("echo $$").await.trim(), pid.to_string());
    assert_eq!(
        program.run(OPEN).await,
        plain_shell(OPEN).await,
        "no descriptor of arcbroker's is left"
    );
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(children, "", "no process stays");
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(words, b"sh\0", "t13: no secret in its arguments");
}

/// Descriptors of the shell, which opens one for the pipe that it reads from.
const OPEN: &str = "ls /proc/$$/fd";

/// The same line in a shell without anything before it.
async fn plain_shell(line: &str) -> String {
    let mut shell = Command::new("sh");
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    input
        .write_all(format!("{line}\n").as_bytes())
        .await
        .unwrap();
    drop(input);
    String::from_utf8(shell.wait_with_output().await.unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_those_of_the_program_or_of_env() {
    let mut world = World::start().await;
    for (program, code) in [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["/no/such/program"], 127),
        (vec!["/etc/passwd"], 126),
    ] {
        let run = output(&world, &[], &program).await;
        assert_eq!(run.status.code(), Some(code), "{run:?}");
    }
    world.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    world.daemon.wait().await;
    let run = output(&world, &[], &["true"]).await;
    assert_eq!(run.status.code(), Some(125), "{run:?}");
    assert!(
        String::from_utf8_lossy(&run.stderr).contains("no broker answers"),
        "{run:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a17_an_endpoint_ends_with_its_program() {
    let world = World::start().await;
    let program = Program::start(&world, &[], &[]).await;
    let address = program.address;
    assert_eq!(world.status().await.connections.endpoints, 1);
    program.end().await;
    eventually("the endpoint is closed", || async {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    eventually("its place is free", || async {
        world.status().await.connections.endpoints == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_final_and_says_how_to_allow_it() {
    let setup = Setup {
        policy: "version = 1\n".to_owned(),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let mut program = Program::start(&world, &[], &[]).await;
    let answer = program.fetch().await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let body = answer.json();
    assert_eq!(
        (body["statusCode"].as_u64(), answer.header("retry-after")),
        (Some(403), None)
    );
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("sudo arcbroker allow"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a04_to_a07_versions_and_selectors_of_app_service() {
    let world = World::start().await;
    let program = Program::start(&world, &[], &[]).await;
    let secret = format!("X-IDENTITY-HEADER: {}", program.secret);
    let own = world.simulator().options().machine.client_id.clone();
    let other = "99999999-8888-7777-6666-555555555555";
    let with = |query: &str| format!("{TOKEN}&{query}");
    for (target, status, word) in [
        (
            TOKEN.replace("2019-08-01", "2017-09-01"),
            400,
            "api-version",
        ),
        (
            TOKEN.replace("2019-08-01", "2019-07-01-preview"),
            400,
            "api-version",
        ),
        (
            TOKEN.replace("api-version=2019-08-01&", ""),
            400,
            "api-version",
        ),
        (
            "/msi/token?api-version=2019-08-01".to_owned(),
            400,
            "resource",
        ),
        (with(&format!("client_id={own}")), 200, ""),
        (with(&format!("client_id={}", own.to_uppercase())), 200, ""),
        (
            with(&format!("client_id={other}")),
            400,
            "No User Assigned or Delegated Managed Identity found",
        ),
        (
            with(&format!("principal_id={other}")),
            400,
            "No User Assigned",
        ),
        (with(&format!("object_id={other}")), 400, "No User Assigned"),
        (
            with(&format!("principal_id={other}&client_id={own}")),
            400,
            "exclude each other",
        ),
    ] {
        let answer = program.get(&target, &[&secret, "Metadata: true"]).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(answer.body.contains(word), "{target}: {answer:?}");
    }
    assert_eq!(
        world.simulator().tokens(),
        1,
        "only the system's token was asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_the_secret_in_the_path_opens_the_shape_of_imds() {
    let world = World::start().await;
    let mut program = Program::start(&world, &[], &["--imds"]).await;
    let host = program.run("echo $AZURE_POD_IDENTITY_AUTHORITY_HOST").await;
    let within = format!("http://{}/{}", program.address, program.secret);
    assert_eq!(host.trim(), within);
    let token = format!(
        "/{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net",
        program.secret
    );
    let answer = program.get(&token, &["Metadata: true"]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["expires_in"].is_string());
    let without = program.get(&token, &[]).await;
    assert_eq!(without.status, 400, "{without:?}");
    let instance = format!(
        "/{}/metadata/instance?api-version=2020-06-01",
        program.secret
    );
    assert_eq!(
        program.get(&instance, &["Metadata: true"]).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_can_take_the_endpoint_as_long_as_it_runs() {
    let world = World::start().await;
    let script = "eval \"$(\"$0\" exec --print-env)\"; echo $IDENTITY_ENDPOINT; \
        curl --silent --output /dev/null --write-out '%{http_code}\\n' --header \"X-IDENTITY-HEADER: $IDENTITY_HEADER\" \
        \"$IDENTITY_ENDPOINT?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net\"";
    let arcbroker = arcbroker_e2e::binary("arcbroker").display().to_string();
    let mut shell = exec(&world, &[], &[], &[]);
    // The environment of the test, without exec before it.
    let environment: Vec<_> = shell
        .as_std()
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    shell = Command::new("sh");
    for (name, value) in environment {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let run = shell
        .args(["-c", script, &arcbroker])
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(run.stdout).unwrap();
    let (url, status) = printed.trim().split_once('\n').unwrap();
    assert_eq!(
        status,
        "200",
        "{printed} {}",
        String::from_utf8_lossy(&run.stderr)
    );
    let address = url
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    eventually("the endpoint ends with the shell", || async {
        TcpStream::connect(&address).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_so_many_endpoints_and_no_more() {
    let setup = Setup {
        config: vec![("limits", "endpoints-per-user = 2".to_owned())],
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let first = Program::start(&world, &[], &[]).await;
    let _second = Program::start(&world, &[], &[]).await;
    let run = output(&world, &[], &["true"]).await;
    assert_eq!(run.status.code(), Some(125), "{run:?}");
    let words = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(words.contains("endpoints-per-user"), "{words}");
    first.end().await;
    eventually("there is a place again", || async {
        output(&world, &[], &["true"]).await.status.success()
    })
    .await;
}

/// Programs that are started at one time. Each takes one of the daemon's 32 threads for what is passed, and whoever
/// finds none of them free has to come again.
const AT_ONCE: usize = 10;

/// Whether it has its endpoint, and `arcbroker exec` has become it.
fn has_begun(program: &Child) -> bool {
    let comm = format!("/proc/{}/comm", program.id().unwrap());
    fs::read_to_string(comm).unwrap() == "sleep\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_programs_leave_nothing_behind() {
    // Nobody else may look at the daemon's descriptors.
    if skip_unless_root("a_thousand_programs_leave_nothing_behind") {
        return;
    }
    let world = World::start().await;
    let daemon = world.status().await.pid;
    let open = || fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let mut programs = Vec::new();
        while programs.len() < 1000 {
            for _ in 0..AT_ONCE {
                let mut command = exec(&world, &[], &[], &["sleep", "300"]);
                command.stdin(Stdio::null());
                programs.push(command.spawn().unwrap());
            }
            eventually("these have their endpoints", || async {
                programs.iter().rev().take(AT_ONCE).all(has_begun)
            })
            .await;
        }
        assert_eq!(world.status().await.connections.endpoints, 1000);
        assert!(open() > 2000, "a listener and a process each");
        for program in &mut programs {
            program.kill().await.unwrap();
        }
        eventually("none is left", || async {
            world.status().await.connections.endpoints == 0
        })
        .await;
        // The last 256 processes are remembered. Listeners are closed on another thread.
        eventually("their descriptors are closed", || async { open() < 400 }).await;
        sizes.push(resident());
    }
    assert!(sizes[1] < sizes[0] + 4096, "KiB: {sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_another_user_gets_nothing_with_the_right_secret() {
    const NAME: &str = "t11_another_user_gets_nothing_with_the_right_secret";
    if skip_unless_root(NAME) {
        return;
    }
    let policy =
        "version = 1\n[[rule]]\nname = \"alice\"\nuser = 64101\nresources = [\"keyvault\"]\n";
    let world = World::with(Setup {
        policy: policy.to_owned(),
        ..Setup::default()
    })
    .await;
    let mut program = Program::start(&world, &ALICE.run(&[]), &[]).await;
    assert_eq!(program.fetch().await.status, 200);
    let stolen = program.ask().await;
    assert_eq!(stolen.status, 403, "{stolen:?}");
    assert!(!stolen.body.contains("access_token"));
    let record = world.audit().pop().unwrap();
    assert_eq!(record["outcome"], "denied", "{record}");
    assert_eq!(
        (&record["stray"], &record["stray_uid"]),
        (&"user".into(), &0.into()),
        "{record}"
    );
    assert_eq!(record["uid"], 64_101, "whose endpoint it is");
    assert_eq!(
        program.fetch().await.status,
        200,
        "the program is not disturbed"
    );
}
