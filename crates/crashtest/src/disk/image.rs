//! What a disk holds at one moment: names and the bytes behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::Content;

/// Directories and files at one moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub(super) directories: BTreeSet<String>,
    pub(super) files: BTreeMap<String, Arc<Content>>,
}

impl Image {
    /// Paths and contents of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Content)> {
        self.files.iter().map(|(path, content)| (path.as_str(), &**content))
    }

    /// The content of the file at `path`.
    pub fn file(&self, path: &str) -> Option<&Content> {
        self.files.get(path).map(|content| &**content)
    }

    /// The content of the file at `path`, to be changed.
    pub fn file_mut(&mut self, path: &str) -> Option<&mut Content> {
        self.files.get_mut(path).map(Arc::make_mut)
    }

    /// Takes the file at `path` away.
    pub fn remove(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// A number that equal images share, and different ones in practice never.
    pub fn hash(&self) -> u128 {
        let mut summary = Vec::with_capacity(self.files.len() * 16 + self.directories.len() * 8);
        for directory in &self.directories {
            summary.extend_from_slice(&xxh3_64_with_seed(directory.as_bytes(), 1).to_le_bytes());
        }
        for (path, content) in &self.files {
            summary.extend_from_slice(&xxh3_64_with_seed(path.as_bytes(), 2).to_le_bytes());
            summary.extend_from_slice(&content.hash().to_le_bytes());
        }
        xxh3_128(&summary)
    }
}
