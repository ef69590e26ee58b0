//! Values that very many rows share, found in a fixed amount of memory.
//!
//! Values fall by their hash into buckets, and in each a vote is held: a value that has more rows than
//! all others of its bucket together stays in it. One with a hundredth of all rows has, since the
//! others of its bucket have a five-hundredth.

/// Buckets; a power of two.
const BUCKETS: usize = 512;
/// A value is told of if it has more than one row of so many, and more rows than that.
const ONE_OF: u64 = 100;
const LEAST: u64 = 100;

/// The values of one column of identities.
#[derive(Clone, Debug)]
pub(super) struct SharedValues {
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Half of the value's hash, beside which bucket it is in: enough to tell it from a five-hundredth of
    /// all values.
    hash: u32,
    /// Rows of the value less rows of others, since it has led.
    lead: u32,
    /// Rows of the value since it has led.
    rows: u32,
    /// Of those whose number is larger, the largest that there can be.
    first_row: u32,
}

/// Values that many rows share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// How many there are.
    pub(super) values: usize,
    /// Rows of the one that has most; at least so many.
    pub(super) rows: u64,
    /// The first row, from 0, of that one.
    pub(super) first_row: u64,
}

impl Default for SharedValues {
    fn default() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS],
        }
    }
}

impl SharedValues {
    /// Counts a row's value by its hash.
    #[inline]
    pub(super) fn add(&mut self, hash: u64, row: u64) {
        // The low bits of hashes of users may say something else.
        let at = (hash >> 40) as usize % BUCKETS;
        let hash = hash as u32;
        let Some(bucket) = self.buckets.get_mut(at) else {
            return;
        };
        if bucket.lead == 0 {
            *bucket = Bucket {
                hash,
                lead: 1,
                rows: 1,
                first_row: u32::try_from(row).unwrap_or(u32::MAX),
            };
        } else if bucket.hash == hash {
            bucket.lead = bucket.lead.saturating_add(1);
            bucket.rows = bucket.rows.saturating_add(1);
        } else {
            bucket.lead -= 1;
        }
    }

    /// What there is to tell of `all` rows.
    pub(super) fn found(&self, all: u64) -> Option<Shared> {
        let many = |bucket: &&Bucket| {
            let rows = u64::from(bucket.rows);
            rows > LEAST && rows > all / ONE_OF
        };
        let values = self.buckets.iter().filter(many).count();
        let largest = self
            .buckets
            .iter()
            .filter(many)
            .max_by_key(|bucket| bucket.rows)?;
        Some(Shared {
            values,
            rows: largest.rows.into(),
            first_row: largest.first_row.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, Hasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_hundredth_of_the_rows_share_is_found_wherever_it_stands() {
        let hashes = RandomState::new();
        let hash = |value: u64| {
            let mut hasher = hashes.build_hasher();
            hasher.write_u64(value);
            hasher.finish()
        };
        for (shared, step) in [(0, 1), (100, 7), (300, 7), (2_000, 10)] {
            let mut values = SharedValues::default();
            for row in 0..20_000u64 {
                let is_shared = row % step == 0 && row / step < shared;
                values.add(hash(if is_shared { u64::MAX } else { row }), row);
            }
            let found = values.found(20_000);
            if shared <= 200 {
                assert_eq!(found, None, "{shared}");
                continue;
            }
            let found = found.unwrap();
            assert_eq!(found.values, 1);
            // A few of its rows may have gone by before it led.
            assert!(
                found.rows <= shared && found.rows + 20 >= shared,
                "{found:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_is_said_to_have_more_rows_than_it_has(
            rows in prop::collection::vec(0..4u64, 0..2000),
        ) {
            let mut values = SharedValues::default();
            for (row, value) in rows.iter().enumerate() {
                // All of them in one bucket.
                values.add(*value, row as u64);
            }
            if let Some(shared) = values.found(rows.len() as u64) {
                let value = rows[shared.first_row as usize];
                let count = rows.iter().filter(|other| **other == value).count();
                prop_assert!(shared.rows <= count as u64);
            }
        }
    }
}
