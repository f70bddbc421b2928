//! The store itself: two column families of one database.
//!
//! | family | key | value |
//! |---|---|---|
//! | `tokens` | token id, 32 bytes | block id, 32 bytes, then the time, 8 bytes, big-endian |
//! | `blocks` | block id, 32 bytes | the block's body |

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peristyle::{ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, FamilyOptions, WriteBatch};

use crate::model::{Block, BlockId, BlockStore, LastUse, Result, Token, TokenId, TokenStore};

pub(crate) struct PeristyleStore {
    db: ColumnFamilyDatabase,
    tokens: ColumnFamily,
    blocks: ColumnFamily,
    /// A token is looked up before it is written. Whoever holds this is the one writer, so that nobody writes
    /// between the two; readers do not wait for it. What it holds is the memory of the batch before.
    writer: Mutex<WriteBatch>,
}

impl PeristyleStore {
    pub(crate) fn open(builder: DatabaseBuilder, path: &Path) -> Result<Self> {
        let db = builder.open(path)?;
        // Signatures walk over tokens all over the key space; blocks are mostly written.
        let tokens = db.column_family_or_create("tokens", FamilyOptions::default().cache_share(4))?;
        let blocks = db.column_family_or_create("blocks", FamilyOptions::default())?;
        Ok(Self { db, tokens, blocks, writer: Mutex::default() })
    }

    pub(crate) fn database(&self) -> &ColumnFamilyDatabase {
        &self.db
    }

    pub(crate) fn close(self) -> Result<()> {
        Ok(self.db.close()?)
    }

    fn writer(&self) -> MutexGuard<'_, WriteBatch> {
        // A batch that a panicking writer left behind is harmless: it is cleared before it is used.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_news(&self, token: &TokenId, time: u64) -> Result<bool> {
        Ok(self.lookup(token)?.is_none_or(|known| known.time < time))
    }
}

fn encode(usage: &LastUse) -> [u8; 40] {
    let mut value = [0; 40];
    value[..32].copy_from_slice(&usage.block);
    value[32..].copy_from_slice(&usage.time.to_be_bytes());
    value
}

fn decode(value: &[u8]) -> Result<(&BlockId, u64)> {
    let (block, time) = value.split_first_chunk().ok_or("a token's value is too short")?;
    Ok((block, u64::from_be_bytes(time.try_into()?)))
}

/// Shows an entry to `visit`; breaks also if it is no token, with the error that says so.
fn show(
    (key, value): (&[u8], &[u8]),
    visit: &mut impl FnMut(Token<'_>) -> ControlFlow<()>,
) -> ControlFlow<Result<()>> {
    let token = || -> Result<_> { Ok((TokenId::try_from(key)?, decode(value)?)) };
    match token() {
        Ok((id, (block, time))) => visit(Token { id: &id, block, time }).map_break(Ok),
        Err(error) => ControlFlow::Break(Err(error)),
    }
}

impl TokenStore for PeristyleStore {
    fn lookup(&self, token: &TokenId) -> Result<Option<LastUse>> {
        let Some(value) = self.tokens.get(token)? else { return Ok(None) };
        let (block, time) = decode(&value)?;
        Ok(Some(LastUse { block: *block, time }))
    }

    fn set(&self, token: &TokenId, usage: LastUse) -> Result<bool> {
        let _writer = self.writer();
        let is_news = self.is_news(token, usage.time)?;
        if is_news {
            self.tokens.put(token, encode(&usage))?;
        }
        Ok(is_news)
    }

    fn range_after(
        &self,
        token: &TokenId,
        mut visit: impl FnMut(Token<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut cursor = self.tokens.cursor()?;
        let mut on_entry = cursor.seek(token)?;
        if on_entry && cursor.key() == token {
            on_entry = cursor.next()?;
        }
        if !on_entry {
            return Ok(());
        }
        cursor.scan(|key, value| show((key, value), &mut visit))?.break_value().unwrap_or(Ok(()))
    }

    fn range_before(
        &self,
        token: &TokenId,
        mut visit: impl FnMut(Token<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut cursor = self.tokens.cursor()?;
        let mut on_entry = cursor.seek_for_prev(token)?;
        if on_entry && cursor.key() == token {
            on_entry = cursor.prev()?;
        }
        if !on_entry {
            return Ok(());
        }
        cursor.scan_back(|key, value| show((key, value), &mut visit))?.break_value().unwrap_or(Ok(()))
    }
}

impl BlockStore for PeristyleStore {
    fn load(&self, block: &BlockId) -> Result<Option<Vec<u8>>> {
        Ok(self.blocks.get(block)?.map(Vec::from))
    }

    fn save(&self, block: &BlockId, body: &[u8]) -> Result<bool> {
        let _writer = self.writer();
        let is_new = !self.blocks.contains_key(block)?;
        if is_new {
            self.blocks.put(block, body)?;
        }
        Ok(is_new)
    }

    fn commit_block(&self, block: &Block<'_>) -> Result<()> {
        let mut batch = self.writer();
        batch.clear();
        if !self.blocks.contains_key(block.id)? {
            batch.put(&self.blocks, block.id, block.body);
        }
        let value = encode(&LastUse { block: *block.id, time: block.time });
        for token in block.tokens {
            if self.is_news(token, block.time)? {
                batch.put(&self.tokens, token, value);
            }
        }
        self.db.write(&batch)?;
        Ok(())
    }
}
