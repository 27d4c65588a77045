//! Every kind of caller, against every kind of rule: who gets what, and how the record shows them.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{Ground, SOCKET_GID, Setup, User, World, skip, skip_unless_root};

const TEAM: u32 = 64_110;
const ALICE: User = User::in_socket_group(64_101);
const BOB: User = User::in_socket_group(64_102);
const CAROL: User = User::in_socket_group(64_103);
const STAR: User = User::in_socket_group(64_104);
const ROOT: User = User {
    uid: 0,
    gid: 0,
    groups: &[SOCKET_GID],
};
const CONTAINER: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";

/// A rule's name, which is the host of its resource as well, and its subjects; `@` stands for what makes
/// the names of units this test's own.
const RULES: [(&str, &str); 11] = [
    ("user", "user = 64101"),
    ("group", "group = 64110"),
    ("user-and-group", "user = 64102\ngroup = 64110"),
    ("unit", "unit = '@backup.service'"),
    ("template", "unit = ['@worker@*.service', '@other.service']"),
    ("user-and-unit", "user = 64101\nunit = '@backup.service'"),
    ("user-in-container", "user = 64101\ncontainer = true"),
    (
        "unit-in-container",
        "unit = '@backup.service'\ncontainer = true",
    ),
    ("root", "user = 0"),
    ("root-in-container", "user = 0\ncontainer = true"),
    ("root-in-unit", "user = 0\nunit = '@backup.service'"),
];

/// A caller, and all that it may have.
struct Case {
    name: &'static str,
    user: User,
    group: String,
    nested: bool,
    /// Words before the command.
    through: &'static [&'static str],
    rules: &'static [&'static str],
    unit: Option<&'static str>,
    container: bool,
}

const fn in_team(user: User) -> User {
    User {
        groups: &[SOCKET_GID, TEAM],
        ..user
    }
}

fn case(name: &'static str, user: User, group: &str, rules: &'static [&'static str]) -> Case {
    Case {
        name,
        user,
        group: group.to_owned(),
        nested: false,
        through: &[],
        rules,
        unit: None,
        container: false,
    }
}

impl Case {
    fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    fn contained(mut self) -> Self {
        self.container = true;
        self
    }

    fn nested(mut self) -> Self {
        self.nested = true;
        self.contained()
    }

    fn through(mut self, words: &'static [&'static str]) -> Self {
        self.through = words;
        self
    }
}

/// Callers on the host.
fn on_the_host() -> Vec<Case> {
    let backup = "/system.slice/@backup.service";
    let worker = "/system.slice/system-@worker.slice/@worker@blue.service";
    let inside = format!("{backup}/child");
    vec![
        case("a user", ALICE, "/", &["user"]),
        case(
            "a user in the group",
            in_team(ALICE),
            "/",
            &["user", "group"],
        ),
        case(
            "another in the group",
            in_team(BOB),
            "/",
            &["group", "user-and-group"],
        ),
        case("the same without the group", BOB, "/", &[]),
        case("a stranger", CAROL, "/", &[]),
        case(
            "a user in the unit",
            ALICE,
            backup,
            &["user", "unit", "user-and-unit"],
        )
        .in_unit("@backup.service"),
        case("another in the unit", BOB, backup, &["unit"]).in_unit("@backup.service"),
        case("below the unit", BOB, &inside, &["unit"]).in_unit("@backup.service"),
        case("an instance", CAROL, worker, &["template"]).in_unit("@worker@blue.service"),
        case("no instance", CAROL, "/system.slice/@worker.service", &[]).in_unit("@worker.service"),
        case(
            "one of two",
            CAROL,
            "/system.slice/@other.service",
            &["template"],
        )
        .in_unit("@other.service"),
        case("root", ROOT, "/", &["root"]),
        case(
            "root in the unit",
            ROOT,
            backup,
            &["unit", "root", "root-in-unit"],
        )
        .in_unit("@backup.service"),
        // Inside it is root and outside it is who it was.
        case("a user namespace", ALICE, "/", &["user"]).through(&[
            "unshare",
            "--user",
            "--map-root-user",
        ]),
        case("one without a map", ALICE, "/", &["user"]).through(&["unshare", "--user"]),
        // The path is shortened inside and whole outside.
        case("a cgroup namespace", BOB, backup, &["unit"])
            .in_unit("@backup.service")
            .through(&["unshare", "--user", "--map-root-user", "--cgroup"]),
    ]
}

/// Callers who look like a unit and are not in it.
fn imitators() -> Vec<Case> {
    let user = "/user.slice/user-64103.slice/user@64103.service/app.slice/@backup.service";
    let docker = format!("/system.slice/docker-{CONTAINER}.scope/@backup.service");
    vec![
        case("a unit of a user", CAROL, user, &[]),
        case(
            "right below the users",
            CAROL,
            "/user.slice/@backup.service",
            &[],
        ),
        case(
            "below another unit",
            CAROL,
            "/system.slice/@evil.service/@backup.service",
            &[],
        )
        .in_unit("@evil.service"),
        case("beside the slice", CAROL, "/@backup.service", &[]),
        case(
            "in a made-up slice",
            CAROL,
            "/system.slice/@evil.slice/@backup.service",
            &[],
        ),
        case("below a scope", CAROL, &docker, &[]).contained(),
        case(
            "another tree's slice",
            CAROL,
            "/@x/system.slice/@backup.service",
            &[],
        ),
    ]
}

