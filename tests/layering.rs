//! Imports point down only: reads every path in `src/` that leaves its module and holds it against the layers
//! of DESIGN.md. Code that is compiled for tests or fuzzing only is not looked at, nor is `lib.rs`, which
//! ties the crate together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Reference, Source};

/// What each module may import, beside itself and what is [`FREE`].
const LAYERS: &[(&str, &[&str])] = &[
    (
        "db",
        &[
            "txn",
            "column_family",
            "btree",
            "segment",
            "page",
            "wal",
            "memtable",
            "options",
            "operator",
            "key_order",
            "storage",
        ],
    ),
    ("txn", &["column_family", "page", "wal", "memtable", "options", "operator", "key_order"]),
    (
        "column_family",
        &["btree", "segment", "page", "memtable", "storage", "options", "operator", "key_order"],
    ),
    ("btree", &["segment", "page"]),
    ("segment", &["page", "storage"]),
    ("page", &["storage"]),
    ("wal", &["storage"]),
    ("memtable", &[]),
    ("options", &["storage", "operator", "key_order"]),
    ("key_order", &["operator"]),
    ("operator", &[]),
    ("storage", &[]),
    ("sync", &[]),
    ("system", &[]),
    ("codec", &[]),
    ("error", &[]),
];

/// What every module may import, and what itself imports nothing but the others of its kind.
const FREE: &[&str] = &["error", "sync", "codec", "system"];

#[test]
fn imports_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = read_all(&src);
    let roots = root_names(&sources);
    let test_files: BTreeSet<PathBuf> = sources.iter().flat_map(|source| source.test_modules()).collect();
    let mut faults = Vec::new();
    for source in &sources {
        let path = source.path.as_path();
        if path == Path::new("lib.rs") || test_files.iter().any(|file| path.starts_with(file)) {
            continue;
        }
        for reference in source.references() {
            if let Err(rule) = judge(source.module(), &reference, &roots) {
                faults.push(format!(
                    "src/{}:{}: `{}`: {rule}",
                    path.display(),
                    reference.line,
                    reference.text
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// No two files import each other, be it by way of others. What a folder's `mod.rs` exports counts as
/// imported by it.
#[test]
fn files_have_no_cycle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = read_all(&src);
    let test_files: BTreeSet<PathBuf> = sources.iter().flat_map(|source| source.test_modules()).collect();
    let is_test = |source: &&Source| !test_files.iter().any(|file| source.path.starts_with(file));
    let cycle = cycle_among(sources.iter().filter(is_test));
    assert!(cycle.is_empty(), "these files import each other in a circle, or are imported by it: {cycle:#?}");
}

/// What a family is knows neither how it is read nor how it is merged, and neither of these knows the other.
#[test]
fn the_rooms_of_a_family_are_kept() {
    let sources = read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let known: BTreeSet<Vec<String>> = sources.iter().map(|source| source.place()).collect();
    let room = |place: &[String]| match place.get(1).map(String::as_str) {
        Some(room @ ("reading" | "merging")) if place[0] == "column_family" => Some(room.to_owned()),
        _ => None,
    };
    for source in sources.iter().filter(|source| source.module() == "column_family") {
        let own = room(&source.place());
        for import in source.imports(&known).iter().filter(|import| room(import).is_some()) {
            assert!(
                own.is_some() && own == room(import),
                "{} imports {}",
                source.path.display(),
                import.join("::")
            );
        }
    }
}

/// The files that are left when those are taken away, again and again, that import nothing of what is left.
fn cycle_among<'s>(sources: impl Iterator<Item = &'s Source>) -> BTreeMap<String, BTreeSet<String>> {
    let sources: Vec<&Source> = sources.filter(|source| source.path != Path::new("lib.rs")).collect();
    let known: BTreeSet<Vec<String>> = sources.iter().map(|source| source.place()).collect();
    let mut left: BTreeMap<String, BTreeSet<String>> = sources
        .iter()
        .map(|source| (source.place().join("::"), source.imports(&known)))
        .map(|(place, imports)| (place, imports.iter().map(|place| place.join("::")).collect()))
        .collect();
    loop {
        let settled: BTreeSet<String> =
            left.iter().filter(|(_, imports)| imports.is_empty()).map(|(place, _)| place.clone()).collect();
        if settled.is_empty() {
            return left;
        }
        left.retain(|place, _| !settled.contains(place));
        left.values_mut().for_each(|imports| imports.retain(|place| !settled.contains(place)));
    }
}

#[test]
fn the_layers_have_no_cycle() {
    let mut settled: Vec<&str> = Vec::new();
    while settled.len() < LAYERS.len() {
        let ready = |(module, below): &&(&str, &[&str])| {
            !settled.contains(module) && below.iter().all(|module| settled.contains(module))
        };
        let Some((module, _)) = LAYERS.iter().find(ready) else {
            panic!("a cycle, or a module without a line of its own, above {settled:?}");
        };
        settled.push(module);
    }
}

/// Whether `module` may refer to what `reference` names; if not, the rule that is broken.
fn judge(module: &str, reference: &Reference, roots: &BTreeMap<String, String>) -> Result<(), String> {
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return Err(format!(
            "module `{module}` has no place in the layers: give it one in DESIGN.md and here"
        ));
    };
    let Some(name) = &reference.name else {
        return Err("the whole crate is imported, so nobody can tell what from: name the module".to_owned());
    };
    // What `lib.rs` exports from a module is judged as that module.
    let target = roots.get(name).unwrap_or(name).as_str();
    if target == module || FREE.contains(&target) || below.contains(&target) {
        Ok(())
    } else if !LAYERS.iter().any(|(name, _)| *name == target) {
        Err(format!("`{target}` is no module of the layers and nothing that lib.rs exports from one"))
    } else if below.is_empty() {
        Err(format!("{module} imports nothing but {}", FREE.join(", ")))
    } else {
        Err(format!("{module} may import {} (and {}), not {target}", below.join(", "), FREE.join(", ")))
    }
}

/// All Rust files under `folder`.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut directories) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// All Rust files under `src`, with paths relative to it.
fn read_all(src: &Path) -> Vec<Source> {
    let source =
        |path: PathBuf| Source::new(path.strip_prefix(src).unwrap(), &fs::read_to_string(&path).unwrap());
    let mut sources: Vec<_> = files_below(src).into_iter().map(source).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 1, "no sources under {}", src.display());
    sources
}

#[test]
fn properties_draw_from_the_seed_of_the_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for path in
        ["src", "tests", "crates", "examples"].iter().flat_map(|folder| files_below(&root.join(folder)))
    {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let properties = lines.iter().filter(|line| line.starts_with("proptest! {")).count();
        let configured = |line: &&&str| line.starts_with("#![proptest_config(") && line.contains("config(");
        if properties != lines.iter().filter(configured).count() {
            faults.push(path);
        }
    }
    assert!(faults.is_empty(), "a `proptest!` is not configured by `sampling::config` in {faults:?}");
}

