//! `arcbroker whoami`

use arcbroker_client::{Client, wire::WhoamiAnswer};

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
    page.blank();
    if answer.resources.is_empty() {
        page.line("No rule allows you a token. An administrator can add one to the policy:")
            .line(&format!(
                "user = {} in a rule with the resources that you need.",
                answer.uid
            ));
        return;
    }
    let rows: Vec<[String; 3]> = answer
        .resources
        .iter()
        .map(|allowed| [&allowed.resource, &allowed.identity, &allowed.rule].map(String::clone))
        .collect();
    page.table(["RESOURCE", "IDENTITY", "RULE"], &rows);
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

RESOURCE                    IDENTITY  RULE
https://storage.azure.com/  system    nightly backup
"
        );
        answer.resources.clear();
        assert!(
            text(&answer).ends_with("user = 1001 in a rule with the resources that you need.\n")
        );
    }
}