/// Callers in containers.
fn contained() -> Vec<Case> {
    let backup = "/system.slice/@backup.service";
    let docker = format!("/system.slice/docker-{CONTAINER}.scope");
    let podman = format!("/machine.slice/libpod-{CONTAINER}.scope/container");
    let quadlet = format!("{backup}/libpod-payload-{CONTAINER}");
    let in_unit: &[_] = &["user-in-container", "unit-in-container"];
    vec![
        case("numbers of its own", ALICE, "/", &["user-in-container"]).nested(),
        case("and in the group", in_team(BOB), "/", &[]).nested(),
        case("Docker", ALICE, &docker, &["user-in-container"]).nested(),
        case(
            "Docker with the host's numbers",
            ALICE,
            &docker,
            &["user-in-container"],
        )
        .contained(),
        case(
            "Podman with the host's numbers",
            ALICE,
            &podman,
            &["user-in-container"],
        )
        .contained(),
        case("in a unit", ALICE, backup, in_unit)
            .in_unit("@backup.service")
            .nested(),
        case("Quadlet", ALICE, &quadlet, in_unit)
            .in_unit("@backup.service")
            .contained(),
        case(
            "a stranger in Quadlet",
            CAROL,
            &quadlet,
            &["unit-in-container"],
        )
        .in_unit("@backup.service")
        .contained(),
        case("root", ROOT, "/", &["root-in-container"]).nested(),
        case("root in Docker", ROOT, &docker, &["root-in-container"]).contained(),
    ]
}

async fn world(ground: &Ground) -> World {
    let rule = |(name, subjects): (&str, &str)| {
        format!("[[rule]]\nname = '{name}'\n{subjects}\nresources = 'https://{name}'\n")
    };
    let rules: Vec<String> = RULES.map(rule).to_vec();
    let star = "[[rule]]\nname = 'star'\nuser = 64104\nresources = '*'\n";
    let policy = format!("version = 1\n{}{star}", rules.concat()).replace('@', &ground.unit(""));
    // The at sign of instances is meant as it is.
    let policy = policy.replace(&format!("worker{}*", ground.unit("")), "worker@*");
    World::with(Setup {
        policy,
        config: vec![("callers", ground.config())],
        ..Setup::default()
    })
    .await
}

/// A name with this ground's own part in it, at the beginning of each word.
fn own(ground: &Ground, text: &str) -> String {
    let instance = "worker@blue";
    let text = text
        .replace(instance, "worker\0blue")
        .replace('@', &ground.unit(""));
    text.replace('\0', "@")
        .replace(&format!("user{}64103", ground.unit("")), "user@64103")
}

async fn statuses(world: &World, ground: &Ground, case: &Case) -> Vec<(String, u16)> {
    let url = |name: &str| {
        format!(
            "http://localhost/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2F{name}"
        )
    };
    let urls = RULES.map(|(name, _)| url(name));
    let mut arguments = vec![
        "--header",
        "Metadata: true",
        "--write-out",
        "%{http_code}\\n",
    ];
    for url in &urls {
        arguments.extend(["--output", "/dev/null", url]);
    }
    let mut before = ground.enter(&own(ground, &case.group), case.nested);
    before.extend(["setpriv".to_owned()]);
    before.extend(case.user.setpriv());
    before.extend(case.through.iter().map(ToString::to_string));
    let output = world.curl_in(&before, &arguments).await;
    assert!(output.status.success(), "{}: {output:?}", case.name);
    let text = String::from_utf8(output.stdout).unwrap();
    let codes = text.lines().map(|line| line.parse().unwrap());
    RULES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .zip(codes)
        .collect()
}

async fn check(ground: Ground) {
    let world = world(&ground).await;
    for case in on_the_host()
        .into_iter()
        .chain(imitators())
        .chain(contained())
    {
        let seen = world.audit().len();
        let statuses = statuses(&world, &ground, &case).await;
        assert_eq!(statuses.len(), RULES.len(), "{}", case.name);
        for (rule, status) in statuses {
            let expected = if case.rules.contains(&rule.as_str()) {
                200
            } else {
                403
            };
            assert_eq!(
                status,
                expected,
                "{} asks for {rule}\n{}",
                case.name,
                world.daemon.log()
            );
        }
        let unit = case.unit.map(|unit| own(&ground, unit));
        for record in &world.audit()[seen..] {
            assert_eq!(record["uid"], case.user.uid, "{}: {record}", case.name);
            assert_eq!(
                record["unit"].as_str(),
                unit.as_deref(),
                "{}: {record}",
                case.name
            );
            assert_eq!(
                record["container"], case.container,
                "{}: {record}",
                case.name
            );
        }
        assert_eq!(world.audit().len() - seen, RULES.len(), "{}", case.name);
    }
    let star = case("any resource", STAR, "/", &[]);
    let all = statuses(&world, &ground, &star).await;
    assert!(all.iter().all(|(_, status)| *status == 200), "{all:?}");
    let nested = statuses(&world, &ground, &star.nested()).await;
    assert!(
        nested.iter().all(|(_, status)| *status == 403),
        "{nested:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_t5_t21_each_caller_gets_what_its_rules_give_and_no_more_in_real_control_groups() {
    const NAME: &str =
        "t4_t5_t21_each_caller_gets_what_its_rules_give_and_no_more_in_real_control_groups";
    if skip_unless_root(NAME) {
        return;
    }
    match Ground::real() {
        Some(ground) => check(ground).await,
        None => skip(
            NAME,
            "control groups cannot be made here, or belong to systemd",
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_t5_t21_each_caller_gets_what_its_rules_give_and_no_more_in_imitated_control_groups() {
    if !skip_unless_root(
        "t4_t5_t21_each_caller_gets_what_its_rules_give_and_no_more_in_imitated_control_groups",
    ) {
        check(Ground::imitated()).await;
    }
}
