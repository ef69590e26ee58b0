//! Where the rows of a delivery went.

use crate::clock::UnixMillis;
use crate::outbox::codec::{Decoder, Encoder, Malformed};
use crate::outbox::delivery::Tally;

/// Where rows and batches of a delivery went; what is in none of these waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Counters {
    pub delivered: Tally,
    pub dead: Tally,
    pub discarded: Tally,
    pub damaged: Tally,
    pub cancelled: Tally,
    /// From then on nothing of it is given out.
    pub cancelled_at: Option<UnixMillis>,
    /// When the last of it settled.
    pub finished: Option<UnixMillis>,
    /// Belonged to somebody who was erased before it was sent.
    pub erased: Tally,
    /// The same of the rows that could not be mapped.
    pub erased_rejected: u64,
}

impl Counters {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        for tally in [self.delivered, self.dead, self.discarded, self.damaged] {
            tally.encode(&mut out);
        }
        self.cancelled.encode(&mut out);
        put_time(&mut out, self.cancelled_at);
        put_time(&mut out, self.finished);
        self.erased.encode(&mut out);
        out.u64(self.erased_rejected);
        out.row()
    }

    /// A row of before there was cancelling ends after the first four, one of before there was erasing
    /// before what was erased.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let mut counters = Self {
            delivered: Tally::decode(&mut read)?,
            dead: Tally::decode(&mut read)?,
            discarded: Tally::decode(&mut read)?,
            damaged: Tally::decode(&mut read)?,
            ..Self::default()
        };
        if !read.rest.is_empty() {
            counters.cancelled = Tally::decode(&mut read)?;
            counters.cancelled_at = time(&mut read)?;
            counters.finished = time(&mut read)?;
        }
        if !read.rest.is_empty() {
            counters.erased = Tally::decode(&mut read)?;
            counters.erased_rejected = read.u64()?;
        }
        read.end().map(|()| counters)
    }

    /// What belonged to somebody who was erased, rows that could not be mapped among it.
    pub fn all_erased(&self) -> Tally {
        Tally {
            rows: self.erased.rows + self.erased_rejected,
            batches: self.erased.batches,
        }
    }

    /// All that does not wait and does not fly.
    pub fn settled(&self) -> Tally {
        let mut sum = self.delivered;
        sum += self.dead;
        sum += self.discarded;
        sum += self.damaged;
        sum += self.cancelled;
        sum += self.erased;
        sum
    }
}

fn put_time(out: &mut Encoder, time: Option<UnixMillis>) {
    match time {
        Some(time) => out.u8(1).time(time),
        None => out.u8(0),
    };
}

fn time(read: &mut Decoder<'_>) -> Result<Option<UnixMillis>, Malformed> {
    match read.u8()? {
        0 => Ok(None),
        1 => read.time().map(Some),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_before_there_was_cancelling_are_read() {
        let weight = |rows| Tally { rows, batches: 1 };
        let mut old = Encoder::for_row();
        (1..=4).for_each(|rows| weight(rows).encode(&mut old));
        let counters = Counters::decode(&old.row()).unwrap();
        assert_eq!(counters.damaged, weight(4));
        assert_eq!(counters.cancelled, Tally::default());
        assert_eq!((counters.cancelled_at, counters.finished), (None, None));
        let counters = Counters {
            cancelled: weight(5),
            cancelled_at: Some(UnixMillis(6)),
            finished: Some(UnixMillis(7)),
            erased: weight(8),
            erased_rejected: 9,
            ..counters
        };
        assert_eq!(Counters::decode(&counters.encode()), Ok(counters));
    }
}
