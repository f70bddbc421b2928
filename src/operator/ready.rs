//! Merge operators that most programs want, and one that is made of a closure.
//!
//! | operator | operands and value | a key without a value begins with |
//! |---|---|---|
//! | [`add_u64`], [`add_u64_saturating`] | `u64`, eight bytes, little-endian | 0 |
//! | [`add_i64`], [`add_i64_saturating`] | `i64`, eight bytes, little-endian | 0 |
//! | [`append`] | any bytes | the first operand |
//! | [`max`], [`min`] | any bytes, compared as keys are | the first operand |
//! | [`set_union`] | sets, made by [`encode_set`] | the empty set |
//!
//! Each has a name of its own, which stays the same in all versions. What is not of the right form makes the
//! read of its key fail.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
//! use peristyle::merge_operators;
//!
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! let options = FamilyOptions::default().merge_operator(merge_operators::add_u64());
//! let views = db.create_column_family("views", options)?;
//! views.merge("index", 1u64.to_le_bytes())?;
//! views.merge("index", 2u64.to_le_bytes())?;
//! assert_eq!(views.get("index")?.unwrap(), 3u64.to_le_bytes());
//! # Ok(()) }
//! ```

use super::associative::Associative;
use super::{MergeOperands, MergeOperator, MergeResult, sets};

/// The operator called `name` that begins with the value, or with the first operand if there is none, and has
/// `take_in` take one operand after the other into that.
///
/// It must be associative: to take in `b` and then `c` must be the same as to take in what becomes of `b`
/// when `c` is taken into it. So operands can be folded before the value is at hand.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::merge_operators::associative;
///
/// // Bits are set, and never unset.
/// let or = associative("bits", |bits, more| {
///     bits.resize(bits.len().max(more.len()), 0);
///     bits.iter_mut().zip(more).for_each(|(bit, more)| *bit |= more);
///     Ok(())
/// });
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// let seen = db.create_column_family("seen", FamilyOptions::default().merge_operator(or))?;
/// seen.merge("ann", [0b0001])?;
/// seen.merge("ann", [0b0100, 0b1000])?;
/// assert_eq!(seen.get("ann")?.unwrap(), [0b0101, 0b1000]);
/// # Ok(()) }
/// ```
pub fn associative<F>(name: &str, take_in: F) -> impl MergeOperator
where
    F: Fn(&mut Vec<u8>, &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
{
    Associative { name: name.to_owned(), take_in }
}

fn number(bytes: &[u8]) -> Result<[u8; 8], String> {
    bytes.try_into().map_err(|_| format!("a number has 8 bytes, not {}", bytes.len()))
}

/// Numbers to which others are added.
struct Addition<N> {
    name: &'static str,
    decode: fn([u8; 8]) -> N,
    encode: fn(N) -> [u8; 8],
    zero: N,
    add: fn(N, N) -> N,
    /// The sum of two, if whatever they are added to, one after the other, that comes to the same.
    join: fn(N, N) -> Option<N>,
}

impl<N: Copy + Send + Sync + 'static> MergeOperator for Addition<N> {
    fn name(&self) -> &str {
        self.name
    }

    fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        let mut sum = existing.map_or(Ok(self.zero), |existing| number(existing).map(self.decode))?;
        for operand in operands {
            sum = (self.add)(sum, (self.decode)(number(operand)?));
        }
        Ok((self.encode)(sum).to_vec())
    }

    fn combine(&self, _: &[u8], mut operands: MergeOperands<'_>) -> Option<Vec<u8>> {
        let decode = |operand| number(operand).ok().map(self.decode);
        let mut sum = decode(operands.next()?)?;
        for operand in operands {
            sum = (self.join)(sum, decode(operand)?)?;
        }
        Some((self.encode)(sum).to_vec())
    }
}

/// Adds `u64`s, modulo 2^64. Name: `peristyle.add_u64`.
pub fn add_u64() -> impl MergeOperator {
    Addition {
        name: "peristyle.add_u64",
        decode: u64::from_le_bytes,
        encode: u64::to_le_bytes,
        zero: 0,
        add: u64::wrapping_add,
        join: |a, b| Some(a.wrapping_add(b)),
    }
}

/// Adds `u64`s, up to the highest. Name: `peristyle.add_u64_saturating`.
pub fn add_u64_saturating() -> impl MergeOperator {
    Addition {
        name: "peristyle.add_u64_saturating",
        decode: u64::from_le_bytes,
        encode: u64::to_le_bytes,
        zero: 0,
        add: u64::saturating_add,
        join: |a, b| Some(a.saturating_add(b)),
    }
}

