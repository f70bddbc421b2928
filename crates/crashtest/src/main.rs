//! The command: crashes Peristyle in every way it knows, and says what was lost.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peristyle_crashtest::campaign::kill;
use peristyle_crashtest::{command, mutants};

/// Crashes Peristyle on simulated and real disks and checks what is left.
///
/// Ends with one line of counts, and with a status other than 0 if anything was lost.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    campaigns: command::Arguments,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Breaks the engine in many ways, one at a time, and tells which of them nothing notices
    Mutants(mutants::Arguments),
    /// Writes to a database until it is killed
    #[command(name = kill::CHILD, hide = true)]
    KillChild(kill::ChildArguments),
}

fn main() -> ExitCode {
    let command = Command::parse();
    match command.what {
        None => command::run(&command.campaigns),
        Some(What::Mutants(arguments)) => mutants::run(&arguments),
        Some(What::KillChild(arguments)) => kill::play_child(&arguments.directory, arguments.seed),
    }
}
