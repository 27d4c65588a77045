//! `arcbroker whoami`

use arcbroker_client::{Client, wire::WhoamiAnswer};
use arcbroker_policy::shell_word;

use crate::{
    exit::{Exit, Failure},
    output::{self, Page},
};

pub(super) async fn run(client: &Client, json: bool) -> Result<Exit, Failure> {
    let answer = client.whoami().await.map_err(Failure::Tokens)?;
    if json {
        output::print_json(&answer)?;
    } else {
        let mut page = Page::new();
        fill(&mut page, &answer);
        page.print()?;
    }
    Ok(Exit::OK)
}

fn fill(page: &mut Page, answer: &WhoamiAnswer) {
    let groups: Vec<String> = answer.groups.iter().map(u32::to_string).collect();
    let name = answer.user.as_deref().unwrap_or("without a name");
    page.field("User", &format!("{} ({name})", answer.uid))
        .field("Group", &answer.gid.to_string())
        .field("Groups", &groups.join(" "));
    if let Some(pid) = answer.pid {
        page.field("Process", &pid.to_string());
    }
    process(page, answer);
    page.blank();
    if answer.resources.is_empty() {
        page.line("No rule allows you a token. An administrator can add one:")
            .line(&suggestion(answer));
        return;
    }
    let rows: Vec<[String; 3]> = answer
        .resources
        .iter()
        .map(|allowed| [&allowed.resource, &allowed.identity, &allowed.rule].map(String::clone))
        .collect();
    page.table(["RESOURCE", "IDENTITY", "RULE"], &rows);
}

/// What is known of the process, which a broker of an earlier version does not say.
fn process(page: &mut Page, answer: &WhoamiAnswer) {
    let container = match answer.container {
        Some(true) => "yes: only rules with `container = true` hold",
        Some(false) => "no",
        None if answer.resources.is_empty() => "not known: no rule holds",
        None => return,
    };
    let unit = answer.unit.as_deref().unwrap_or("none of the system");
    page.field("Unit", unit);
    if let Some(invocation) = &answer.invocation {
        page.field("Invocation", invocation);
    }
    page.field("Container", container);
}

/// The command that allows this caller something, as narrowly as can be.
fn suggestion(answer: &WhoamiAnswer) -> String {
    let subject = match &answer.unit {
        Some(unit) => format!("--unit {}", shell_word(unit)),
        None => format!("--user {}", answer.uid),
    };
    let container = match answer.container {
        Some(true) => " --container",
        _ => "",
    };
    format!("  sudo arcbroker allow {subject}{container} RESOURCE")
}

#[cfg(test)]
mod tests {
    use arcbroker_client::wire::{Allowed, SCHEMA};

    use super::*;

    fn text(answer: &WhoamiAnswer) -> String {
        let mut page = Page::with_colours(false);
        fill(&mut page, answer);
        page.into_text()
    }

    #[test]
    fn it_shows_who_asks_and_what_for() {
        let mut answer = WhoamiAnswer {
            schema: SCHEMA,
            uid: 1001,
            user: Some("backup".into()),
            gid: 34,
            groups: vec![34, 990],
            pid: Some(4312),
            unit: Some("backup.service".into()),
            invocation: Some("6fb5aa5be6ea4a1fa1a9a5e6a5f0f9f1".into()),
            container: Some(false),
            resources: vec![Allowed {
                resource: "https://storage.azure.com/".into(),
                identity: "system".into(),
                rule: "nightly backup".into(),
            }],
        };
        assert_eq!(
            text(&answer),
            "\
User       1001 (backup)
Group      34
Groups     34 990
Process    4312
Unit       backup.service
Invocation 6fb5aa5be6ea4a1fa1a9a5e6a5f0f9f1
Container  no

RESOURCE                    IDENTITY  RULE
https://storage.azure.com/  system    nightly backup
"
        );
        answer.resources.clear();
        for (unit, container, expected) in [
            (Some("backup.service"), Some(false), "--unit backup.service"),
            (
                Some("web.service"),
                Some(true),
                "--unit web.service --container",
            ),
            (None, Some(true), "--user 1001 --container"),
            (None, Some(false), "--user 1001"),
        ] {
            answer.unit = unit.map(str::to_owned);
            answer.container = container;
            let expected = format!("\n  sudo arcbroker allow {expected} RESOURCE\n");
            assert!(text(&answer).ends_with(&expected), "{}", text(&answer));
        }
        (answer.invocation, answer.container) = (None, None);
        let shown = "Unit       none of the system\nContainer  not known: no rule holds\n";
        assert!(text(&answer).contains(shown), "{}", text(&answer));
    }
}
