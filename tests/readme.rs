//! The README's first program is the one that runs.

use std::path::Path;
use std::process::Command;

fn first_program(text: &str) -> &str {
    let (_, after) = text.split_once("```rust").expect("the README has a program");
    let (_, program) = after.split_once('\n').expect("the program has lines");
    program.split_once("\n```").expect("the program ends").0
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
