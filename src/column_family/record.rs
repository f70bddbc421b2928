//! What the catalog says of one family, and of what became of it.
//!
//! ```text
//! record:
//!   varint  number of the family
//!   u8      kind
//!   kind 0: the family is dropped
//!   kind 1: it has another name
//!     varint  length of the name, then the name (UTF-8)
//!   kind 3: it has other options
//!     varint  page fill, cache share, memtable share
//!   kind 6: it has other options, and a merge operator
//!     varint  page fill, cache share, memtable share, length of the operator's name, then the name (UTF-8)
//!   kind 7: it has other options, a merge operator perhaps, and entries that may expire
//!     varint  page fill, cache share, memtable share, length of the operator's name, then the name (UTF-8);
//!             the empty name is none
//!     lifetime
//!   kind 4: all that there is to say
//!     varint  length of the name, then the name (UTF-8)
//!     varint  features that whoever reads the family must know, those that whoever writes to it must know
//!     varint  page fill, cache share, memtable share
//!     with feature 0 of readers: varint length of the merge operator's name, then the name (UTF-8)
//!     with feature 1 of readers: lifetime
//!     with feature 2 of readers: varint length of the name of the order of keys, then the name (UTF-8)
//!     varint  merged through: every commit up to here that touched the family is in its trees
//!     tree
//!     varint  deltas in front of it, then for each, the newest first: tree
//!     varint  segments, then for each: varint first page, pages, file page
//!     pages reachable from the roots: a page set, see `segment/page_set.rs`
//!   kind 2: the same without features, as catalogs of format 3 have it
//!   kind 5: both copies of what was said of the family are lost
//!     varint  length of the name, then the name (UTF-8)
//!
//! lifetime:
//!   varint  1 if each entry has its own, or none; 2 and the seconds that an entry lives unless it has its own
//!
//! tree:
//!   varint  generation
//!   varint  height, 0 for an empty tree; otherwise
//!     varint root page, length in pages; u32 checksum; varint entries; u8 whether it owns value runs
//! ```

use crate::btree::Tree;
use crate::codec::features::{EXPIRY, Features, KEY_ORDER, OPERANDS, unknown};
use crate::codec::ids::{BEYOND_COUNTING, FamilyId, PageId, SequenceNumber};
use crate::codec::varint;
use crate::column_family::family::PREPARED_FAMILY;
use crate::column_family::options::{FamilyOptions, Lifetime};
use crate::error::{Error, Result};
use crate::key_order::KeyOrder;
use crate::operator::named::NamedOperator;
use crate::page::PagePointer;
use crate::segment::{PageSet, Segment};

/// More deltas than any family comes to: each takes memory when a family is read.
const MOST_DELTAS: u64 = 256;

const DROPPED: u8 = 0;
const RENAMED: u8 = 1;
const WHOLE_WITHOUT_FEATURES: u8 = 2;
const CHANGED: u8 = 3;
const WHOLE: u8 = 4;
const LOST: u8 = 5;
const CHANGED_WITH_OPERATOR: u8 = 6;
const CHANGED_WITH_LIFETIME: u8 = 7;

/// Formats of a family's description, the newest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    WithoutDeltas,
    WithoutFeatures,
    Newest,
}

/// What the catalog says of one family.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FamilyRecord {
    pub(crate) id: FamilyId,
    pub(crate) name: String,
    pub(crate) features: Features,
    pub(crate) options: FamilyOptions,
    pub(crate) merged_through: SequenceNumber,
    pub(crate) tree: Tree,
    /// Newest first; none is empty.
    pub(crate) deltas: Vec<Tree>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) reachable: PageSet,
}

/// What became of one family.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Dropped(FamilyId),
    Renamed(FamilyId, String),
    /// It has these options.
    Changed(FamilyId, FamilyOptions),
    Whole(Box<FamilyRecord>),
    /// What was said of it could not be read: there is a family of this name, and nobody knows where its
    /// pages are.
    Lost(FamilyId, String),
}

pub(super) fn nonsense() -> Error {
    Error::corruption("the catalog does not make sense").in_file("data")
}

pub(super) fn take_sequence(bytes: &mut &[u8]) -> Option<SequenceNumber> {
    varint::take(bytes).filter(|&number| number < BEYOND_COUNTING).map(SequenceNumber)
}