/// Names that `lib.rs` exports, and the module that each comes from.
fn root_names(sources: &[Source]) -> BTreeMap<String, String> {
    let root = sources.iter().find(|source| source.path == Path::new("lib.rs")).expect("src/lib.rs");
    root.exports()
}

mod rules {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(Path::new(path), text);
        let roots = BTreeMap::from([("Database".to_owned(), "db".to_owned())]);
        let references = source.references();
        let fault =
            |r: &Reference| judge(source.module(), r, &roots).err().map(|_| format!("{} {}", r.line, r.text));
        references.iter().filter_map(fault).collect()
    }

    #[test]
    fn what_lies_below_may_be_imported() {
        let text = "use crate::{error::Result, segment::{Segment, map}};\nfn f() { crate::page::g(); super::node::h() }";
        assert!(faults("btree/tree.rs", text).is_empty());
    }

    #[test]
    fn what_lies_above_or_beside_may_not() {
        let text = "use crate::error::Result;\nuse crate::{\n    page,\n    wal::Log,\n};\nfn f() { crate::txn::g() }";
        assert_eq!(faults("btree/tree.rs", text), ["4 crate::wal", "6 crate::txn"]);
        assert_eq!(faults("codec/key.rs", "use crate::storage::StorageFile;"), ["1 crate::storage"]);
    }

    #[test]
    fn paths_that_climb_are_followed() {
        assert_eq!(faults("btree/mod.rs", "use super::wal::Log;"), ["1 super::wal"]);
        assert_eq!(faults("btree/tree.rs", "use super::super::{page, wal};"), ["1 super::super::wal"]);
        assert_eq!(faults("btree/tree.rs", "mod a { use super::super::wal; }").len(), 0);
        assert_eq!(faults("btree/tree.rs", "mod a { use super::super::super::wal; }").len(), 1);
        assert_eq!(faults("btree/tree.rs", "mod a { } use super::super::wal; pub(super) fn f() {}").len(), 1);
        assert_eq!(faults("btree/tree.rs", "use self::super::super::wal;").len(), 1);
    }

    #[test]
    fn the_whole_crate_and_what_the_root_exports_are_no_way_around() {
        assert_eq!(faults("btree/tree.rs", "use crate::*;"), ["1 crate::*"]);
        assert_eq!(faults("btree/tree.rs", "use crate as all;"), ["1 crate"]);
        assert_eq!(faults("btree/tree.rs", "use crate::{self as all};"), ["1 crate::self"]);
        assert_eq!(faults("btree/tree.rs", "use crate::Database;"), ["1 crate::Database"]);
        assert_eq!(faults("btree/tree.rs", "pub(crate) use crate::btree::node;").len(), 0);
        assert_eq!(faults("elsewhere.rs", "use crate::error::Error;").len(), 1);
    }

    #[test]
    fn circles_of_files_are_found() {
        let circle = |files: &[(&str, &str)]| {
            let sources: Vec<_> =
                files.iter().map(|(path, text)| Source::new(Path::new(path), text)).collect();
            cycle_among(sources.iter()).into_keys().collect::<Vec<_>>()
        };
        let one_way =
            [("a/b.rs", "use crate::a::c::{D, e};"), ("a/c.rs", "use super::super::f::G;"), ("f.rs", "")];
        assert!(circle(&one_way).is_empty());
        assert_eq!(circle(&[("a.rs", "use crate::b::C;"), ("b.rs", "fn f() { super::a::g() }")]), ["a", "b"]);
        let through_exports = [("a/mod.rs", "mod b; pub use b::C;"), ("a/b.rs", "use super::D;")];
        assert_eq!(circle(&through_exports), ["a", "a::b"]);
        let in_braces =
            [("a.rs", "use crate::{x, b::{self, c::D}};"), ("b/c.rs", "use crate::a;"), ("b/mod.rs", "")];
        assert_eq!(circle(&in_braces), ["a", "b::c"]);
        let no_import = [
            ("a.rs", "pub(in crate::b) fn f() {} mod m { pub(in super::super) use super::g; }"),
            ("b.rs", "use crate::a::f;"),
        ];
        assert!(circle(&no_import).is_empty());
    }

    #[test]
    fn comments_strings_and_tests_are_not_looked_at() {
        let text = r##"
            //! [`crate::db`]
            /* crate::db /* crate::db */ crate::db */
            const A: &str = "crate::db \" crate::db";
            const B: &str = r#"crate::db " crate::db"#;
            const C: (char, char) = ('"', '\'');
            fn f<'a>(_: &'a str) {}
            #[cfg(all(test, not(loom)))]
            mod tests { use crate::db::Database; fn f() { crate::db::g() } }
            #[cfg(test)]
            use crate::db::Database;
            #[cfg(all(fuzzing, not(test)))]
            use crate::db::Database;
            #[cfg(not(test))]
            use crate::txn::Commit;
            #[cfg(not(fuzzing))]
            use crate::txn::Commit;
        "##;
        assert_eq!(faults("wal/log.rs", text), ["15 crate::txn", "17 crate::txn"]);
    }

    #[test]
    fn files_of_test_modules_are_known() {
        let modules = |path: &str| {
            let text = "#[cfg(test)]\nmod cases;\nmod real;";
            Source::new(Path::new(path), text).test_modules()
        };
        assert_eq!(modules("wal/mod.rs"), [Path::new("wal/cases.rs"), Path::new("wal/cases")]);
        assert_eq!(modules("wal/log.rs"), [Path::new("wal/log/cases.rs"), Path::new("wal/log/cases")]);
        assert_eq!(modules("lib.rs"), [Path::new("cases.rs"), Path::new("cases")]);
    }

    #[test]
    fn exports_of_the_root_are_known() {
        let text = "mod a;\npub use a::{B, c::{D, E as F}};\npub use self::g::H;\npub use crate::i::J;";
        let expected = [("B", "a"), ("D", "a"), ("F", "a"), ("H", "g"), ("J", "i")];
        let expected = expected.map(|(name, module)| (name.to_owned(), module.to_owned()));
        assert_eq!(Source::new(Path::new("lib.rs"), text).exports(), BTreeMap::from(expected));
    }
}

