//! What a consensus node keeps, and what it asks of the store that keeps it.

use std::error::Error;
use std::ops::ControlFlow;

/// The result of whatever a store does.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Names a token.
pub(crate) type TokenId = [u8; 32];

/// Names a block.
pub(crate) type BlockId = [u8; 32];

/// The block that used a token last, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastUse {
    pub(crate) block: BlockId,
    pub(crate) time: u64,
}

/// A token on a walk, where it stands in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) id: &'a TokenId,
    pub(crate) block: &'a BlockId,
    pub(crate) time: u64,
}

/// A block that is ready to be committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) id: &'a BlockId,
    pub(crate) time: u64,
    pub(crate) body: &'a [u8],
    /// The tokens that it uses.
    pub(crate) tokens: &'a [TokenId],
}

/// The last use of every token. The newer time wins, in whatever order the news comes in.
pub(crate) trait TokenStore {
    /// The last use of a token; `None` if no block has used it.
    fn lookup(&self, token: &TokenId) -> Result<Option<LastUse>>;

    /// Takes note of a use, unless one as new or newer is known. Returns whether it was news.
    fn set(&self, token: &TokenId, usage: LastUse) -> Result<bool>;

    /// Shows the tokens above `token`, ascending, until `visit` breaks off.
    fn range_after(&self, token: &TokenId, visit: impl FnMut(Token<'_>) -> ControlFlow<()>) -> Result<()>;

    /// Shows the tokens below `token`, descending, until `visit` breaks off.
    fn range_before(&self, token: &TokenId, visit: impl FnMut(Token<'_>) -> ControlFlow<()>) -> Result<()>;
}

/// The blocks. A block never changes.
pub(crate) trait BlockStore {
    /// The body of a block.
    fn load(&self, block: &BlockId) -> Result<Option<Vec<u8>>>;

    /// Keeps a block. Returns whether it was not there before.
    fn save(&self, block: &BlockId, body: &[u8]) -> Result<bool>;

    /// Keeps a block and takes note of its use of its tokens: both or neither.
    fn commit_block(&self, block: &Block<'_>) -> Result<()>;
}
