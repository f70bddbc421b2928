//! The command.

use peristyle_crashtest::campaign::random;
use peristyle_crashtest::disk::Image;
use peristyle_crashtest::tally::Tally;

fn main() {
    let tally = Tally::default();
    let base = peristyle_crashtest::campaign::base();
    let start = std::time::Instant::now();
    let seed: u64 = std::env::args().nth(1).map_or(1, |text| text.parse().unwrap());
    let n: u64 = std::env::args().nth(2).map_or(20, |text| text.parse().unwrap());
    for seed in seed..seed + n {
        random::run_seed(seed, &base, &tally);
    }
    for f in tally.findings() {
        println!("{f}");
    }
    println!("{tally} {:?} {:?}", tally.workloads, start.elapsed());
    let _: Image = base;
}
