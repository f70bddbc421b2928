//! Progress bars while a phase runs, and a line of figures when it is done.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows phases as they go, unless it is silent.
pub(crate) struct Progress {
    pub(crate) silent: bool,
}

/// A phase under way.
pub(crate) struct Phase {
    name: &'static str,
    bar: ProgressBar,
    start: Instant,
    silent: bool,
}

impl Progress {
    pub(crate) fn phase(&self, name: &'static str, steps: u64) -> Phase {
        let target =
            if self.silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let style =
            ProgressStyle::with_template("{msg:8} {wide_bar} {human_pos}/{human_len}  {per_sec}  {eta} left")
                .expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(Some(steps), target).with_style(style).with_message(name);
        Phase { name, bar, start: Instant::now(), silent: self.silent }
    }
}

impl Phase {
    pub(crate) fn add(&self, steps: u64) {
        self.bar.inc(steps);
    }

    /// Replaces the bar by what came of it: steps and steps per second, and `remark`.
    pub(crate) fn end(self, unit: &str, remark: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let steps = self.bar.position();
        self.bar.finish_and_clear();
        if !self.silent {
            let rate = (steps as f64 / seconds) as u64;
            println!(
                "{:8}{:>11} {unit} in {seconds:.2} s, {} {unit}/s; {remark}",
                self.name,
                count(steps),
                count(rate)
            );
        }
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}
