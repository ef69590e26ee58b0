//! Memory for records, shared by all deliveries that are received at once: each takes what it needs
//! while there is some left, and no more than is fair.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What each delivery has, whatever the others hold: it must be able to go on. All of these may pass
/// the total.
const LEAST: usize = 128 << 10;
/// One delivery that collects rows never holds more than this part of the total, so that one that has
/// stopped coming leaves the others enough.
const MOST_OF_TOTAL: usize = 4;
/// All that collect rows hold this part of it together. The rest is for reading runs back, and for
/// what is made of the rows.
const COLLECTING_OF_TOTAL: usize = 2;
/// Reading the runs of one delivery back may take this part if it is alone.
const MERGE_ALONE_OF_TOTAL: usize = 4;
/// The same beside few others, and beside many: the threads of all take their turns at it, and the
/// allocator keeps for some time what each has given back.
const MERGE_OF_TOTAL: (usize, usize) = (8, 32);
/// With each so many deliveries the part is smaller by one.
const SMALLER_WITH: usize = 2;

/// The memory of all. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: usize,
    shares: usize,
}

/// What one delivery holds of it, given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    held: usize,
}

impl Memory {
    /// So many bytes for all.
    pub fn new(total: usize) -> Self {
        let state = Mutex::new(State { held: 0, shares: 0 });
        Self(Arc::new(Pool { total, state }))
    }

    /// How many deliveries hold a share.
    pub fn shares(&self) -> usize {
        self.0.state().shares
    }

    /// A share for one more delivery.
    pub fn share(&self) -> Share {
        let held = LEAST.min(self.0.total);
        let mut state = self.0.state();
        state.shares += 1;
        state.held += held;
        drop(state);
        Share {
            pool: Arc::clone(&self.0),
            held,
        }
    }
}

impl Share {
    /// Bytes that the delivery may use.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes more for rows that are collected, up to `wanted` in all, if that is fair and there is some
    /// left.
    pub fn collect(&mut self, wanted: usize) {
        let fair = self.fair();
        self.take(wanted.min(fair), self.pool.collecting());
    }

    /// Gives back what is more than fair, since others came after it was taken.
    pub fn give_back(&mut self) {
        self.shrink(self.fair());
    }

    /// Gives back all but the least.
    pub fn release(&mut self) {
        self.shrink(LEAST);
    }

    /// Takes what reading runs back needs, if there is some left.
    pub fn merge(&mut self) {
        let (few, many) = MERGE_OF_TOTAL;
        let part = match self.pool.state().shares {
            1 => MERGE_ALONE_OF_TOTAL,
            shares => (few + shares / SMALLER_WITH).min(many),
        };
        self.take(self.pool.total / part, self.pool.total);
    }

    fn fair(&self) -> usize {
        let shares = self.pool.state().shares.max(1);
        let most = self.pool.total / MOST_OF_TOTAL;
        (self.pool.collecting() / shares).min(most).max(LEAST)
    }

    fn take(&mut self, wanted: usize, of: usize) {
        let mut state = self.pool.state();
        let more = wanted.saturating_sub(self.held);
        let more = more.min(of.saturating_sub(state.held));
        state.held += more;
        self.held += more;
    }

    fn shrink(&mut self, to: usize) {
        let less = self.held.saturating_sub(to);
        self.pool.state().held -= less;
        self.held -= less;
    }
}

impl Pool {
    /// What collecting rows may take in all.
    fn collecting(&self) -> usize {
        self.total / COLLECTING_OF_TOTAL
    }

    /// Whole after any panic: its changes are single assignments.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.shares -= 1;
        state.held -= self.held;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn one_alone_has_a_quarter_and_many_share_a_half() {
        let memory = Memory::new(64 * MIB);
        let mut first = memory.share();
        first.collect(usize::MAX);
        assert_eq!(first.held(), 16 * MIB);
        let mut all: Vec<_> = (0..63).map(|_| memory.share()).collect();
        // The first has not given back yet, so the last ones go without.
        for share in &mut all {
            share.collect(usize::MAX);
        }
        let sum = |all: &[Share]| all.iter().map(Share::held).sum::<usize>();
        assert!(first.held() + sum(&all) <= 32 * MIB);
        first.give_back();
        assert_eq!(first.held(), 32 * MIB / 64);
        for share in &mut all {
            share.collect(usize::MAX);
            assert_eq!(share.held(), 32 * MIB / 64);
        }
        // Reading back has memory of its own.
        first.merge();
        assert_eq!(first.held(), 2 * MIB);
        all[0].merge();
        assert_eq!(all[0].held(), 2 * MIB);
        drop(all);
        first.release();
        assert_eq!((first.held(), memory.shares()), (LEAST, 1));
        // Alone it has more, since a long delivery has many runs.
        first.merge();
        assert_eq!(first.held(), 16 * MIB);
        drop(first);
        let held = memory.0.state().held;
        assert_eq!((held, memory.shares()), (0, 0));
    }

    #[test]
    fn whoever_comes_last_can_go_on() {
        let memory = Memory::new(MIB);
        let shares: Vec<_> = (0..100).map(|_| memory.share()).collect();
        assert!(shares.iter().all(|share| share.held() == LEAST));
    }
}