/// As much of Rust's grammar as it takes to find the paths that leave a module.
mod source {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    /// A file, without comments and literals and without what is compiled for tests or fuzzing only.
    pub(super) struct Source {
        /// Relative to `src`.
        pub(super) path: PathBuf,
        tokens: Vec<Token>,
        test_modules: Vec<String>,
    }

    /// A path to something outside of the module that it stands in.
    #[derive(Debug)]
    pub(super) struct Reference {
        pub(super) line: usize,
        /// As much of the path as matters.
        pub(super) text: String,
        /// What of the crate's root it goes to; `None` if to the root as a whole.
        pub(super) name: Option<String>,
    }

    #[derive(Debug, Clone)]
    struct Token {
        line: usize,
        text: String,
    }

    impl Source {
        pub(super) fn new(path: &Path, text: &str) -> Self {
            let (tokens, test_modules) = without_tests(&tokens(text));
            Self { path: path.to_owned(), tokens, test_modules }
        }

        /// The module of the crate's root that it belongs to.
        pub(super) fn module(&self) -> &str {
            let first = self.path.iter().next().and_then(|part| part.to_str()).expect("a path in UTF-8");
            first.trim_end_matches(".rs")
        }

        /// The names of the modules that lead to it from the crate's root.
        pub(super) fn place(&self) -> Vec<String> {
            let path = self.path.with_extension("");
            let names = path.iter().map(|part| part.to_str().expect("a path in UTF-8").to_owned());
            names.filter(|name| name != "mod").collect()
        }

