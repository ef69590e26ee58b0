//! Which requests of a delivery have settled: all below a frontier, and some beyond it.

/// See the module. The frontier is a multiple of eight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    frontier: u64,
    beyond: Vec<u8>,
}

impl Marks {
    pub fn from_parts(frontier: u64, beyond: Vec<u8>) -> Self {
        Self { frontier, beyond }
    }

    /// All below have settled.
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// One bit for each request from the frontier on.
    pub fn beyond(&self) -> &[u8] {
        &self.beyond
    }

    pub fn get(&self, ordinal: u64) -> bool {
        match ordinal.checked_sub(self.frontier) {
            None => true,
            Some(bit) => self
                .beyond
                .get((bit / 8) as usize)
                .is_some_and(|byte| byte & (1 << (bit % 8)) != 0),
        }
    }

    /// Returns whether it was not marked before.
    pub fn set(&mut self, ordinal: u64) -> bool {
        if self.get(ordinal) {
            return false;
        }
        let bit = ordinal - self.frontier;
        let at = (bit / 8) as usize;
        if self.beyond.len() <= at {
            self.beyond.resize(at + 1, 0);
        }
        if let Some(byte) = self.beyond.get_mut(at) {
            *byte |= 1 << (bit % 8);
        }
        self.advance();
        true
    }

    /// Marks all below `end` but those in `spared`.
    pub fn set_all(&mut self, end: u64, spared: impl Fn(u64) -> bool) {
        let start = self.frontier;
        let mut bytes = vec![0u8; (end.saturating_sub(start)).div_ceil(8) as usize];
        for ordinal in start..end {
            if self.get(ordinal) || !spared(ordinal) {
                let bit = ordinal - start;
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        self.beyond = bytes;
        self.advance();
    }

    /// The first from `from` on, below `end`, that has not settled.
    pub fn next_open(&self, from: u64, end: u64) -> Option<u64> {
        (from.max(self.frontier)..end).find(|&ordinal| !self.get(ordinal))
    }

    /// How many below `end` have settled.
    pub fn settled(&self, end: u64) -> u64 {
        let beyond: u64 = self
            .beyond
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum();
        (self.frontier + beyond).min(end)
    }

    fn advance(&mut self) {
        let full = self
            .beyond
            .iter()
            .take_while(|&&byte| byte == u8::MAX)
            .count();
        if full > 0 {
            self.beyond.drain(..full);
            self.frontier += 8 * full as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn marks_agree_with_a_set_in_any_order() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let (mut marks, mut set) = (Marks::default(), BTreeSet::new());
            for _ in 0..200 {
                let ordinal = rng.u64(..100);
                assert_eq!(marks.set(ordinal), set.insert(ordinal));
                let parts = Marks::from_parts(marks.frontier(), marks.beyond().to_vec());
                assert_eq!(parts, marks);
            }
            for ordinal in 0..110 {
                assert_eq!(marks.get(ordinal), set.contains(&ordinal));
            }
            assert_eq!(marks.settled(100), set.len() as u64);
            let open = (0..100).find(|ordinal| !set.contains(ordinal));
            assert_eq!(marks.next_open(0, 100), open);
            let spared = rng.u64(..100);
            let before = marks.get(spared);
            marks.set_all(100, |ordinal| ordinal == spared);
            assert!((0..100).all(|ordinal| marks.get(ordinal) == (ordinal != spared || before)));
            marks.set(spared);
            assert_eq!(marks.next_open(0, 100), None);
            assert_eq!(marks.settled(100), 100);
            assert!(marks.beyond().len() <= 1);
        }
    }
}
