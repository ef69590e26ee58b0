//! What a person asks of a destination, and what came of it, as they are written down for its owner.

use crate::model::DeliveryId;
use crate::outbox::codec::{Decoder, Encoder, Malformed};
use crate::outbox::delivery::Tally;
use crate::outbox::letter::{LetterId, Moved};

/// Requests are sealed for nothing else.
pub(super) const CONTEXT: &[u8] = b"looker-feed request";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Cancel(DeliveryId),
    Release(DeliveryId),
    Replay(Vec<LetterId>),
    Discard(Vec<LetterId>),
    Edit(LetterId, Vec<u8>),
    Lane(LaneWish),
    /// In the block of a delivery that begins at this request.
    EraseEntries(DeliveryId, u64, Vec<Hit>),
    /// In letters.
    EraseLetters(Vec<Hit>),
}

/// Batches of a request or a letter that are to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// The request, or the letter.
    pub at: u64,
    /// The CRC32C of its record as it was when it was searched; places in another one mean others.
    pub crc: u32,
    /// Their places.
    pub slices: Vec<u32>,
}

/// What has been erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub waiting: Tally,
    pub dead: Tally,
    /// Batches that had been decided and whose bytes were still there.
    pub copies: u64,
    /// Something flies, or has changed since it was searched: it is to be looked at again.
    pub again: bool,
}

/// What is asked of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneWish {
    Pause,
    Resume,
    Retry,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Cancelled(Option<Tally>),
    Released(Option<bool>),
    Moved(Moved),
    Edited(Option<LetterId>),
    Told,
    Erased(Removed),
    Failed(String),
}

impl Action {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        let letters = |out: &mut Encoder, ids: &[LetterId]| {
            out.u32(ids.len() as u32);
            for id in ids {
                out.u64(id.letter).u32(id.slice);
            }
        };
        let hits = |out: &mut Encoder, all: &[Hit]| {
            out.u32(all.len() as u32);
            for hit in all {
                out.u64(hit.at).u32(hit.crc).u32(hit.slices.len() as u32);
                for slice in &hit.slices {
                    out.u32(*slice);
                }
            }
        };
        match self {
            Self::Cancel(id) => {
                out.u8(1).raw(&id.0);
            }
            Self::Replay(ids) => letters(out.u8(2), ids),
            Self::Discard(ids) => letters(out.u8(3), ids),
            Self::Edit(id, payload) => {
                out.u8(4).u64(id.letter).u32(id.slice).blob(payload);
            }
            Self::Lane(wish) => {
                out.u8(5).u8(*wish as u8);
            }
            Self::Release(id) => {
                out.u8(6).raw(&id.0);
            }
            Self::EraseEntries(id, first, all) => {
                hits(out.u8(7).raw(&id.0).u64(*first), all);
            }
            Self::EraseLetters(all) => hits(out.u8(8), all),
        }
        out.row()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(bytes)?;
        let letters = |read: &mut Decoder<'_>| {
            (0..read.u32()?)
                .map(|_| letter_id(read))
                .collect::<Result<Vec<_>, _>>()
        };
        let action = match read.u8()? {
            1 => Self::Cancel(DeliveryId(read.array()?)),
            2 => Self::Replay(letters(&mut read)?),
            3 => Self::Discard(letters(&mut read)?),
            4 => Self::Edit(letter_id(&mut read)?, read.blob()?.to_vec()),
            5 => Self::Lane(match read.u8()? {
                0 => LaneWish::Pause,
                1 => LaneWish::Resume,
                2 => LaneWish::Retry,
                _ => return Err(Malformed),
            }),
            6 => Self::Release(DeliveryId(read.array()?)),
            7 => Self::EraseEntries(DeliveryId(read.array()?), read.u64()?, hits(&mut read)?),
            8 => Self::EraseLetters(hits(&mut read)?),
            _ => return Err(Malformed),
        };
        read.end().map(|()| action)
    }
}

