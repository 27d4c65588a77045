//! `arcbroker grant`

use arcbroker_client::{
    Client,
    wire::{GRANT_PREFIX, TimedGrant},
};
use arcbroker_policy::{MAX_RULE_NAME, may_be_in_rule_name};

use crate::{
    args::policy::Grant,
    clock,
    duration::human,
    exit::{Exit, Failure},
    output::{Page, clean},
};

pub(super) async fn run(admin: &Client, args: &Grant) -> Result<Exit, Failure> {
    let mut page = Page::new();
    if args.list {
        list(&mut page, &admin.grants().await.map_err(Failure::Command)?);
    } else if let Some(number) = args.end {
        let ended = admin.end_grant(number).await.map_err(Failure::Command)?;
        page.line(&format!("grant {number} has ended: {}", ended.reason));
    } else {
        let request = args.who.request(&args.resources, false);
        request.check_accounts()?;
        // The command line demands both.
        let time = args.time.unwrap_or_default();
        let reason = args.reason.as_deref().unwrap_or_default();
        let rule = request.file("", &name(reason));
        let given = admin.give(&rule, time, reason).await;
        say(&mut page, &given.map_err(Failure::Command)?);
    }
    page.print()?;
    Ok(Exit::OK)
}

fn name(reason: &str) -> String {
    let name = format!("{GRANT_PREFIX}{}", clean(reason.trim()));
    let fitting = |c| if may_be_in_rule_name(c) { c } else { '-' };
    let name: String = name.chars().map(fitting).take(MAX_RULE_NAME).collect();
    name.trim_end().to_owned()
}

fn say(page: &mut Page, given: &TimedGrant) {
    page.line(&format!(
        "grant {} is in force for {}, until {}",
        given.number,
        human(given.remaining_seconds),
        clock::text(given.ends_at)
    ))
    .line(&format!(
        "it ends sooner with: sudo arcbroker grant --end {}; and when the daemon is restarted",
        given.number
    ));
}

fn list(page: &mut Page, grants: &[TimedGrant]) {
    if grants.is_empty() {
        page.line("No grants are in force.");
        return;
    }
    let rows: Vec<[String; 5]> = grants
        .iter()
        .map(|grant| {
            [
                grant.number.to_string(),
                human(grant.remaining_seconds),
                grant.granted_by.clone(),
                conditions(&grant.rule),
                grant.reason.clone(),
            ]
        })
        .collect();
    page.table(["GRANT", "LEFT", "BY", "RULE", "REASON"], &rows);
}

/// The lines of the rule that say who has what.
fn conditions(rule: &str) -> String {
    let lines = rule.lines().map(str::trim);
    let lines = lines.filter(|line| {
        let is_head = ["version", "name", "["]
            .iter()
            .any(|head| line.starts_with(head));
        !line.is_empty() && !is_head
    });
    lines.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> TimedGrant {
        TimedGrant {
            number: 3,
            rule: "version = 1\n\n[[rule]]\nname = \"grant: x\"\nuser = 34\nresources = \"keyvault\"\n"
                .into(),
            reason: "INC-7".into(),
            granted_by: "root".into(),
            granted_at: 0,
            ends_at: 1_700_000_000,
            remaining_seconds: 1800,
        }
    }

    #[test]
    fn the_list_shows_who_has_what_and_for_how_long() {
        let mut page = Page::with_colours(false);
        list(&mut page, &[grant()]);
        assert_eq!(
            page.into_text(),
            "\
GRANT  LEFT    BY    RULE                               REASON
3      30 min  root  user = 34, resources = \"keyvault\"  INC-7
"
        );
        let mut page = Page::with_colours(false);
        list(&mut page, &[]);
        assert_eq!(page.into_text(), "No grants are in force.\n");
    }

    #[test]
    fn what_was_given_says_how_to_take_it_back() {
        let mut page = Page::with_colours(false);
        say(&mut page, &grant());
        let text = page.into_text();
        assert!(
            text.starts_with("grant 3 is in force for 30 min, until 2023-11-14T22:13:20Z\n"),
            "{text}"
        );
        assert!(text.contains("grant --end 3"), "{text}");
    }

    #[test]
    fn the_name_of_the_rule_tells_the_reason_and_fits() {
        assert_eq!(name(" on call\n"), "grant: on call");
        assert_eq!(
            name("on call — Jörg’s turn"),
            "grant: on call - Jörg-s turn"
        );
        let long = name(&"reason ".repeat(30));
        assert!(long.chars().count() <= MAX_RULE_NAME && long.starts_with("grant: reason"));
        assert!(!long.ends_with(' '));
    }
}
