//! What the node lives through: tokens come into being, blocks use them, peers tell their news, signatures
//! are asked for.
//!
//! Everything is a function of the options, so that two stores can be held against each other, and a run over
//! a directory that holds a former one ends in the same state.

use std::time::Instant;

use clap::Args;

use crate::model::{Block, BlockId, BlockStore, LastUse, Result, TokenId, TokenStore};
use crate::progress::{Progress, count};
use crate::random::{Random, fill, mix};
use crate::signature::{Challenge, Signature};

/// Tokens that one block brings into being.
const TOKENS_CREATED: u64 = 1000;

/// Tokens that one later block uses.
const TOKENS_USED: u64 = 20;

/// Bytes of a block's body.
const BLOCK_BYTES: usize = 2048;

/// What is drawn at random, each from a sequence of its own.
enum Purpose {
    Token = 1,
    Block,
    Uses,
    News,
    Signatures,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Workload {
    /// Tokens in the store
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) tokens: u64,

    /// Blocks to commit after the tokens are there, each of 2 KiB and with 20 tokens
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) blocks: u64,

    /// Uses of single tokens that peers tell of, half of them long known
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) news: u64,

    /// Signatures to generate
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) signatures: u64,

    /// One token in so many matches a signature's challenge
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) one_in: u64,

    /// Number that determines everything that is random
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
}

/// What a store has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tokens looked at by all signatures.
    pub(crate) visited: u64,
    /// Matches found by all signatures.
    pub(crate) matches: u64,
    /// Sum over all signatures.
    pub(crate) checksum: u64,
}

impl Workload {
    pub(crate) fn run(&self, store: &(impl TokenStore + BlockStore), progress: &Progress) -> Result<Outcome> {
        let genesis = self.block(u64::MAX);
        store.save(&genesis, b"genesis")?;
        self.create_tokens(store, progress)?;
        self.commit_blocks(store, progress)?;
        self.take_news(store, progress)?;
        let outcome = self.generate_signatures(store, progress)?;
        store.load(&genesis)?.ok_or("the first block is gone")?;
        Ok(outcome)
    }

    fn create_tokens(&self, store: &impl BlockStore, progress: &Progress) -> Result<()> {
        let phase = progress.phase("create", self.tokens);
        let mut tokens = Vec::new();
        let mut body = Vec::new();
        for number in 0..self.creations() {
            let first = number * TOKENS_CREATED;
            let end = self.tokens.min(first + TOKENS_CREATED);
            tokens.clear();
            tokens.extend((first..end).map(|index| self.token(index)));
            self.commit(store, number, &tokens, &mut body)?;
            phase.add(end - first);
        }
        phase.end("tokens", &format!("in {} blocks", count(self.creations())));
        Ok(())
    }

    fn commit_blocks(&self, store: &impl BlockStore, progress: &Progress) -> Result<()> {
        let phase = progress.phase("commit", self.blocks);
        let mut random = Random::new(self.seed, Purpose::Uses as u64);
        let mut tokens = Vec::new();
        let mut body = Vec::new();
        for number in self.creations()..self.creations() + self.blocks {
            tokens.clear();
            tokens.extend((0..TOKENS_USED).map(|_| self.any_token(&mut random)));
            self.commit(store, number, &tokens, &mut body)?;
            phase.add(1);
        }
        phase.end("blocks", &format!("of {TOKENS_USED} tokens each"));
        Ok(())
    }

    fn take_news(&self, store: &impl TokenStore, progress: &Progress) -> Result<()> {
        let phase = progress.phase("news", self.news);
        let mut random = Random::new(self.seed, Purpose::News as u64);
        let mut newer = 0;
        for _ in 0..self.news {
            let index = random.below(self.tokens);
            let creation = index / TOKENS_CREATED;
            let is_known = random.next().is_multiple_of(2);
            let time = if is_known { creation } else { random.below(2 * (self.creations() + self.blocks)) };
            newer += u64::from(store.set(&self.token(index), LastUse { block: self.block(time), time })?);
            phase.add(1);
        }
        phase.end("uses", &format!("{} of them new", count(newer)));
        Ok(())
    }

    fn generate_signatures(&self, store: &impl TokenStore, progress: &Progress) -> Result<Outcome> {
        let mut outcome = Outcome { visited: 0, matches: 0, checksum: 0 };
        let phase = progress.phase("sign", self.signatures);
        let mut random = Random::new(self.seed, Purpose::Signatures as u64);
        let start = Instant::now();
        for _ in 0..self.signatures {
            let token = self.any_token(&mut random);
            let challenge = Challenge { nonce: random.next(), one_in: self.one_in };
            let signature =
                Signature::generate(store, &token, challenge)?.ok_or("a token that was created is gone")?;
            outcome.visited += signature.visited;
            outcome.matches += (signature.after.len() + signature.before.len()) as u64;
            outcome.checksum = signature.checksum(outcome.checksum);
            phase.add(1);
        }
        let seconds = start.elapsed().as_secs_f64();
        phase.end(
            "signatures",
            &format!(
                "{:.1} us and {:.0} tokens each, {} tokens/s",
                seconds * 1e6 / self.signatures.max(1) as f64,
                outcome.visited as f64 / self.signatures.max(1) as f64,
                count((outcome.visited as f64 / seconds) as u64),
            ),
        );
        Ok(outcome)
    }

    /// Commits block `number`; its number is its time.
    fn commit(
        &self,
        store: &impl BlockStore,
        number: u64,
        tokens: &[TokenId],
        body: &mut Vec<u8>,
    ) -> Result<()> {
        body.resize(BLOCK_BYTES, 0);
        fill(body, self.seed, number);
        store.commit_block(&Block { id: &self.block(number), time: number, body, tokens })
    }

    /// Blocks that bring tokens into being.
    fn creations(&self) -> u64 {
        self.tokens.div_ceil(TOKENS_CREATED)
    }

    fn token(&self, index: u64) -> TokenId {
        self.id(Purpose::Token, index)
    }

    fn any_token(&self, random: &mut Random) -> TokenId {
        self.token(random.below(self.tokens))
    }

    fn block(&self, number: u64) -> BlockId {
        self.id(Purpose::Block, number)
    }

    fn id(&self, purpose: Purpose, number: u64) -> [u8; 32] {
        let mut id = [0; 32];
        fill(&mut id, mix(self.seed ^ (purpose as u64) << 32), number);
        id
    }
}