/// Adds `i64`s, modulo 2^64. Name: `peristyle.add_i64`.
pub fn add_i64() -> impl MergeOperator {
    Addition {
        name: "peristyle.add_i64",
        decode: i64::from_le_bytes,
        encode: i64::to_le_bytes,
        zero: 0,
        add: i64::wrapping_add,
        join: |a, b| Some(a.wrapping_add(b)),
    }
}

/// Adds `i64`s, between the lowest and the highest, in the order in which they were merged. Name:
/// `peristyle.add_i64_saturating`.
pub fn add_i64_saturating() -> impl MergeOperator {
    Addition {
        name: "peristyle.add_i64_saturating",
        decode: i64::from_le_bytes,
        encode: i64::to_le_bytes,
        zero: 0,
        add: i64::saturating_add,
        // Where one takes back what another added, a bound may be met in between.
        join: |a, b| if (a < 0) == (b < 0) { a.checked_add(b) } else { None },
    }
}

/// Appends each operand to what is there, with `separator` in between, which stands in the name:
/// `peristyle.append(,)`.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, merge_operators};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// let options = FamilyOptions::default().merge_operator(merge_operators::append(","));
/// let tags = db.create_column_family("tags", options)?;
/// tags.merge("photo", "sea")?;
/// tags.merge("photo", "summer")?;
/// assert_eq!(tags.get("photo")?.unwrap(), "sea,summer");
/// # Ok(()) }
/// ```
pub fn append(separator: impl AsRef<[u8]>) -> impl MergeOperator {
    let separator = separator.as_ref().to_vec();
    let name = format!("peristyle.append({})", separator.escape_ascii());
    let take_in = move |list: &mut Vec<u8>, operand: &[u8]| {
        list.extend_from_slice(&separator);
        list.extend_from_slice(operand);
        Ok(())
    };
    Associative { name, take_in }
}

/// Keeps the highest, compared as keys are: byte by byte, big-endian numbers by their value. Name:
/// `peristyle.max`.
pub fn max() -> impl MergeOperator {
    associative("peristyle.max", |highest, operand| {
        if operand > &highest[..] {
            operand.clone_into(highest);
        }
        Ok(())
    })
}

/// Keeps the lowest, compared as keys are. Name: `peristyle.min`.
pub fn min() -> impl MergeOperator {
    associative("peristyle.min", |lowest, operand| {
        if operand < &lowest[..] {
            operand.clone_into(lowest);
        }
        Ok(())
    })
}

/// Unites sets. Name: `peristyle.set_union`.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::merge_operators::{decode_set, encode_set, set_union};
///
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// let groups = db.create_column_family("groups", FamilyOptions::default().merge_operator(set_union()))?;
/// groups.merge("chess", encode_set(["ben", "ann"]))?;
/// groups.merge("chess", encode_set(["ann", "cleo"]))?;
/// let members = groups.get("chess")?.unwrap();
/// assert_eq!(decode_set(&members).unwrap(), [b"ann".as_slice(), b"ben", b"cleo"]);
/// # Ok(()) }
/// ```
pub fn set_union() -> impl MergeOperator {
    struct Union;

    impl Union {
        fn of<'a>(sets: impl Iterator<Item = &'a [u8]>) -> MergeResult {
            let mut all = Vec::new();
            for set in sets {
                all.extend(sets::members(set).ok_or("what is merged is no set")?);
            }
            Ok(sets::encode(all))
        }
    }

    impl MergeOperator for Union {
        fn name(&self) -> &str {
            "peristyle.set_union"
        }

        fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
            Self::of(existing.into_iter().chain(operands))
        }

        fn combine(&self, _: &[u8], operands: MergeOperands<'_>) -> Option<Vec<u8>> {
            Self::of(operands).ok()
        }
    }

    Union
}

/// The set of `members` as [`set_union`] takes it.
pub fn encode_set<M: AsRef<[u8]>>(members: impl IntoIterator<Item = M>) -> Vec<u8> {
    let members: Vec<M> = members.into_iter().collect();
    sets::encode(members.iter().map(AsRef::as_ref).collect())
}

