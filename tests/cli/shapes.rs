//! The JSON that programs read has the shapes in docs/schemas/.

use std::fs;
use std::path::Path;

use serde_json::Value;
use va_upgrade::boot::state::State;
use va_upgrade::slot::Slot;
use va_upgrade::system::Lock;

use super::desk::Desk;

/// Sees `value` have the shape docs/schemas/NAME.json.
fn assert_shape(name: &str, value: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schemas/{name}.json"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{value:#}");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_build_made_is_told_in_a_file_and_in_the_last_line() {
    let desk = Desk::new();
    desk.make_tree("tree");
    desk.write(
        "release.yaml",
        "product: gateway\ndescription: The gateway\nmeta: {pipeline: '12'}\n",
    );
    let words = "build tree -o x.vab --release release.yaml --key key.pem --fast --memory 1G \
                 --set version=9.5 --set meta.commit=1a2b --result made.json --progress json";
    let run = desk.run(&words.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.status, 0, "{run:?}");
    let last = json(run.stderr.lines().last().unwrap());
    let result = json(&fs::read_to_string(desk.at("made.json")).unwrap());
    assert_eq!(last["result"], result);
    assert_shape("result", &result);
    assert_eq!(result["version"], "9.5");
    assert_eq!(
        result["bytes"],
        fs::metadata(desk.at("x.vab")).unwrap().len()
    );
    let sum = desk.shell(&format!("sha256sum < '{}'", desk.at("x.vab").display()));
    assert_eq!(result["sha256"], sum.split_whitespace().next().unwrap());

    let info = json(&desk.does(&["info", "x.vab", "--json", "--trusted", "keys"]));
    assert_shape("info", &info);
    assert_eq!(info["signers"], result["signers"]);
    assert_eq!(info["description"], "The gateway");
    assert_eq!(info["meta"]["commit"], "1a2b");
    assert_eq!(info["meta"]["pipeline"], "12");
    let verified = desk.does(&["verify", "x.vab", "--deep", "--json", "--trusted", "keys"]);
    assert_shape("verify", &json(&verified));
    assert_eq!(json(&verified)["signers"], result["signers"]);
}

#[test]
fn a_failure_is_the_last_line_for_a_program() {
    let desk = Desk::new();
    desk.write("x.vab", "rubbish");
    for (args, status, class) in [
        (&["verify", "x.vab"][..], 4, "bad-bundle"),
        (&["verify", "none.vab"], 3, "refused"),
        (&["unpack", "x.vab", "empty", "--threads", "0"], 2, "usage"),
    ] {
        let run = desk.run(&[args, &["--progress", "json"]].concat());
        assert_eq!(run.status, status, "{run:?}");
        let last = json(run.stderr.lines().last().unwrap());
        assert_eq!(last["error"]["class"], class, "{run:?}");
        assert!(last["error"]["message"].is_string());
    }
}

#[test]
fn what_lies_in_a_bundle_has_its_published_shape() {
    let desk = Desk::with_bundle();
    let tar = format!("tar -xOf '{}'", desk.at("good.vab").display());
    assert_shape("index", &json(&desk.shell(&format!("{tar} index.json"))));
    let files = desk.shell(&format!("{tar} files.jsonl.xz | xz -d"));
    assert!(files.lines().count() > 20);
    for line in files.lines() {
        assert_shape("files", &json(line));
    }
    let manifest = desk.shell(&format!("{tar} manifest.yaml | wc -c"));
    assert!(manifest.trim().parse::<u32>().unwrap() <= 1024);
}

#[test]
fn an_appliance_answers_in_the_published_shapes() {
    let desk = Desk::with_bundle();
    desk.be_an_appliance("9.4");
    assert_shape("status", &json(&desk.does(&["status", "--json"])));
    let run = desk.run(&["check", "good.vab", "--json"]);
    assert_shape("check", &json(&run.stdout));
    let dir = desk.at("boot/va");
    let mut state = State::load(&dir).unwrap().unwrap();
    state.cancel_trial().unwrap();
    state.start_drill(Slot::Back).unwrap();
    let lock = Lock::take(&desk.at("lock")).unwrap();
    state.save(&dir, &lock).unwrap().rest.unwrap();
    let status = json(&desk.does(&["status", "--json"]));
    assert_shape("status", &status);
    assert_eq!(status["drill"]["slot"], "back");
}

#[test]
fn a_report_has_the_published_shape() {
    let desk = Desk::new();
    desk.be_an_appliance("9.4");
    desk.refuses(3, &["nothing was written down"], &["report"]);
    let before = "time: 7\nversion: '7.8'\nhost_name: gone\nlisteners: [tcp 1]\n\
                  mounts: {/srv: {fs_type: xfs, writable: true}}\n";
    desk.write("boot/va/root/before.yaml", before);
    let report = json(&desk.does(&["report", "--json"]));
    assert_shape("report", &report);
    assert_eq!(
        (&report["from"], &report["to"]),
        (&"7.8".into(), &"7.9".into())
    );
    let told = desk.does(&["report"]);
    assert!(
        told.starts_with("From version 7.8 to version 7.9: "),
        "{told}"
    );
    assert!(
        told.contains("/srv (xfs) is not mounted any more"),
        "{told}"
    );
}

#[test]
fn memory_that_is_not_enough_and_settings_that_are_none_are_refused() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let build = "build tree -o x.vab --release release.yaml --unsigned";
    for (more, words) in [
        ("--memory 100M", "one thread takes 170 MiB"),
        ("--set colour=red", "setting colour"),
        ("--set version", "NAME=VALUE"),
        ("--memory 1.5G", "whole number"),
    ] {
        let line = format!("{build} {more}");
        let run = desk.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains(words), "{words}: {run:?}");
    }
}

#[test]
fn times_are_limited_where_a_pipeline_says_to_what() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let build = "build tree -o x.vab --release release.yaml --unsigned --clamp";
    let words: Vec<&str> = build.split_whitespace().collect();
    let run = desk.run(&words);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("SOURCE_DATE_EPOCH"), "{run:?}");
    let run = desk.run_by(&["env", "SOURCE_DATE_EPOCH=1000000000"], &words);
    assert_eq!(run.status, 0, "{run:?}");
    let info = json(&desk.does(&["info", "x.vab", "--json"]));
    assert_shape("info", &info);
    assert_eq!(info["clamped"], true);
    let listed = desk.does(&["info", "x.vab", "--files"]);
    for line in listed.lines() {
        assert!(line.contains("2001-09-09T01:46:40Z"), "{line}");
    }
}
