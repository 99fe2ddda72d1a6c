//! The floor plan of `src/`, read from its imports: they go down only, parts on
//! one floor do not import each other, and no files import each other in a circle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the top; what stands on one does not know its neighbours.
const FLOORS: [&[&str]; 14] = [
    &["main"],
    &["cli"],
    &["migrate"],
    &["build", "compare", "grow", "upgrade"],
    &["install"],
    &["sync"],
    &["appliance"],
    &["bundle", "source", "boot", "disk", "packages"],
    &["system"],
    &["archive", "accounts"],
    &["tree"],
    &["config", "progress"],
    &["report", "input"],
    &[
        "linux", "merge", "paths", "slot", "sha", "signals", "stderr", "cpu", "version", "failure",
        "yaml",
    ],
];

/// The floors inside the bundle, likewise.
const BUNDLE_FLOORS: [&[&str]; 4] = [
    &["inspect", "unpack", "sign"],
    &["open", "pack"],
    &["format"],
    &["codec", "keyring"],
];

/// The modules of the program, by name such as `bundle::open::feed`, with what
/// each imports.
struct Plan(BTreeMap<String, BTreeSet<String>>);

impl Plan {
    fn read(src: &Path) -> Plan {
        let mut files = Vec::new();
        list(src, &mut files);
        let texts: BTreeMap<String, String> = files
            .iter()
            .map(|file| {
                let name = module_of(file.strip_prefix(src).unwrap());
                (name, product_code(&fs::read_to_string(file).unwrap()))
            })
            .collect();
        let names: BTreeSet<String> = texts.keys().cloned().collect();
        let imports = texts.iter().map(|(name, text)| {
            let found = imported_paths(name, text);
            let modules = found.iter().filter_map(|path| longest(&names, path));
            let others = modules.filter(|module| module != name).collect();
            (name.clone(), others)
        });
        Plan(imports.collect())
    }

    /// All pairs of a module and one it imports.
    fn arrows(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| (from.as_str(), to.as_str())))
    }

    /// Returns one circle, if there is any.
    fn circle(&self) -> Option<Vec<String>> {
        let mut done = BTreeSet::new();
        self.0
            .keys()
            .find_map(|start| self.walk(start, &mut Vec::new(), &mut done))
    }

    fn walk(
        &self,
        at: &str,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|name| name == at) {
            return Some(way[begin..].to_vec());
        }
        if done.contains(at) {
            return None;
        }
        way.push(at.to_owned());
        let found = self.0[at]
            .iter()
            .find_map(|next| self.walk(next, way, done));
        way.pop();
        done.insert(at.to_owned());
        found
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// `bundle/open/feed.rs` is `bundle::open::feed`, `bundle/mod.rs` is `bundle`;
/// `lib.rs` has no name.
fn module_of(file: &Path) -> String {
    let name = file.with_extension("").display().to_string();
    let name = name.strip_suffix("/mod").unwrap_or(&name);
    if name == "lib" {
        String::new()
    } else {
        name.replace('/', "::")
    }
}

/// Leaves out comments and the tests beside the code.
fn product_code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {");
    let end = end.or_else(|| text.find("#[cfg(test)]\npub mod tests {"));
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns every path that an import of `module` or an expression in it names,
/// from the root of the crate.
fn imported_paths(module: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let starts_a_word = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = &rest[at + 4..];
        if starts_a_word && let Some(end) = after.find(';') {
            expand(
                "",
                &after[..end].replace(char::is_whitespace, " "),
                &mut found,
            );
        }
        rest = after;
    }
    for (at, _) in text.match_indices("crate::") {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let path: String = text[at..].chars().take_while(|c| is_path(*c)).collect();
        found.insert(path);
    }
    found
        .iter()
        .filter_map(|path| from_root(module, path))
        .collect()
}

