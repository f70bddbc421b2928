//! Tells the benchmarks which versions of the peers and of the compiler they are built with.

use std::process::Command;

/// Crates whose resolved version an engine reports as its own.
const PEERS: [&str; 5] = ["peristyle", "redb", "fjall", "canopydb", "sled"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    for peer in PEERS {
        println!("cargo:rustc-env={}_VERSION={}", peer.to_uppercase(), locked_version(&lock, peer));
    }

    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    println!("cargo:rustc-env=COMPILER_VERSION={}", version.trim());
}

/// The version that the lock file gives for a crate.
fn locked_version<'l>(lock: &'l str, name: &str) -> &'l str {
    let wanted = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != wanted);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    version.map_or("unknown", |version| version.trim_end_matches('"'))
}
