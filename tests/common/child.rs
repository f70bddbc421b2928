//! Parts of a test that run in a process of their own: the test's own program is started again, to run one
//! test, with a variable in its environment that tells the test to play the child.

use std::process::{Child, Command, Stdio};

const ROLE: &str = "PERISTYLE_TEST_CHILD";

/// What this process was started to do, if it is a child: the text given to [`start`].
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Starts the test `name` of this program in a child that finds `role`. Its standard output is a pipe; what
/// the test harness says comes through it, too.
pub(crate) fn start(name: &str, role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
