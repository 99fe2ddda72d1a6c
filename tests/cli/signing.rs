//! The recipes of docs/signing.md, run as they stand there.

use std::fs;
use std::path::Path;

use super::desk::{Desk, PROGRAM};

const PAGE: &str = include_str!("../../docs/signing.md");

/// Returns the scripts behind a line that says `*tested*`.
fn recipes() -> Vec<&'static str> {
    let marked = PAGE.split("\n*tested*\n\n```sh\n").skip(1);
    marked
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect()
}

#[test]
fn every_recipe_that_is_marked_signs_a_bundle_that_verifies() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let build = "build tree -o b.vab --release release.yaml --unsigned";
    let words: Vec<&str> = build.split_whitespace().collect();
    desk.does(&words);
    let unsigned = fs::read(desk.at("b.vab")).unwrap();
    fs::create_dir(desk.at("tokens")).unwrap();
    let tokens = desk.at("tokens");
    desk.write(
        "softhsm2.conf",
        format!("directories.tokendir = {}\n", tokens.display()),
    );
    let programs = Path::new(PROGRAM).parent().unwrap();
    let setting = format!(
        "set -euo pipefail; cd '{}'; export PATH='{}':$PATH SOFTHSM2_CONF=$PWD/softhsm2.conf\n",
        desk.at("").display(),
        programs.display()
    );
    let token = "softhsm2-util --init-token --free --label release --pin 1234 --so-pin 5678\n";
    desk.shell(&format!("{setting}{token}"));

    let recipes = recipes();
    assert_eq!(recipes.len(), 6, "a recipe has lost its mark");
    for recipe in recipes {
        if recipe.contains("va-upgrade sign") {
            desk.write("b.vab", &unsigned);
        }
        desk.shell(&format!("{setting}{recipe}"));
        if recipe.contains("va-upgrade sign") {
            // What is trusted is every key whose public half was written.
            desk.shell(&format!(
                "{setting}rm -rf all; mkdir all; cp *.pem all/; rm -f all/key.pem"
            ));
            let told = desk.does(&["verify", "b.vab", "--trusted", "all"]);
            assert!(told.contains("signed by key"), "{recipe}: {told}");
        }
    }
}
