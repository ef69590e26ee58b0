//! What is found while an outbox is searched.

use std::collections::{BTreeMap, HashSet};

use crate::outbox::delivery::Tally;
use crate::outbox::erase::{Occurrence, Scan};
use crate::outbox::error::Error;
use crate::outbox::local::handle::Local;

/// Where each delivery's occurrences are gathered.
pub(super) type Found = BTreeMap<u64, Occurrence>;

/// Batches that are dead, by delivery, entry and place in it.
pub(super) type Dead = HashSet<(u64, u32, u32)>;

/// Whether to go on.
pub(super) fn check(scan: &Scan) -> Result<(), Error> {
    match scan.is_stopped() {
        true => Err(Error::Stopped),
        false => Ok(()),
    }
}

/// Where what is found of a delivery is counted; `None`: it is not listed any more.
pub(super) fn at<'a>(
    local: &Local,
    found: &'a mut Found,
    position: u64,
) -> Option<&'a mut Occurrence> {
    let index = local.shared.index();
    let id = index.deliveries.get(&position)?.row.info.id;
    let none = || Occurrence::none(id);
    Some(found.entry(position).or_insert_with(none))
}

/// The weight of one batch.
pub(super) fn one(rows: u32) -> Tally {
    Tally {
        rows: u64::from(rows),
        batches: 1,
    }
}
