//! The command.

use peristyle_crashtest::campaign::{exhaustive::Exhaustive, random};
use peristyle_crashtest::tally::Tally;

fn main() {
    let tally = Tally::default();
    let base = peristyle_crashtest::campaign::base();
    let start = std::time::Instant::now();
    if std::env::args().nth(1).as_deref() == Some("x") {
        let n: usize = std::env::args().nth(2).map_or(20, |text| text.parse().unwrap());
        let x = Exhaustive::new(&base, 1).unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..n / 4 {
                        x.work(&tally, &|| false);
                    }
                });
            }
        });
    } else if std::env::args().nth(1).as_deref() == Some("e") {
        let n: usize = std::env::args().nth(2).map_or(20, |text| text.parse().unwrap());
        let x = peristyle_crashtest::campaign::errors::Errors::new(&base, 1);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..n / 4 {
                        x.work(&tally);
                    }
                });
            }
        });
    } else {
        let seed: u64 = std::env::args().nth(1).map_or(1, |text| text.parse().unwrap());
        let n: u64 = std::env::args().nth(2).map_or(20, |text| text.parse().unwrap());
        for seed in seed..seed + n {
            random::run_seed(seed, &base, &tally);
        }
    }
    for f in tally.findings() {
        println!("{f}");
    }
    println!("{tally} {:?} {:?}", tally.workloads, start.elapsed());
}
