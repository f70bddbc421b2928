//! Does the harness bite? Breaks the engine in many ways, one at a time, in a copy of the workspace, and runs
//! what must notice.

mod list;

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub use list::{Mutation, Suite};

/// Which mutations, and where they are built.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Only mutations whose description contains this; may be given more than once
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Lists the mutations and runs nothing
    #[arg(long)]
    pub list: bool,
    /// Where mutants are built; kept, so that the next run is faster (default: mutants in the target
    /// directory)
    #[arg(long, value_name = "DIRECTORY")]
    pub target_dir: Option<PathBuf>,
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// By what.
    Killed(String),
    Survived,
}

/// How long a suite may take; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// What the campaigns do to a mutant, the ones that find most first.
const CAMPAIGNS: [[&str; 6]; 4] = [
    ["--campaign", "exhaustive", "--images", "12000", "--seed", "1"],
    ["--campaign", "errors", "--images", "2000", "--seed", "1"],
    ["--campaign", "random", "--images", "30000", "--seed", "1"],
    ["--campaign", "kill", "--images", "2000", "--seed", "1"],
];

/// The root of the workspace that this program was built from.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// Applies a mutation to the text of its file.
fn mutate(text: &str, mutation: &Mutation) -> Result<String, String> {
    match text.matches(mutation.original).count() {
        1 => Ok(text.replacen(mutation.original, mutation.mutated, 1)),
        count => Err(format!(
            "the text of \"{}\" occurs {count} times in {}, and should once",
            mutation.what, mutation.file
        )),
    }
}

/// A copy of the workspace that mutants are built in.
struct Copy {
    root: tempfile::TempDir,
    target: PathBuf,
}

impl Copy {
    fn make(target: PathBuf) -> io::Result<Self> {
        let root = tempfile::tempdir()?;
        copy_directory(&workspace(), root.path())?;
        Ok(Self { root, target })
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Mutants are built more often than they are run for long.
        command
            .args(arguments)
            .current_dir(self.root.path())
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_TERM_COLOR", "never")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn build(&self, suite: Suite) -> io::Result<bool> {
        let arguments = match suite {
            Suite::Crashes => vec!["build", "--release", "-p", "peristyle-crashtest"],
            Suite::Tests(_) => vec!["test", "-p", "peristyle", "--lib", "--no-run"],
            Suite::File(name) => vec!["test", "-p", "peristyle", "--test", name, "--no-run"],
        };
        Ok(self.cargo(&arguments).status()?.success())
    }

    /// Runs what must notice.
    fn run(&self, suite: Suite) -> io::Result<Fate> {
        match suite {
            Suite::Crashes => {
                let program = self.target.join("release/peristyle-crashtest");
                for arguments in CAMPAIGNS {
                    let mut command = Command::new(&program);
                    command.arg("--quick").args(arguments).stdin(Stdio::null());
                    if let Some(how) = fails(command)? {
                        return Ok(Fate::Killed(format!("{} ({how})", arguments[1])));
                    }
                }
                Ok(Fate::Survived)
            }
            Suite::File(name) => {
                let command = self.cargo(&["test", "-p", "peristyle", "--test", name]);
                Ok(fails(command)?
                    .map_or(Fate::Survived, |how| Fate::Killed(format!("tests/{name} ({how})"))))
            }
            Suite::Tests(test) => {
                let command = self.cargo(&["test", "-p", "peristyle", "--lib", test]);
                Ok(fails(command)?.map_or(Fate::Survived, |how| Fate::Killed(format!("test {test} ({how})"))))
            }
        }
    }

    /// Builds and runs one mutant.
    fn try_mutation(&self, mutation: &Mutation) -> Result<Fate, String> {
        let path = self.root.path().join(mutation.file);
        let failed = |error: io::Error| format!("{}: {error}", mutation.file);
        let original = fs::read_to_string(&path).map_err(failed)?;
        fs::write(&path, mutate(&original, mutation)?).map_err(failed)?;
        let fate = match self.build(mutation.suite) {
            Ok(true) => self.run(mutation.suite).map_err(failed),
            Ok(false) => Err(format!("\"{}\" does not compile", mutation.what)),
            Err(error) => Err(failed(error)),
        };
        fs::write(&path, original).map_err(failed)?;
        fate
    }
}

/// How a command failed, or `None` if it did not.
fn fails(mut command: Command) -> io::Result<Option<String>> {
    let mut said = tempfile::tempfile()?;
    let mut child = command.stdout(said.try_clone()?).stderr(said.try_clone()?).spawn()?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(Some("hangs".into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(None);
    }
    let mut text = Vec::new();
    said.rewind()?;
    said.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| TELLING.iter().any(|word| line.contains(word)));
    let line: String = line.or(text.lines().next()).unwrap_or_default().chars().take(MAX_SAID).collect();
    Ok(Some(line))
}

/// Words of which the line that tells most has one.
const TELLING: [&str; 8] =
    ["Lost:", "Torn:", "Resurrected:", "Unsound:", "Wrong:", "Panicked:", "Hung:", "panicked at"];

