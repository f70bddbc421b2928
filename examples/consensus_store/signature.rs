//! Signatures: what only a node that holds the tokens can tell.
//!
//! A signature of a token names its last use and the tokens nearest to it, five above and five below, that
//! match a challenge. Which ones match depends on what the store holds of them, so that they must be read to
//! be found.

use std::ops::ControlFlow;

use crate::model::{LastUse, Result, Token, TokenId, TokenStore};
use crate::random::mix;

/// Matches to be found above the token, and as many below.
pub(crate) const MATCHES: usize = 5;

/// Decides which tokens match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenge {
    pub(crate) nonce: u64,
    /// One token in so many matches.
    pub(crate) one_in: u64,
}

impl Challenge {
    fn is_met_by(self, token: &Token<'_>) -> bool {
        let held = mix(word(token.id) ^ self.nonce) ^ word(token.block) ^ token.time;
        mix(held).is_multiple_of(self.one_in)
    }
}

/// A token's last use, and the matches on both sides of it: fewer than five where the tokens end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) last_use: LastUse,
    pub(crate) after: Vec<TokenId>,
    pub(crate) before: Vec<TokenId>,
    /// Tokens looked at on both sides.
    pub(crate) visited: u64,
}

impl Signature {
    /// Signs `token`; `None` if the store does not know it.
    pub(crate) fn generate(
        store: &impl TokenStore,
        token: &TokenId,
        challenge: Challenge,
    ) -> Result<Option<Self>> {
        let Some(last_use) = store.lookup(token)? else { return Ok(None) };
        let mut signature = Self {
            last_use,
            after: Vec::with_capacity(MATCHES),
            before: Vec::with_capacity(MATCHES),
            visited: 0,
        };
        let Self { after, before, visited, .. } = &mut signature;
        store.range_after(token, |token| collect(token, challenge, after, visited))?;
        store.range_before(token, |token| collect(token, challenge, before, visited))?;
        Ok(Some(signature))
    }

    /// Condenses the signature and what came before it.
    pub(crate) fn checksum(&self, before: u64) -> u64 {
        let matches = self.after.iter().chain(&self.before).map(word);
        let own = [word(&self.last_use.block), self.last_use.time, self.visited, self.after.len() as u64];
        own.into_iter().chain(matches).fold(before, |sum, word| mix(sum ^ word))
    }
}

fn collect(
    token: Token<'_>,
    challenge: Challenge,
    matches: &mut Vec<TokenId>,
    visited: &mut u64,
) -> ControlFlow<()> {
    *visited += 1;
    if challenge.is_met_by(&token) {
        matches.push(*token.id);
    }
    if matches.len() < MATCHES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// 8 bytes of an identifier, for the sum.
fn word(id: &[u8; 32]) -> u64 {
    id.as_chunks().0.iter().fold(0, |sum, chunk| sum.rotate_left(7) ^ u64::from_le_bytes(*chunk))
}