        /// The files among `known` that its paths lead to.
        pub(super) fn imports(&self, known: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
            let mut imports = BTreeSet::new();
            // The module that a token stands in, and for each open brace whether it opened that module.
            let (mut here, mut blocks) = (self.place(), Vec::new());
            for at in 0..self.tokens.len() {
                let before = if at > 0 { self.text(at - 1) } else { "" };
                let leads_on = self.text(at + 1) == "::";
                let mut from = here.clone();
                match self.text(at) {
                    "{" => {
                        let is_module = at >= 2 && self.text(at - 2) == "mod";
                        if is_module {
                            here.push(before.to_owned());
                        }
                        blocks.push(is_module);
                        continue;
                    }
                    "}" => {
                        if blocks.pop() == Some(true) {
                            here.pop();
                        }
                        continue;
                    }
                    "crate" if before != "in" && leads_on => from.clear(),
                    "super" if !["::", "in"].contains(&before) && leads_on => drop(from.pop()),
                    "self" if before != "::" && leads_on => {}
                    name if before == "use" && known.contains(&[&from[..], &[name.to_owned()]].concat()) => {
                        from.push(name.to_owned());
                    }
                    _ => continue,
                }
                self.lead(at + 1, from, &mut |path| {
                    let file =
                        (1..=path.len()).rev().map(|len| &path[..len]).find(|path| known.contains(*path));
                    imports.extend(file.map(<[String]>::to_vec));
                });
            }
            imports.remove(&self.place());
            imports
        }

        /// Calls `found` for each path that begins with `from` and goes on with the tokens at `at`. Returns
        /// where they end.
        fn lead(&self, mut at: usize, mut from: Vec<String>, found: &mut dyn FnMut(&[String])) -> usize {
            while self.text(at) == "::" {
                match self.text(at + 1) {
                    "{" => {
                        at += 2;
                        while !["}", ""].contains(&self.text(at)) {
                            at = match self.text(at) {
                                name if is_name(name) => {
                                    let path = [&from[..], &[name.to_owned()]].concat();
                                    self.lead(at + 1, path, found)
                                }
                                _ => at + 1,
                            };
                        }
                        return at + 1;
                    }
                    "super" => drop(from.pop()),
                    name => from.push(name.to_owned()),
                }
                at += 2;
            }
            found(&from);
            at
        }

        /// Files and directories in which the modules stand that are compiled for tests or fuzzing only.
        pub(super) fn test_modules(&self) -> Vec<PathBuf> {
            let stem = self.path.file_stem().expect("a file's name");
            let home = if stem == "mod" || stem == "lib" {
                self.path.parent().expect("a directory").to_owned()
            } else {
                self.path.with_extension("")
            };
            let paths = |name: &String| [home.join(format!("{name}.rs")), home.join(name)];
            self.test_modules.iter().flat_map(paths).collect()
        }