pub(super) fn put_name(name: &str, out: &mut Vec<u8>) {
    varint::put(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
}

pub(super) fn take_name(bytes: &mut &[u8]) -> Option<String> {
    let len = varint::take(bytes)?.try_into().ok()?;
    let (name, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(std::str::from_utf8(name).ok()?.to_owned())
}

impl Record {
    /// The number of the family.
    pub(crate) fn id(&self) -> FamilyId {
        match self {
            Self::Dropped(id) | Self::Renamed(id, _) | Self::Changed(id, _) | Self::Lost(id, _) => *id,
            Self::Whole(family) => family.id,
        }
    }

    /// The name that the family has by it; empty if it has none.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Dropped(_) | Self::Changed(..) => "",
            Self::Renamed(_, name) | Self::Lost(_, name) => name,
            Self::Whole(family) => &family.name,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.id().0));
        match self {
            Self::Dropped(_) => out.push(DROPPED),
            Self::Renamed(_, name) => {
                out.push(RENAMED);
                put_name(name, out);
            }
            Self::Changed(_, options) if options.expires() => {
                out.push(CHANGED_WITH_LIFETIME);
                options.encode(out);
                put_name(options.merge_operator_name().unwrap_or_default(), out);
                varint::put(out, options.lifetime.to_number());
            }
            Self::Changed(_, options) => match &options.merge_operator {
                None => {
                    out.push(CHANGED);
                    options.encode(out);
                }
                Some(operator) => {
                    out.push(CHANGED_WITH_OPERATOR);
                    options.encode(out);
                    put_name(operator.name(), out);
                }
            },
            Self::Whole(family) => {
                out.push(WHOLE);
                family.encode(out);
            }
            Self::Lost(_, name) => {
                out.push(LOST);
                put_name(name, out);
            }
        }
    }

    /// Takes a record off the front of `bytes`. `Corruption` if there is none, `NewerFormat` if it is of a
    /// kind, or needs features to be read, that this engine does not know.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let id = take_id(bytes).ok_or_else(nonsense)?;
        let (&kind, rest) = bytes.split_first().ok_or_else(nonsense)?;
        *bytes = rest;
        let whole = |bytes: &mut &[u8], format| {
            FamilyRecord::decode(id, bytes, format).map(|family| Self::Whole(Box::new(family)))
        };
        match kind {
            DROPPED => Ok(Self::Dropped(id)),
            RENAMED => take_name(bytes).map(|name| Self::Renamed(id, name)).ok_or_else(nonsense),
            CHANGED => {
                FamilyOptions::decode(bytes).map(|options| Self::Changed(id, options)).ok_or_else(nonsense)
            }
            CHANGED_WITH_OPERATOR => {
                let mut options = FamilyOptions::decode(bytes).ok_or_else(nonsense)?;
                options.merge_operator = take_operator(bytes).ok_or_else(nonsense)?;
                Ok(Self::Changed(id, options))
            }
            CHANGED_WITH_LIFETIME => {
                let mut options = FamilyOptions::decode(bytes).ok_or_else(nonsense)?;
                options.merge_operator = take_operator(bytes).ok_or_else(nonsense)?;
                options.lifetime = take_lifetime(bytes).ok_or_else(nonsense)?;
                Ok(Self::Changed(id, options))
            }
            WHOLE_WITHOUT_FEATURES => whole(bytes, Format::WithoutFeatures),
            WHOLE => whole(bytes, Format::Newest),
            LOST => take_name(bytes).map(|name| Self::Lost(id, name)).ok_or_else(nonsense),
            kind => Err(unknown(format_args!("the catalog has a record of kind {kind} of family {id}"))),
        }
    }
}

/// A merge operator of which the name alone is known; the empty name is none.
fn take_operator(bytes: &mut &[u8]) -> Option<Option<NamedOperator>> {
    let name = take_name(bytes)?;
    Some((!name.is_empty()).then(|| NamedOperator::absent(&name)))
}

fn take_lifetime(bytes: &mut &[u8]) -> Option<Lifetime> {
    let lifetime = Lifetime::from_number(varint::take(bytes)?);
    (lifetime != Lifetime::Endless).then_some(lifetime)
}

/// What must be known of a family called `name`.
pub(crate) fn features_of(name: &str) -> Features {
    if name == PREPARED_FAMILY { Features::OF_PREPARED } else { Features::default() }
}

pub(super) fn take_id(bytes: &mut &[u8]) -> Option<FamilyId> {
    let id = varint::take(bytes)?.try_into().ok()?;
    Some(FamilyId(id)).filter(|id| id.0 > 0)
}

impl FamilyRecord {
    /// It has these options from now on. The order of its keys stays what it is.
    pub(super) fn set_options(&mut self, options: FamilyOptions) {
        let key_order = self.options.key_order.take();
        self.options = FamilyOptions { key_order, ..options };
    }