fn hits(read: &mut Decoder<'_>) -> Result<Vec<Hit>, Malformed> {
    (0..read.u32()?)
        .map(|_| {
            Ok(Hit {
                at: read.u64()?,
                crc: read.u32()?,
                slices: (0..read.u32()?)
                    .map(|_| read.u32())
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

fn letter_id(read: &mut Decoder<'_>) -> Result<LetterId, Malformed> {
    Ok(LetterId {
        letter: read.u64()?,
        slice: read.u32()?,
    })
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        match self {
            Self::Cancelled(None) => {
                out.u8(1);
            }
            Self::Cancelled(Some(tally)) => {
                out.u8(2).u64(tally.rows).u64(tally.batches);
            }
            Self::Moved(moved) => {
                out.u8(3).u64(moved.letters).u64(moved.rows);
            }
            Self::Edited(None) => {
                out.u8(4);
            }
            Self::Edited(Some(id)) => {
                out.u8(5).u64(id.letter).u32(id.slice);
            }
            Self::Told => {
                out.u8(6);
            }
            Self::Failed(words) => {
                out.u8(7).text(words);
            }
            Self::Released(was) => {
                out.u8(8).u8(was.map_or(2, u8::from));
            }
            Self::Erased(removed) => {
                removed.waiting.encode(out.u8(9));
                removed.dead.encode(&mut out);
                out.u64(removed.copies).u8(u8::from(removed.again));
            }
        }
        out.row()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(bytes)?;
        let answer = match read.u8()? {
            1 => Self::Cancelled(None),
            2 => Self::Cancelled(Some(Tally {
                rows: read.u64()?,
                batches: read.u64()?,
            })),
            3 => Self::Moved(Moved {
                letters: read.u64()?,
                rows: read.u64()?,
            }),
            4 => Self::Edited(None),
            5 => Self::Edited(Some(letter_id(&mut read)?)),
            6 => Self::Told,
            7 => Self::Failed(read.text()?),
            8 => Self::Released(match read.u8()? {
                0 => Some(false),
                1 => Some(true),
                2 => None,
                _ => return Err(Malformed),
            }),
            9 => Self::Erased(Removed {
                waiting: Tally::decode(&mut read)?,
                dead: Tally::decode(&mut read)?,
                copies: read.u64()?,
                again: read.u8()? == 1,
            }),
            _ => return Err(Malformed),
        };
        read.end().map(|()| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_answered_comes_back() {
        let id = LetterId {
            letter: 7,
            slice: 3,
        };
        let hit = Hit {
            at: 5,
            crc: 6,
            slices: vec![0, 2],
        };
        for action in [
            Action::Cancel(DeliveryId([1; 16])),
            Action::Release(DeliveryId([2; 16])),
            Action::Replay(vec![id, id]),
            Action::Discard(Vec::new()),
            Action::Edit(id, b"payload".to_vec()),
            Action::Lane(LaneWish::Pause),
            Action::EraseEntries(DeliveryId([3; 16]), 9, vec![hit.clone(), hit.clone()]),
            Action::EraseLetters(vec![hit]),
            Action::Lane(LaneWish::Resume),
            Action::Lane(LaneWish::Retry),
        ] {
            let bytes = action.encode();
            assert_eq!(Action::decode(&bytes), Ok(action));
            assert!(Action::decode(&bytes[1..]).is_err());
        }
        let tally = Tally {
            rows: 1,
            batches: 2,
        };
        let moved = Moved {
            letters: 3,
            rows: 4,
        };
        for answer in [
            Answer::Cancelled(None),
            Answer::Cancelled(Some(tally)),
            Answer::Moved(moved),
            Answer::Edited(None),
            Answer::Edited(Some(id)),
            Answer::Told,
            Answer::Failed("why".to_owned()),
            Answer::Released(None),
            Answer::Erased(Removed {
                waiting: tally,
                dead: tally,
                copies: 3,
                again: true,
            }),
            Answer::Released(Some(true)),
            Answer::Released(Some(false)),
        ] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Ok(answer));
        }
    }
}
