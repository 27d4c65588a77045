//! What holds for every path of a control group and every name of a unit.

use arcbroker_policy::{ControlGroup, UnitPattern};
use proptest::{collection::vec, prelude::*, sample::select};

fn cgroup_name() -> impl Strategy<Value = String> {
    let known = [
        "system.slice",
        "system-a.slice",
        "user.slice",
        "user@1000.service",
        "app.slice",
        "backup.service",
        "_backup.service",
        "docker-1.scope",
        "session-1.scope",
        "..",
        ".",
        "",
        "x",
    ];
    prop_oneof![4 => select(known.map(str::to_owned).to_vec()), 1 => "[^/]{0,20}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t21_no_path_below_the_slice_of_users_is_a_unit_of_the_system(
        names in vec(cgroup_name(), 0..6),
    ) {
        let path = format!("/user.slice/{}", names.join("/"));
        if let Some(group) = ControlGroup::new(&path) {
            prop_assert_eq!(group.system_unit(), None);
        }
    }

    #[test]
    fn t21_what_follows_the_first_name_below_the_slices_changes_nothing(
        first in cgroup_name(), rest in vec(cgroup_name(), 0..4),
    ) {
        prop_assume!(first.rsplit('.').next() != Some("slice"));
        let unit = |path: &str| ControlGroup::new(path).and_then(ControlGroup::system_unit);
        let alone = unit(&format!("/system.slice/{first}"));
        let path = format!("/system.slice/{first}/{}", rest.join("/"));
        if let Some(group) = ControlGroup::new(&path) {
            prop_assert_eq!(group.system_unit(), alone);
        }
    }

    #[test]
    fn any_text_is_a_path_of_a_control_group_or_none(path in "/?(system\\.slice/)?.{0,100}") {
        if let Some(group) = ControlGroup::new(&path) {
            _ = (group.system_unit(), group.is_container());
        }
    }

    #[test]
    fn any_text_is_a_unit_or_refused_in_visible_characters(text in "(.{0,40}|[a-z@*.]{0,12})(\\.service)?") {
        match UnitPattern::parse(&text) {
            Ok(pattern) => prop_assert_eq!(pattern.to_string(), text),
            Err(error) => prop_assert!(error.to_string().bytes().all(|b| b == b' ' || b.is_ascii_graphic())),
        }
    }
}