/// Characters of it that are shown.
const MAX_SAID: usize = 160;

/// Copies what is needed to build.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if ["target", ".git", "corpus", "artifacts"].iter().any(|left_out| name == *left_out) {
            continue;
        }
        let destination = to.join(&name);
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&destination)?;
            copy_directory(&entry.path(), &destination)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), destination)?;
        }
    }
    Ok(())
}

/// Runs the mutations that `arguments` ask for.
pub fn run(arguments: &Arguments) -> ExitCode {
    let chosen: Vec<&Mutation> = list::all()
        .filter(|mutation| {
            arguments.only.is_empty() || arguments.only.iter().any(|only| mutation.what.contains(only))
        })
        .collect();
    if chosen.is_empty() {
        eprintln!("no mutation is described so; --list shows all of them");
        return ExitCode::FAILURE;
    }
    if arguments.list {
        for mutation in chosen {
            println!("{}: {}", mutation.file, mutation.what);
        }
        return ExitCode::SUCCESS;
    }
    match run_all(&chosen, arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(chosen: &[&Mutation], arguments: &Arguments) -> Result<ExitCode, String> {
    let target = arguments.target_dir.clone().unwrap_or_else(|| workspace().join("target/mutants"));
    let copy = Copy::make(target).map_err(|error| format!("copying the workspace: {error}"))?;
    let bar = ProgressBar::new(chosen.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_message("the engine as it is");
    // What fails on the engine as it is would take every mutant for killed.
    check_unbroken(&copy, chosen)?;
    let (mut killed, mut survivors, mut errors) = (0, Vec::new(), Vec::new());
    // Not through the bar, which says nothing where there is no terminal.
    let say = |line: String| bar.suspend(|| eprintln!("{line}"));
    for mutation in chosen {
        bar.set_message(mutation.what);
        match copy.try_mutation(mutation) {
            Ok(Fate::Killed(by)) => {
                killed += 1;
                say(format!("killed: {}: by {by}", mutation.what));
            }
            Ok(Fate::Survived) => {
                say(format!("SURVIVED: {}: {}", mutation.file, mutation.what));
                survivors.push(mutation);
            }
            Err(error) => {
                say(format!("ERROR: {error}"));
                errors.push(error);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("mutants={} killed={killed} survivors={}", chosen.len(), survivors.len());
    Ok(if survivors.is_empty() && errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_unbroken(copy: &Copy, chosen: &[&Mutation]) -> Result<(), String> {
    let mut suites: Vec<Suite> = Vec::new();
    for suite in chosen.iter().map(|mutation| mutation.suite) {
        let is_known = |known: &Suite| match (known, suite) {
            (Suite::Crashes, Suite::Crashes) => true,
            (Suite::Tests(known), Suite::Tests(test)) | (Suite::File(known), Suite::File(test)) => {
                *known == test
            }
            _ => false,
        };
        if !suites.iter().any(is_known) {
            suites.push(suite);
        }
    }
    for suite in suites {
        let failed = |error: io::Error| format!("running {suite:?}: {error}");
        if !copy.build(suite).map_err(failed)? {
            return Err("the engine does not build as it is".into());
        }
        if let Fate::Killed(by) = copy.run(suite).map_err(failed)? {
            return Err(format!("{by} with the engine as it is"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_finds_its_text_once_and_changes_it() {
        for mutation in list::all() {
            let text = fs::read_to_string(workspace().join(mutation.file)).unwrap();
            let mutated = mutate(&text, mutation).unwrap();
            assert_ne!(mutated, text, "{}", mutation.what);
        }
        assert!(list::all().count() >= 30);
    }

    /// Whether the engine has a module, or a test, by what the filter ends with.
    fn names_something(directory: &Path, filter: &str) -> bool {
        let last = filter.rsplit("::").next().unwrap_or(filter);
        let is_test = |line: &str| line.contains("fn ") && line.contains(last);
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            stem == last
                || path.is_dir() && names_something(&path, filter)
                || path.is_file() && fs::read_to_string(&path).unwrap().lines().any(is_test)
        })
    }

    #[test]
    fn what_must_notice_a_mutation_is_there() {
        let (source, tests) = (workspace().join("src"), workspace().join("tests"));
        for mutation in list::all() {
            let is_there = match mutation.suite {
                Suite::Crashes => true,
                Suite::Tests(filter) => names_something(&source, filter),
                Suite::File(name) => {
                    tests.join(name).is_dir() || tests.join(name).with_extension("rs").is_file()
                }
            };
            assert!(is_there, "{}: {:?}", mutation.what, mutation.suite);
        }
    }

    #[test]
    fn a_text_that_occurs_twice_or_never_is_an_error() {
        let mutation = Mutation { original: "a", mutated: "b", ..*list::all().next().unwrap() };
        assert!(mutate("aa", &mutation).is_err());
        assert!(mutate("c", &mutation).is_err());
        assert_eq!(mutate("cac", &mutation).unwrap(), "cbc");
    }
}