/// Takes `a::{b, c::{d, e as f}}` apart.
fn expand(before: &str, tree: &str, found: &mut BTreeSet<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        let path = format!("{before}{path}");
        found.insert(path.trim_end_matches("::self").to_owned());
        return;
    };
    let before = format!("{before}{}", tree[..open].trim());
    let mut depth = 0;
    let mut start = open + 1;
    for (at, c) in tree.char_indices().skip(open + 1) {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !tree[start..at].trim().is_empty() {
                    expand(&before, &tree[start..at], found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Turns `super::x`, `crate::x` and a child's `x` into a path from the root;
/// names of other crates come out as paths that no module has.
fn from_root(module: &str, path: &str) -> Option<String> {
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.to_owned());
    }
    if let Some(path) = path.strip_prefix("va_upgrade::") {
        return Some(path.to_owned());
    }
    let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut path = path;
    while let Some(rest) = path.strip_prefix("super::") {
        base.pop()?;
        path = rest;
    }
    base.push(path);
    Some(base.join("::"))
}

/// Returns the longest beginning of `path` that is a module.
fn longest(names: &BTreeSet<String>, path: &str) -> Option<String> {
    let mut path = path.trim_end_matches(':');
    loop {
        if names.contains(path) {
            return (!path.is_empty()).then(|| path.to_owned());
        }
        path = &path[..path.rfind("::")?];
    }
}

/// Returns which floor a room is on, counted from the top.
fn floor_of(floors: &[&[&str]], room: &str) -> usize {
    floors
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("{room} stands on no floor; give it one in tests/layering.rs"))
}

/// Lists the arrows between rooms that do not go down.
fn wrong_arrows<'p>(
    floors: &[&[&str]],
    arrows: impl Iterator<Item = (&'p str, &'p str)>,
    room: impl Fn(&'p str) -> Option<&'p str>,
) -> Vec<String> {
    arrows
        .filter_map(|(from, to)| {
            let (above, below) = (room(from)?, room(to)?);
            let is_down = floor_of(floors, above) < floor_of(floors, below);
            (above != below && !is_down).then(|| format!("{from} imports {to}"))
        })
        .collect()
}

fn plan() -> Plan {
    Plan::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn first_part(path: &str) -> Option<&str> {
    path.split("::").next().filter(|part| !part.is_empty())
}

#[test]
fn imports_go_down_and_no_part_knows_its_neighbour() {
    let plan = plan();
    let wrong = wrong_arrows(&FLOORS, plan.arrows(), first_part);
    assert!(wrong.is_empty(), "not downwards:\n{}", wrong.join("\n"));
    let inside = |path| first_part(str::strip_prefix(path, "bundle::")?);
    let wrong = wrong_arrows(&BUNDLE_FLOORS, plan.arrows(), inside);
    assert!(wrong.is_empty(), "in the bundle:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    if let Some(circle) = plan().circle() {
        panic!("a circle: {}", circle.join(" -> "));
    }
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let text = product_code(
        "// use crate::no;\npub use a::{b, c::{d as e, self}};\nfn f() { crate::x::y::Z(1) }\n\
         use super::{q, r::S};\n#[cfg(test)]\nmod tests {\nuse crate::never;\n}\n",
    );
    let found = imported_paths("m::n", &text);
    let expected = [
        "m::n::a::b",
        "m::n::a::c",
        "m::n::a::c::d",
        "m::q",
        "m::r::S",
        "x::y::Z",
    ];
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_circle_and_an_upward_arrow_are_noticed() {
    let imports = |to: &[&str]| to.iter().map(|t| (*t).to_owned()).collect::<BTreeSet<_>>();
    let plan = Plan(BTreeMap::from([
        ("cli".to_owned(), imports(&["boot"])),
        ("boot".to_owned(), imports(&["disk"])),
        ("disk".to_owned(), imports(&["cli"])),
    ]));
    assert_eq!(plan.circle().unwrap().len(), 3);
    let wrong = wrong_arrows(&FLOORS, plan.arrows(), first_part);
    assert_eq!(wrong, ["boot imports disk", "disk imports cli"]);
}