        /// All paths that begin at the crate's root or climb up to it.
        pub(super) fn references(&self) -> Vec<Reference> {
            let tail = self.path.iter().skip(1).filter(|part| *part != "mod.rs");
            // How many modules deep this place is: 1 in a module of the crate's root.
            let mut depth = 1 + tail.count();
            let mut blocks = Vec::new();
            let mut references = Vec::new();
            let mut at = 0;
            while at < self.tokens.len() {
                match self.text(at) {
                    "{" => {
                        let is_module = at >= 2 && self.text(at - 2) == "mod";
                        blocks.push(is_module);
                        depth += usize::from(is_module);
                    }
                    "}" => depth -= usize::from(blocks.pop() == Some(true)),
                    "crate" if self.text(at + 1) != ")" => self.follow(at, 1, &mut references),
                    "super" => {
                        let mut climbed = 1;
                        while self.text(at + 2 * climbed - 1) == "::"
                            && self.text(at + 2 * climbed) == "super"
                        {
                            climbed += 1;
                        }
                        let parts = 2 * climbed - 1;
                        if climbed == depth && self.text(at + parts) != ")" {
                            self.follow(at, parts, &mut references);
                        }
                        at += parts - 1;
                    }
                    _ => {}
                }
                at += 1;
            }
            references
        }

        /// What the path that leads to the crate's root, `parts` tokens from `start` on, goes on to.
        fn follow(&self, start: usize, parts: usize, references: &mut Vec<Reference>) {
            let prefix: String = (start..start + parts).map(|at| self.text(at)).collect();
            let mut refer = |at: usize| {
                let name = self.text(at);
                let whole = !is_name(name) || name == "self";
                let text = if name.is_empty() { prefix.clone() } else { format!("{prefix}::{name}") };
                let line = self.tokens[at].line;
                references.push(Reference { line, text, name: (!whole).then(|| name.to_owned()) });
            };
            let next = start + parts + 1;
            if self.text(start + parts) != "::" {
                let line = self.tokens[start].line;
                references.push(Reference { line, text: prefix, name: None });
            } else if self.text(next) != "{" {
                refer(next);
            } else {
                let mut depth = 0;
                for at in next..self.tokens.len() {
                    let first = depth == 1 && ["{", ","].contains(&self.text(at - 1));
                    match self.text(at) {
                        "{" => depth += 1,
                        "}" if depth == 1 => break,
                        "}" => depth -= 1,
                        _ if first => refer(at),
                        _ => {}
                    }
                }
            }
        }

        /// Names that are exported with `pub use`, and the modules that they come from.
        pub(super) fn exports(&self) -> BTreeMap<String, String> {
            let mut exports = BTreeMap::new();
            for at in 0..self.tokens.len() {
                if (self.text(at), self.text(at + 1)) != ("pub", "use") {
                    continue;
                }
                let climbs = ["self", "crate"].contains(&self.text(at + 2));
                let module = self.text(if climbs { at + 4 } else { at + 2 });
                let end =
                    (at..self.tokens.len()).find(|&at| self.text(at) == ";").unwrap_or(self.tokens.len());
                for last in at + 2..end {
                    if is_name(self.text(last)) && ["}", ",", ";"].contains(&self.text(last + 1)) {
                        exports.insert(self.text(last).to_owned(), module.to_owned());
                    }
                }
            }
            exports
        }

        fn text(&self, at: usize) -> &str {
            self.tokens.get(at).map_or("", |token| &token.text)
        }
    }

    fn is_name(text: &str) -> bool {
        text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }

    /// Leaves out items under `#[cfg(test)]`, `#[cfg(fuzzing)]` and their like, and names the modules among
    /// them that have a file.
    fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let (mut kept, mut modules) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < tokens.len() {
            if text(at) != "#" {
                kept.push(tokens[at].clone());
                at += 1;
                continue;
            }
            let inner = text(at + 1) == "!";
            let start = at + 1 + usize::from(inner);
            let end = end_of_group(tokens, start);
            let attribute: Vec<&str> = (start + 1..end).map(text).collect();
            at = end;
            if !needs_test(&attribute) {
                continue;
            }
            if inner {
                return (Vec::new(), Vec::new());
            }
            while text(at) == "#" {
                at = end_of_group(tokens, at + 1);
            }
            let item = at;
            while at < tokens.len() && text(at) != ";" && text(at) != "{" {
                at = if ["(", "["].contains(&text(at)) { end_of_group(tokens, at) } else { at + 1 };
            }
            if text(at) == ";" && text(at - 2) == "mod" && at >= item + 2 {
                modules.push(text(at - 1).to_owned());
            }
            at = if text(at) == "{" { end_of_group(tokens, at) } else { at + 1 };
        }
        (kept, modules)
    }

    /// Whether an attribute leaves its item out of everything but tests: `cfg(test)` and
    /// `cfg(all(.., test, ..))`. Or but fuzzing.
    fn needs_test(attribute: &[&str]) -> bool {
        if attribute.first() != Some(&"cfg") {
            return false;
        }
        let mut around = Vec::new();
        for (at, token) in attribute.iter().enumerate() {
            match *token {
                "(" => around.push(attribute[at - 1]),
                ")" => drop(around.pop()),
                "test" | "fuzzing" if !around.iter().any(|name| ["any", "not"].contains(name)) => {
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// The place after the bracket that closes the one at `start`.
    fn end_of_group(tokens: &[Token], start: usize) -> usize {
        let mut depth = 0;
        for (at, token) in tokens.iter().enumerate().skip(start) {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth <= 0 {
                return at + 1;
            }
        }
        tokens.len()
    }

    /// Names, `::` and single signs; no comments, literals or lifetimes.
    fn tokens(text: &str) -> Vec<Token> {
        let chars: Vec<char> = text.chars().collect();
        let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let (mut tokens, mut i, mut line, mut counted) = (Vec::new(), 0, 1, 0);
        while i < chars.len() {
            line += chars[counted..i].iter().filter(|&&c| c == '\n').count();
            counted = i;
            let start = i;
            match at(i) {
                '/' if at(i + 1) == '/' => i += chars[i..].iter().take_while(|&&c| c != '\n').count(),
                '/' if at(i + 1) == '*' => i = end_of_comment(&chars, i),
                '"' => i = end_of_string(&chars, i),
                '\'' if at(i + 1) == '\\' => {
                    i += 3;
                    i += chars[i.min(chars.len())..].iter().take_while(|&&c| c != '\'').count() + 1;
                }
                '\'' if at(i + 2) == '\'' => i += 3,
                '\'' => i += 1 + chars[i + 1..].iter().take_while(|&&c| is_part(c)).count(),
                c if is_part(c) => {
                    i += chars[i..].iter().take_while(|&&c| is_part(c)).count();
                    let name: String = chars[start..i].iter().collect();
                    let hashes = chars[i..].iter().take_while(|&&c| c == '#').count();
                    if ["r", "br", "cr"].contains(&name.as_str()) && at(i + hashes) == '"' {
                        i = end_of_raw_string(&chars, i + hashes + 1, hashes);
                    } else if ["b", "c"].contains(&name.as_str()) && at(i) == '"' {
                        i = end_of_string(&chars, i);
                    } else {
                        tokens.push(Token { line, text: name });
                    }
                }
                ':' if at(i + 1) == ':' => {
                    tokens.push(Token { line, text: "::".to_owned() });
                    i += 2;
                }
                c => {
                    if !c.is_whitespace() {
                        tokens.push(Token { line, text: c.to_string() });
                    }
                    i += 1;
                }
            }
        }
        tokens
    }

    fn end_of_string(chars: &[char], start: usize) -> usize {
        let mut i = start + 1;
        while i < chars.len() && chars[i] != '"' {
            i += if chars[i] == '\\' { 2 } else { 1 };
        }
        (i + 1).min(chars.len())
    }

    fn end_of_raw_string(chars: &[char], start: usize, hashes: usize) -> usize {
        let closes = |i: &usize| {
            chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
        };
        (start..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
    }

    fn end_of_comment(chars: &[char], start: usize) -> usize {
        let (mut depth, mut i) = (0, start);
        while i < chars.len() {
            match (chars[i], chars.get(i + 1)) {
                ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
                ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
                _ => i += 1,
            }
            if depth == 0 {
                return i;
            }
        }
        chars.len()
    }
}