/// The members of a set, ascending; `None` if `set` is none.
pub fn decode_set(set: &[u8]) -> Option<Vec<&[u8]>> {
    sets::members(set)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `operator` makes of all operands at once, onto `existing`.
    fn at_once(operator: &dyn MergeOperator, existing: Option<&[u8]>, operands: &[&[u8]]) -> Option<Vec<u8>> {
        if operands.is_empty() {
            return existing.map(<[u8]>::to_vec);
        }
        Some(operator.merge(b"key", existing, MergeOperands::new(operands)).unwrap())
    }

    fn in_parts(
        operator: &dyn MergeOperator,
        existing: Option<&[u8]>,
        operands: &[Vec<u8>],
        cuts: &[usize],
    ) -> Option<Vec<u8>> {
        let mut combined: Vec<Vec<u8>> = Vec::new();
        let mut rest = operands;
        for &cut in cuts {
            let (part, behind) = rest.split_at(cut.min(rest.len()));
            rest = behind;
            let part: Vec<&[u8]> = part.iter().map(Vec::as_slice).collect();
            match (part.len() > 1).then(|| operator.combine(b"key", MergeOperands::new(&part))).flatten() {
                Some(one) => combined.push(one),
                None => combined.extend(part.iter().map(|operand| operand.to_vec())),
            }
        }
        combined.extend(rest.iter().cloned());
        let combined: Vec<&[u8]> = combined.iter().map(Vec::as_slice).collect();
        let (first, second) = combined.split_at(combined.len() / 2);
        let half = at_once(operator, existing, first);
        at_once(operator, half.as_deref(), second)
    }

    proptest! {
        #![proptest_config(crate::sampling::config(128))]

        #[test]
        fn operands_that_are_folded_in_parts_give_what_they_give_at_once(
            numbers in prop::collection::vec(
                prop_oneof![any::<u64>(), 0u64..5, Just(u64::MAX), Just(i64::MAX as u64)], 0..12
            ),
            cuts in prop::collection::vec(0usize..6, 0..4), has_value: bool
        ) {
            let operators: [Box<dyn MergeOperator>; 8] = [
                Box::new(add_u64()), Box::new(add_u64_saturating()), Box::new(add_i64()),
                Box::new(add_i64_saturating()), Box::new(append("; ")), Box::new(max()), Box::new(min()),
                Box::new(set_union()),
            ];
            for operator in operators {
                let is_set = operator.name() == "peristyle.set_union";
                let operand = |number: &u64| {
                    let bytes = number.to_le_bytes();
                    if is_set { encode_set(bytes.chunks(3)) } else { bytes.to_vec() }
                };
                let operands: Vec<Vec<u8>> = numbers.iter().map(operand).collect();
                let existing = has_value.then(|| operand(&7));
                let whole: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
                prop_assert_eq!(
                    in_parts(&*operator, existing.as_deref(), &operands, &cuts),
                    at_once(&*operator, existing.as_deref(), &whole),
                    "{}", operator.name()
                );
            }
        }
    }

    #[test]
    fn what_is_of_another_form_is_an_error() {
        for operator in [Box::new(add_u64()) as Box<dyn MergeOperator>, Box::new(set_union())] {
            assert!(operator.merge(b"", Some(b"\x09"), MergeOperands::new(&[b""])).is_err());
            assert!(operator.combine(b"", MergeOperands::new(&[b"\x09", b"\x09"])).is_none());
        }
        assert_eq!(decode_set(&[1, b'b', 1, b'a']), None, "members ascend");
        assert_eq!(decode_set(&encode_set([""; 0])), Some(vec![]));
    }

    #[test]
    fn sums_end_at_their_bounds_or_begin_anew() {
        let sum = |operator: &dyn MergeOperator, numbers: &[i64]| {
            let operands: Vec<_> = numbers.iter().map(|number| number.to_le_bytes()).collect();
            let operands: Vec<&[u8]> = operands.iter().map(|operand| &operand[..]).collect();
            let sum = at_once(operator, None, &operands).unwrap();
            i64::from_le_bytes(sum.try_into().unwrap())
        };
        assert_eq!(sum(&add_i64_saturating(), &[i64::MAX, 5, -5]), i64::MAX - 5);
        assert_eq!(sum(&add_i64(), &[i64::MAX, 5, -5]), i64::MAX);
        assert_eq!(sum(&add_u64_saturating(), &[-1, 5]) as u64, u64::MAX);
        assert_eq!(sum(&add_u64(), &[-1, 5]), 4);
    }
}
