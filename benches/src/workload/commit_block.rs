//! A writer that commits blocks over two families, beside readers of signatures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Load;
use super::signature::{KEY_BYTES, NEIGHBOURS, Until, VALUE_BYTES, signature, tokens};
use crate::child::{Place, Task};
use crate::engine::{Batch, Durability, Engine, Setup};
use crate::entries::{Values, has_tag, mix, random_key};
use crate::measure::{Figure, Fingerprint, Latencies, Measured, Meter, Progress, histogram};
use crate::threads::{Count, counts, on_threads, watched};

const BLOCKS: usize = 0;
const TOKENS: usize = 1;
/// Size of a block, in bytes; its key has as many bytes as a token's.
pub const BLOCK_BYTES: usize = 2048;
/// Tokens that a block changes.
pub const TOKENS_PER_BLOCK: u64 = 20;
/// Signatures for each block, so that 95 % of the operations are signatures.
pub const SIGNATURES_PER_BLOCK: u64 = 19;

/// Who works beside whom, on how many tokens, for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommitBlock {
    /// Number of tokens.
    pub tokens: u64,
    /// Threads that read signatures; one more thread writes.
    pub readers: usize,
    /// Seconds of each phase.
    pub seconds: f64,
    /// What each block survives.
    pub durability: Durability,
}

/// What the writer does in a phase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Nothing,
    /// A block whenever the readers have read their 19 signatures.
    InTurn,
    /// One block after the other.
    WithoutPause,
}

/// What a phase came to.
struct Phase {
    signatures_per_second: f64,
    commits_per_second: f64,
    commits: Histogram<u64>,
    progress: Progress,
}

impl Task for CommitBlock {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        let engine = place.open(&Setup::new(2))?;
        let values = Values::new();
        place.step("filling");
        let load: Load = tokens(TOKENS, self.tokens);
        load.write::<KEY_BYTES>(engine.as_ref(), &values, |_| ())?;
        load.check(engine.as_ref())?;

        let meter = Meter::start(place.directory())?;
        let mut blocks = 0;
        let mut phase = |step, writing| {
            place.step(step);
            self.phase(engine.as_ref(), &values, writing, &mut blocks)
        };
        let alone = phase("signatures alone", Writing::Nothing)?;
        let in_turn = phase("95 % signatures", Writing::InTurn)?;
        let beside = phase("signatures beside a writer", Writing::WithoutPause)?;
        let quiet = Instant::now();
        engine.flush_until_quiet()?;
        let quiet_seconds = quiet.elapsed().as_secs_f64();
        self.check(engine.as_ref(), &load, blocks)?;

        let mut figures = vec![
            Figure::higher("signatures_alone", alone.signatures_per_second, "signatures/s"),
            Figure::higher("signatures_as_95_percent", in_turn.signatures_per_second, "signatures/s"),
            Figure::higher("signatures_beside_writer", beside.signatures_per_second, "signatures/s"),
            Figure::higher("commits_beside_readers", beside.commits_per_second, "commits/s"),
            Figure::lower("time_until_quiet", quiet_seconds, "s").aside(),
        ];
        figures.extend(meter.figures()?);
        Ok(vec![Measured {
            version: engine.version(),
            figures,
            latencies: Some(Latencies::new("commit", &beside.commits)),
            progress: Some(beside.progress),
            fingerprint: None,
        }])
    }
}

