//! The README's first program is the one that runs, the tests that it names are there, and the bank and
//! the counters that it points to lose nothing.

use std::path::Path;
use std::process::Command;

fn first_program(text: &str) -> &str {
    let (_, after) = text.split_once("```rust").expect("the README has a program");
    let (_, program) = after.split_once('\n').expect("the program has lines");
    program.split_once("\n```").expect("the program ends").0
}

/// The text of all Rust files below `directory`.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_feature_that_the_readme_claims_is_shown_by_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, features) =
        readme.split_once("\n## Features beside others\n").expect("there is a table of features");
    let (features, _) = features.split_once("\n## ").expect("something comes behind it");
    let mut text = String::new();
    ["src", "tests", "crates"].iter().for_each(|directory| sources(&root.join(directory), &mut text));
    let rows: Vec<Vec<&str>> =
        features.lines().filter(|line| line.starts_with('|')).map(|line| line.split('|').collect()).collect();
    let mut named = 0;
    // Behind the head, and the line under it.
    for row in &rows[2..] {
        let [.., shown_by, _] = row[..] else { panic!("{row:?}") };
        assert_eq!(row.len(), rows[0].len(), "{row:?}");
        if row[2].trim() == "no" {
            continue;
        }
        let name = shown_by.trim().trim_matches('`');
        assert!(text.contains(&format!("#[test]\nfn {name}()")), "there is no test {name:?}");
        named += 1;
    }
    assert!(named >= 6, "{named} tests are named");
}

#[test]
fn the_bank_loses_no_coin_at_any_level() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    for arguments in ["--level serializable", "--level snapshot --pessimistic", "--level read-committed"] {
        let run = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--offline", "--example", "bank", "--manifest-path"])
            .arg(root.join("Cargo.toml"))
            .args(["--", "--seconds", "0.6", "--threads", "4", "--accounts", "10"])
            .args(arguments.split(' '))
            .current_dir(directory.path())
            .env("TMPDIR", directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{arguments}: {said}{}", String::from_utf8_lossy(&run.stderr));
        assert!(said.contains("no coin is lost") && said.contains("audits"), "{arguments}: {said}");
    }
}

#[test]
fn the_counters_have_every_view() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--example", "counters", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .args(["--", "--seconds", "0.6", "--threads", "3", "--keep", "2", "--speed", "600"])
        .current_dir(directory.path())
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("what is left has them all"), "{said}");
}

#[test]
fn the_first_program_of_the_readme_is_the_quickstart_example_and_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = std::fs::read_to_string(root.join("examples/quickstart.rs")).unwrap();
    // What the example says of itself above its code is for those who open the file.
    let code: Vec<_> =
        example.lines().skip_while(|line| line.starts_with("//!") || line.is_empty()).collect();
    assert_eq!(first_program(&readme).trim_end(), code.join("\n").trim_end());

    let directory = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--example", "quickstart", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .current_dir(directory.path())
        // Where the example keeps its database.
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}
