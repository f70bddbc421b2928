//! Signatures: one point read of a random token, then its neighbours in both directions.

use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::child::{Place, Task};
use crate::engine::{Direction, Durability, Engine, Reader, Setup};
use crate::entries::{Values, mix, random_key};
use crate::measure::{Figure, Fingerprint, Latencies, Measured, Meter, histogram};
use crate::memory_limit::MemoryLimit;
use crate::usage::disk_bytes;

/// Size of a token's key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Size of a token's value, in bytes.
pub const VALUE_BYTES: usize = 40;
/// Neighbours that a signature reads on each side.
pub const NEIGHBOURS: u64 = 1000;
/// Matches that a signature looks for on each side, in its other form.
pub const MATCHES: u64 = 5;
/// One of so many tokens is a match.
pub const MATCH_IN: u64 = 200;

/// The tokens, filled in batches of ten thousand without a sync.
pub fn tokens(family: usize, entries: u64) -> Load {
    Load { family, entries, value_bytes: VALUE_BYTES, batch: 10_000, durability: Durability::Unsynced }
}

/// Whether a token is a match.
#[inline]
fn matches(value: &[u8]) -> bool {
    value.last_chunk().is_some_and(|chunk| u64::from_le_bytes(*chunk).is_multiple_of(MATCH_IN))
}

/// When a signature has read enough on a side.
#[derive(Clone, Copy)]
pub enum Until {
    /// A number of entries, the token's own among them.
    Entries(u64),
    /// A number of matches.
    Matches(u64),
}

/// Reads the signature of a token; returns how many entries it showed.
pub fn signature(
    reader: &mut dyn Reader,
    key: &[u8],
    until: Until,
    fingerprint: &mut Fingerprint,
) -> Result<u64> {
    let found = reader.get(key, &mut |value| fingerprint.add(key, value))?;
    ensure!(found, "a token is missing");
    let mut shown = 0;
    for direction in [Direction::Forward, Direction::Backward] {
        let mut left = match until {
            Until::Entries(left) | Until::Matches(left) => left,
        };
        reader.scan(key, direction, &mut |key, value| {
            fingerprint.add(key, value);
            shown += 1;
            if matches!(until, Until::Entries(_)) || matches(value) {
                left -= 1;
            }
            left > 0
        })?;
    }
    Ok(shown)
}

/// How much is read from how many tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// Number of tokens.
    pub tokens: u64,
    /// Signatures of each form.
    pub signatures: u64,
    /// Point reads.
    pub reads: u64,
    /// Bytes of cache for engines that have one, if memory is limited; see
    /// [`memory_bytes`](Self::memory_bytes).
    pub cache_bytes: Option<u64>,
}

impl Task for Signature {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        let _limit = self.memory_bytes().map(MemoryLimit::enter).transpose()?;
        let engine = place.open(&self.setup())?;
        let meter = Meter::start(place.directory())?;
        let loaded = if self.cache_bytes.is_none() { Some(self.load(engine.as_ref(), place)?) } else { None };
        place.step("reading once from end to end");
        tokens(0, self.tokens).check(engine.as_ref())?;

        let mut fingerprint = Fingerprint::default();
        let mut latencies = histogram()?;
        let mut figures = Vec::new();
        engine.read(0, &mut |reader| {
            place.step("signatures");
            let microseconds =
                self.signatures(reader, Until::Entries(NEIGHBOURS), &mut latencies, &mut fingerprint)?;
            figures.push(Figure::lower("signature", microseconds, "us"));
            place.step("signatures until matches");
            let microseconds =
                self.signatures(reader, Until::Matches(MATCHES), &mut histogram()?, &mut fingerprint)?;
            figures.push(Figure::lower("signature_until_matches", microseconds, "us"));
            place.step("point reads");
            let nanoseconds = self.point_reads(reader, &mut fingerprint)?;
            figures.push(Figure::lower("point_read", nanoseconds, "ns"));
            Ok(())
        })?;
        if let Some((load_seconds, quiet_seconds)) = loaded {
            figures.push(Figure::higher("load", self.tokens as f64 / load_seconds, "entries/s").aside());
            figures.push(Figure::lower("time_until_quiet_after_load", quiet_seconds, "s").aside());
        }
        figures.extend(meter.figures()?);
        figures.push(Figure::lower("size_on_disk", disk_bytes(place.directory())? as f64, "B").aside());
        Ok(vec![Measured {
            version: engine.version(),
            figures,
            latencies: Some(Latencies::new("signature", &latencies)),
            progress: None,
            fingerprint: Some(fingerprint.0),
        }])
    }
}

impl Signature {
    /// What all memory of an engine is limited to, the page cache of its files included: a quarter more than
    /// the cache, and 64 MiB.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.cache_bytes.map(|cache_bytes| cache_bytes / 4 * 5 + (64 << 20))
    }

    fn setup(&self) -> Setup {
        match self.cache_bytes {
            None => Setup::new(1),
            Some(cache_bytes) => Setup::with_memory(1, cache_bytes, (cache_bytes / 4).max(1 << 20)),
        }
    }

    /// Fills a database for another process, which reads it with limited memory.
    pub fn fill(&self, place: &Place) -> Result<()> {
        let engine = place.open(&Setup::new(1))?;
        self.load(engine.as_ref(), place).map(drop)
    }

    /// Writes the tokens; returns the seconds until they were acknowledged, and from then on until the engine
    /// was quiet.
    fn load(&self, engine: &dyn Engine, place: &Place) -> Result<(f64, f64)> {
        place.step("filling");
        tokens(0, self.tokens).write::<KEY_BYTES>(engine, &Values::new(), |_| ())
    }

    /// Reads signatures of random tokens; returns the time of one in microseconds.
    fn signatures(
        &self,
        reader: &mut dyn Reader,
        until: Until,
        latencies: &mut Histogram<u64>,
        fingerprint: &mut Fingerprint,
    ) -> Result<f64> {
        let mut shown = 0;
        let start = Instant::now();
        let mut clock = start;
        for number in 0..self.signatures {
            let key = random_key::<KEY_BYTES>(mix(number) % self.tokens);
            shown += signature(reader, &key, until, fingerprint)?;
            let now = Instant::now();
            latencies.saturating_record((now - clock).as_nanos() as u64);
            clock = now;
        }
        let microseconds = start.elapsed().as_secs_f64() * 1e6 / self.signatures as f64;
        ensure!(
            shown >= self.signatures * MATCHES,
            "{} signatures show only {shown} entries",
            self.signatures
        );
        Ok(microseconds)
    }

    /// Reads random tokens; returns the time of one in nanoseconds.
    fn point_reads(&self, reader: &mut dyn Reader, fingerprint: &mut Fingerprint) -> Result<f64> {
        let start = Instant::now();
        let mut found = 0;
        for number in 0..self.reads {
            let key = random_key::<KEY_BYTES>(mix(!number) % self.tokens);
            found += u64::from(reader.get(&key, &mut |value| fingerprint.add(&key, value))?);
        }
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / self.reads as f64;
        ensure!(found == self.reads, "{found} of {} tokens are there", self.reads);
        Ok(nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_hundred_tokens_matches() {
        let values = Values::new();
        let mut value = [0; VALUE_BYTES];
        let found = (0..100_000)
            .filter(|position| {
                values.fill_tagged(*position, 0, &mut value);
                matches(&value)
            })
            .count();
        assert!((350..650).contains(&found), "{found}");
    }
}