    /// A family that holds nothing yet.
    pub(crate) fn new(id: FamilyId, name: &str, options: FamilyOptions) -> Self {
        Self {
            id,
            name: name.to_owned(),
            features: features_of(name).and(options.features()),
            options,
            merged_through: SequenceNumber(0),
            tree: Tree::default(),
            deltas: Vec::new(),
            segments: Vec::new(),
            reachable: PageSet::default(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_name(&self.name, out);
        let features = self.features.and(self.options.features());
        varint::put(out, features.read);
        varint::put(out, features.write);
        self.options.encode(out);
        if features.read & OPERANDS != 0 {
            put_name(self.options.merge_operator_name().unwrap_or_default(), out);
        }
        if features.read & EXPIRY != 0 {
            // Of one that had it once nothing else is kept: none is taken back.
            varint::put(out, self.options.lifetime.to_number().max(1));
        }
        if features.read & KEY_ORDER != 0 {
            put_name(self.options.key_order_name().unwrap_or_default(), out);
        }
        varint::put(out, self.merged_through.0);
        encode_tree(&self.tree, out);
        varint::put(out, self.deltas.len() as u64);
        for delta in &self.deltas {
            encode_tree(delta, out);
        }
        varint::put(out, self.segments.len() as u64);
        for segment in &self.segments {
            varint::put(out, u64::from(segment.first_page));
            varint::put(out, u64::from(segment.pages));
            varint::put(out, segment.file_page);
        }
        self.reachable.encode(out);
    }

    /// Takes what follows the number, and the kind if there is one, off the front of `bytes`.
    pub(super) fn decode(id: FamilyId, bytes: &mut &[u8], format: Format) -> Result<Self> {
        let name = take_name(bytes).ok_or_else(nonsense)?;
        let mut features = Features::default();
        if format >= Format::Newest {
            features.read = varint::take(bytes).ok_or_else(nonsense)?;
            features.write = varint::take(bytes).ok_or_else(nonsense)?;
            // What follows may be laid out otherwise.
            features.check_reading(&format!("column family {name:?}"))?;
        }
        Self::decode_rest(id, name, features, bytes, format).ok_or_else(nonsense)
    }

    fn decode_rest(
        id: FamilyId,
        name: String,
        features: Features,
        bytes: &mut &[u8],
        format: Format,
    ) -> Option<Self> {
        let mut options = FamilyOptions::decode(bytes)?;
        if features.read & OPERANDS != 0 {
            options.merge_operator = take_operator(bytes)?;
        }
        if features.read & EXPIRY != 0 {
            options.lifetime = take_lifetime(bytes)?;
        }
        if features.read & KEY_ORDER != 0 {
            options.key_order = Some(KeyOrder::named(&take_name(bytes)?)?);
        }
        let merged_through = take_sequence(bytes)?;
        let tree = decode_tree(bytes)?;
        let count = if format == Format::WithoutDeltas { 0 } else { varint::take(bytes)? };
        let mut deltas = Vec::new();
        if count > MOST_DELTAS {
            return None;
        }
        for _ in 0..count {
            deltas.push(decode_tree(bytes).filter(|delta| delta.root.is_some())?);
        }
        let count = varint::take(bytes)?;
        let mut segments = Vec::new();
        let mut pages_end = 0u64;
        for _ in 0..count {
            let segment = Segment {
                first_page: varint::take(bytes)?.try_into().ok()?,
                pages: varint::take(bytes)?.try_into().ok()?,
                file_page: varint::take(bytes)?,
            };
            pages_end = pages_end.max(u64::from(segment.first_page) + u64::from(segment.pages));
            segments.push(segment);
        }
        let reachable = PageSet::decode(bytes, pages_end)?;
        Some(Self { id, name, features, options, merged_through, tree, deltas, segments, reachable })
    }
}

fn encode_tree(tree: &Tree, out: &mut Vec<u8>) {
    varint::put(out, tree.generation);
    match tree.root {
        None => varint::put(out, 0),
        Some(root) => {
            varint::put(out, u64::from(tree.height));
            varint::put(out, u64::from(root.page.0));
            varint::put(out, u64::from(root.pages));
            out.extend_from_slice(&root.checksum.to_le_bytes());
            varint::put(out, tree.entries);
            out.push(u8::from(tree.owns_values));
        }
    }
}

fn decode_tree(bytes: &mut &[u8]) -> Option<Tree> {
    let generation = varint::take(bytes).filter(|&generation| generation < BEYOND_COUNTING)?;
    let height: u8 = varint::take(bytes)?.try_into().ok()?;
    if height == 0 {
        return Some(Tree { generation, ..Tree::default() });
    }
    let page = PageId(varint::take(bytes)?.try_into().ok()?);
    let pages = varint::take(bytes)?.try_into().ok()?;
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    let root = PagePointer { page, pages, checksum: u32::from_le_bytes(*checksum) };
    let entries = varint::take(bytes)?;
    let (&owns_values, rest) = bytes.split_first()?;
    *bytes = rest;
    let owns_values = match owns_values {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Tree { root: Some(root), height, entries, owns_values, generation })
}
