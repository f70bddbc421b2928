//! Comments and documents wrap at 110 columns. Tables do not, nor what stands between fences, nor commands
//! and words that are longer.

use std::fs;
use std::path::{Path, PathBuf};

const MOST: usize = 110;

#[test]
fn comments_and_documents_wrap() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    let mut seen = 0;
    for path in documents(root) {
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        for number in long_lines(&text, is_source) {
            long.push(format!("{}:{number}", path.strip_prefix(root).unwrap().display()));
        }
    }
    assert!(seen > 100, "only {seen} documents were found");
    assert!(long.is_empty(), "longer than {MOST} columns:\n{}", long.join("\n"));
}

#[test]
fn what_may_be_long_is_known() {
    let long = "word ".repeat(30);
    assert_eq!(long_lines(&long, false), [1]);
    assert_eq!(long_lines(&format!("fn f() {{}}\n    /// {long}\n"), true), [2]);
    assert!(long_lines(&format!("| {long} |\n```\n{long}\n```\n{}", "x".repeat(200)), false).is_empty());
    assert!(
        long_lines(&format!("let a = \"{long}\";\n//! | {long} |\n//! ```\n//! {long}\n//! ```\n"), true)
            .is_empty()
    );
    assert_eq!(
        long_lines(&format!("//! ```\nfn f() {{}}\n// {long}"), true),
        [3],
        "a fence ends with its comment"
    );
}

/// The numbers of the lines that are too long: of a source, those of comments.
fn long_lines(text: &str, is_source: bool) -> Vec<usize> {
    let (mut long, mut in_fence) = (Vec::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        let prose = match is_source {
            true if !line.trim_start().starts_with("//") => {
                in_fence = false;
                continue;
            }
            true => line.trim_start().trim_start_matches(['/', '!']).trim_start(),
            false => line.trim_start(),
        };
        if prose.starts_with("```") {
            in_fence = !in_fence;
        }
        let is_command = prose.starts_with('`') && prose.ends_with("`.") && prose.matches('`').count() == 2;
        let may_be_long = in_fence || prose.starts_with('|') || is_command || !prose.contains(' ');
        if line.chars().count() > MOST && !may_be_long {
            long.push(number);
        }
    }
    long
}

/// Sources and documents of the workspace.
fn documents(root: &Path) -> Vec<PathBuf> {
    let (mut documents, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if [".rs", ".md"].iter().any(|extension| name.ends_with(extension)) {
                documents.push(path);
            }
        }
    }
    documents
}
