//! The latest value of each setting of a user: later rows win.

use crate::record::settings;

/// The latest value of each slot.
#[derive(Debug, Default)]
pub(super) struct Latest {
    values: Vec<Vec<u8>>,
    /// How many slots have a value.
    pub(super) count: usize,
}

impl Latest {
    pub(super) fn set(&mut self, section: &[u8]) {
        for (slot, literal) in settings(section) {
            let slot = usize::from(slot);
            if slot >= self.values.len() {
                self.values.resize_with(slot + 1, Vec::new);
            }
            let value = &mut self.values[slot];
            if value.is_empty() {
                self.count += 1;
            }
            value.clear();
            value.extend_from_slice(literal);
        }
    }

    pub(super) fn clear(&mut self) {
        if self.count > 0 {
            self.values.iter_mut().for_each(Vec::clear);
            self.count = 0;
        }
    }

    pub(super) fn members<'a>(
        &'a self,
        names: &'a [Box<str>],
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.values
            .iter()
            .enumerate()
            .filter(|(_, value)| !value.is_empty())
            .map(|(slot, value)| (name(names, slot as u16), value.as_slice()))
    }

    pub(super) fn bytes(&self, names: &[Box<str>]) -> usize {
        if self.count == 0 {
            return 0;
        }
        self.members(names)
            .map(|(name, literal)| name.len() + literal.len() + 1)
            .sum()
    }
}

/// The JSON name of a slot.
pub(super) fn name(names: &[Box<str>], slot: u16) -> &str {
    names.get(usize::from(slot)).map_or("\"?\":", |name| name)
}