impl CommitBlock {
    fn phase(
        &self,
        engine: &dyn Engine,
        values: &Values,
        writing: Writing,
        blocks: &mut u64,
    ) -> Result<Phase> {
        let read = counts(self.readers);
        let done = AtomicBool::new(false);
        let first = *blocks;
        let ((outcome, written), progress) = watched("signatures", &read, || {
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let commits = self.write(engine, values, writing, first, &read, &done);
                    // Readers are not left alone by a writer that failed.
                    done.store(true, Ordering::Release);
                    commits
                });
                let outcome =
                    on_threads(self.readers, |thread| self.read(engine, thread, &read[thread], &done));
                done.store(true, Ordering::Release);
                (outcome, writer.join())
            })
        })?;
        let (_, seconds) = outcome?;
        let commits = written.map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        *blocks += commits.len();
        let signatures: u64 = read.iter().map(Count::get).sum();
        ensure!(signatures > 0, "no signature was read");
        ensure!(writing == Writing::Nothing || !commits.is_empty(), "no block was written");
        Ok(Phase {
            signatures_per_second: signatures as f64 / seconds,
            commits_per_second: commits.len() as f64 / seconds,
            commits,
            progress,
        })
    }

    /// Reads signatures of random tokens, each with a view of its own, so that it sees the blocks committed
    /// before it.
    fn read(&self, engine: &dyn Engine, thread: usize, read: &Count, done: &AtomicBool) -> Result<()> {
        let mut random = fastrand::Rng::with_seed(thread as u64);
        let mut fingerprint = Fingerprint::default();
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed().as_secs_f64() < self.seconds && !done.load(Ordering::Acquire) {
            let key = random_key::<KEY_BYTES>(random.u64(..self.tokens));
            engine.read(TOKENS, &mut |reader| {
                let shown = signature(reader, &key, Until::Entries(NEIGHBOURS), &mut fingerprint)?;
                ensure!(shown > NEIGHBOURS.min(self.tokens), "a signature shows only {shown} entries");
                Ok(())
            })?;
            count += 1;
            read.set(count);
        }
        Ok(())
    }

    /// Commits blocks, numbered from `first`, until the readers are done; returns the times of the commits.
    fn write(
        &self,
        engine: &dyn Engine,
        values: &Values,
        writing: Writing,
        first: u64,
        read: &[Count],
        done: &AtomicBool,
    ) -> Result<Histogram<u64>> {
        let mut commits = histogram()?;
        if writing == Writing::Nothing {
            while !done.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(commits);
        }
        let mut writer = engine.writer(self.durability)?;
        let (mut block, mut changes) = (Batch::default(), Batch::default());
        let mut content = vec![0; BLOCK_BYTES];
        let mut value = [0; VALUE_BYTES];
        while !done.load(Ordering::Acquire) {
            if writing == Writing::InTurn {
                let signatures: u64 = read.iter().map(Count::get).sum();
                if signatures < commits.len() * SIGNATURES_PER_BLOCK {
                    std::thread::sleep(Duration::from_micros(20));
                    continue;
                }
            }
            let number = first + commits.len();
            block.clear();
            values.fill_tagged(number, 0, &mut content);
            block.push(&random_key::<KEY_BYTES>(number), &content);
            changes.clear();
            for token in self.tokens_of(number) {
                values.fill_tagged(number, token, &mut value);
                changes.push(&random_key::<KEY_BYTES>(token), &value);
            }
            let start = Instant::now();
            writer.write_together(&[(BLOCKS, &block), (TOKENS, &changes)])?;
            commits.saturating_record(start.elapsed().as_nanos() as u64);
        }
        Ok(commits)
    }

    /// The tokens that a block changes.
    fn tokens_of(&self, block: u64) -> impl Iterator<Item = u64> {
        let tokens = self.tokens;
        (0..TOKENS_PER_BLOCK).map(move |number| mix(block * TOKENS_PER_BLOCK + number) % tokens)
    }

    /// All blocks are there, no token is lost, and the last block has changed its tokens.
    fn check(&self, engine: &dyn Engine, load: &Load, blocks: u64) -> Result<()> {
        ensure!(blocks > 0, "no block was written");
        load.check(engine)?;
        let last = blocks - 1;
        engine.read(BLOCKS, &mut |reader| {
            let count = reader.count()?;
            ensure!(count == blocks, "{count} blocks of {blocks}");
            let mut equal = false;
            reader.get(&random_key::<KEY_BYTES>(last), &mut |value| equal = has_tag(value, last))?;
            ensure!(equal, "the last block is not what was written");
            Ok(())
        })?;
        engine.read(TOKENS, &mut |reader| {
            for token in self.tokens_of(last) {
                let mut equal = false;
                reader.get(&random_key::<KEY_BYTES>(token), &mut |value| equal = has_tag(value, last))?;
                ensure!(equal, "a token is not what the last block made of it");
            }
            Ok(())
        })
    }
}
