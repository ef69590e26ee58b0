//! The latest value of each setting of a user: later rows win.

use crate::record::settings;

/// The latest value of each slot.
#[derive(Debug, Default)]
pub(super) struct Latest {
    values: Vec<Vec<u8>>,
    /// The row that each value is from, where rows come in another order than their own.
    rows: Vec<u64>,
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

    /// Like [`Latest::set`] for rows that come in any order: a value stays if it is from a later
    /// row.
    pub(super) fn set_if_later(&mut self, section: &[u8], row: u64) {
        for (slot, literal) in settings(section) {
            let slot = usize::from(slot);
            if slot >= self.values.len() {
                self.values.resize_with(slot + 1, Vec::new);
            }
            if slot >= self.rows.len() {
                self.rows.resize(slot + 1, 0);
            }
            let value = &mut self.values[slot];
            if value.is_empty() {
                self.count += 1;
            } else if row < self.rows[slot] {
                continue;
            }
            self.rows[slot] = row;
            value.clear();
            value.extend_from_slice(literal);
        }
    }

    /// The value of a slot.
    pub(super) fn get(&self, slot: Option<u16>) -> Option<&[u8]> {
        let value = self.values.get(usize::from(slot?))?;
        (!value.is_empty()).then_some(value)
    }

    pub(super) fn clear(&mut self) {
        if self.count > 0 {
            self.values.iter_mut().for_each(Vec::clear);
            self.count = 0;
        }
    }

    /// Name and value of the slots that have both.
    pub(super) fn members<'a>(
        &'a self,
        names: &'a [Box<str>],
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.values
            .iter()
            .zip(names)
            .filter(|(value, _)| !value.is_empty())
            .map(|(value, name)| (&**name, value.as_slice()))
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
