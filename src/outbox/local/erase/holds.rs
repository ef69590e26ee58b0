//! What is not given out any more while it is to be erased. In memory only: after a crash the erasure
//! begins anew.

use std::collections::BTreeSet;

use crate::outbox::local::handle::Local;

/// Held until it is dropped.
pub(super) struct Holds<'a> {
    local: &'a Local,
    entries: BTreeSet<(u64, u32)>,
    letters: BTreeSet<u64>,
}

impl<'a> Holds<'a> {
    pub fn new(local: &'a Local) -> Self {
        Self {
            local,
            entries: BTreeSet::new(),
            letters: BTreeSet::new(),
        }
    }

    /// From now on these are not given out. Returns whether one of them is in flight.
    pub fn entries(&mut self, position: u64, ordinals: impl Iterator<Item = u32>) -> bool {
        let mut index = self.local.shared.index();
        let mut flies = false;
        for ordinal in ordinals {
            index.erasing.insert((position, ordinal));
            self.entries.insert((position, ordinal));
            let delivery = index.deliveries.get(&position);
            flies |= delivery.is_some_and(|one| one.claimed(ordinal).is_some());
        }
        flies
    }

    /// The same for letters that are sent again.
    pub fn letters(&mut self, letters: &[u64]) -> bool {
        let mut index = self.local.shared.index();
        let mut flies = false;
        for &letter in letters {
            index.erasing_letters.insert(letter);
            self.letters.insert(letter);
            flies |= index.claimed_letters.contains(&letter);
        }
        flies
    }

    /// These are given out again.
    pub fn let_go(&mut self, position: u64, ordinals: impl Iterator<Item = u32>) {
        let mut index = self.local.shared.index();
        for ordinal in ordinals {
            index.erasing.remove(&(position, ordinal));
            self.entries.remove(&(position, ordinal));
        }
        drop(index);
        self.wake();
    }

    /// The same for letters.
    pub fn let_go_of_letters(&mut self, letters: &[u64]) {
        let mut index = self.local.shared.index();
        for letter in letters {
            index.erasing_letters.remove(letter);
            self.letters.remove(letter);
        }
        drop(index);
        self.wake();
    }

    fn wake(&self) {
        self.local
            .shared
            .changed
            .send_modify(|changes| *changes += 1);
    }
}

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        let mut index = self.local.shared.index();
        self.entries.iter().for_each(|entry| {
            index.erasing.remove(entry);
        });
        self.letters.iter().for_each(|letter| {
            index.erasing_letters.remove(letter);
        });
        drop(index);
        self.wake();
    }
}
