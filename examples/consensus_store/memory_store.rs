//! The twin in memory: what the store does, in its plainest form.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::ControlFlow;
use std::sync::RwLock;

use crate::model::{Block, BlockId, BlockStore, LastUse, Result, Token, TokenId, TokenStore};

#[derive(Default)]
pub(crate) struct MemoryStore {
    // One lock over both, so that nobody sees half a commit.
    maps: RwLock<Maps>,
}

#[derive(Default)]
struct Maps {
    tokens: BTreeMap<TokenId, LastUse>,
    blocks: BTreeMap<BlockId, Box<[u8]>>,
}

impl Maps {
    fn set(&mut self, token: &TokenId, usage: LastUse) -> bool {
        let is_news = self.tokens.get(token).is_none_or(|known| known.time < usage.time);
        if is_news {
            self.tokens.insert(*token, usage);
        }
        is_news
    }

    fn save(&mut self, block: &BlockId, body: &[u8]) -> bool {
        let is_new = !self.blocks.contains_key(block);
        if is_new {
            self.blocks.insert(*block, body.into());
        }
        is_new
    }
}

const UNPOISONED: &str = "nobody panics with the lock in hand";

fn show<'a>(
    tokens: impl Iterator<Item = (&'a TokenId, &'a LastUse)>,
    mut visit: impl FnMut(Token<'_>) -> ControlFlow<()>,
) {
    for (id, LastUse { block, time }) in tokens {
        if visit(Token { id, block, time: *time }).is_break() {
            break;
        }
    }
}

impl TokenStore for MemoryStore {
    fn lookup(&self, token: &TokenId) -> Result<Option<LastUse>> {
        Ok(self.maps.read().expect(UNPOISONED).tokens.get(token).copied())
    }

    fn set(&self, token: &TokenId, usage: LastUse) -> Result<bool> {
        Ok(self.maps.write().expect(UNPOISONED).set(token, usage))
    }

    fn range_after(&self, token: &TokenId, visit: impl FnMut(Token<'_>) -> ControlFlow<()>) -> Result<()> {
        let maps = self.maps.read().expect(UNPOISONED);
        show(maps.tokens.range::<TokenId, _>((Excluded(token), Unbounded)), visit);
        Ok(())
    }

    fn range_before(&self, token: &TokenId, visit: impl FnMut(Token<'_>) -> ControlFlow<()>) -> Result<()> {
        let maps = self.maps.read().expect(UNPOISONED);
        show(maps.tokens.range::<TokenId, _>(..token).rev(), visit);
        Ok(())
    }
}

impl BlockStore for MemoryStore {
    fn load(&self, block: &BlockId) -> Result<Option<Vec<u8>>> {
        Ok(self.maps.read().expect(UNPOISONED).blocks.get(block).map(|body| body.to_vec()))
    }

    fn save(&self, block: &BlockId, body: &[u8]) -> Result<bool> {
        Ok(self.maps.write().expect(UNPOISONED).save(block, body))
    }

    fn commit_block(&self, block: &Block<'_>) -> Result<()> {
        let mut maps = self.maps.write().expect(UNPOISONED);
        maps.save(block.id, block.body);
        for token in block.tokens {
            maps.set(token, LastUse { block: *block.id, time: block.time });
        }
        Ok(())
    }
}
