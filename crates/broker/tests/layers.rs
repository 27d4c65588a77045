//! The order of the modules is the architecture: each uses only those declared above it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

fn source(module: &str) -> String {
    let path = Path::new(SRC).join(format!("{module}.rs"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Modules in the order in which `lib.rs` declares them.
fn declared() -> Vec<String> {
    let lib = source("lib");
    let name = |line: &str| {
        let rest = line
            .strip_prefix("pub mod ")
            .or_else(|| line.strip_prefix("mod "))?;
        rest.strip_suffix(';').map(str::to_owned)
    };
    lib.lines().filter_map(name).collect()
}

/// The modules that a source names as `crate::MODULE`, also in `crate::{…}`, its tests left out.
fn used(source: &str) -> HashSet<String> {
    let shipped = source.split("#[cfg(test)]").next().unwrap();
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    };
    let mut found = HashSet::new();
    for part in shipped.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            None => drop(found.insert(word(part))),
            Some(list) => {
                let list = list.split("};").next().unwrap();
                // Names at the outer level of the braces.
                let mut depth = 0;
                for item in list.split_inclusive(['{', '}', ',']) {
                    if depth == 0 {
                        found.insert(word(item.trim_start()));
                    }
                    depth += item.matches('{').count();
                    depth -= item.matches('}').count().min(depth);
                }
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn every_module_uses_only_those_declared_above_it() {
    let declared = declared();
    let mut wrong = Vec::new();
    for (place, module) in declared.iter().enumerate() {
        for other in used(&source(module)) {
            let at = declared.iter().position(|name| *name == other);
            if at.is_none_or(|at| at >= place) {
                wrong.push(format!("{module} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_is_declared_in_lib() {
    let declared: HashSet<_> = declared().into_iter().collect();
    let files: HashSet<_> = fs::read_dir(SRC)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .filter(|name| !matches!(name.as_str(), "lib" | "main"))
        .collect();
    assert_eq!(files, declared);
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let text = "use crate::a;\nuse crate::b::C;\nuse crate::{d, e::{F, G}, h::I};\nlet x = crate::j::k();\n#[cfg(test)]\nuse crate::z;";
    let mut used: Vec<_> = used(text).into_iter().collect();
    used.sort();
    assert_eq!(used, ["a", "b", "d", "e", "h", "j"]);
}
