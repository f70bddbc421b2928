//! Panics of any thread. Those of the engine's own threads reach nobody else.

use std::panic;

use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Panics that are remembered.
const MAX_SEEN: usize = 10;

/// Remembers panics from now on, instead of printing them.
pub fn watch() {
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let mut seen = SEEN.lock();
        if seen.len() < MAX_SEEN {
            seen.push(format!("thread {:?}: {info}", thread.name().unwrap_or("?")));
        }
    }));
}

/// The panics so far.
pub fn seen() -> Vec<String> {
    SEEN.lock().clone()
}
