//! What the owner is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::model::DeliveryId;
use crate::model::DestinationId;
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::claim::{Settled, Settlement};
use crate::outbox::dead::DeadMeta;
use crate::outbox::delivery::{Info, Receipt, Tally, Totals};
use crate::outbox::erase::Erased;
use crate::outbox::error::Error;
use crate::outbox::letter::{LetterId, Moved};
use crate::outbox::local::files::segment::{SegmentFile, SegmentWriter, Summary};
use crate::outbox::local::state::change::Lost;
use crate::outbox::local::state::rows::Bits;
use crate::outbox::note::NoteKey;
use crate::outbox::record::Record;

/// Where the answer to a command goes.
pub(in crate::outbox) type Reply<T> = SyncSender<Result<T, Error>>;

/// What the owner is asked for.
pub(in crate::outbox) enum Command {
    Commit(Box<Prepared>, Reply<Receipt>),
    Settle(Vec<Settlement>, Reply<Settled>),
    Lost(Vec<Loss>, Reply<()>),
    /// Dead letters with their rows.
    Replay(Vec<(LetterId, u32)>, Reply<Moved>),
    Discard(Vec<(LetterId, u32)>, Reply<Moved>),
    /// A dead letter and its new payload.
    Edit(LetterId, Vec<u8>, Reply<Option<LetterId>>),
    Cancel(DeliveryId, Reply<Option<Tally>>),
    Reseal(Vec<Resealed>, Reply<()>),
    BringBack(Vec<GivenUp>, Reply<Moved>),
    Note(NoteKey, Option<Arc<[u8]>>, Reply<()>),
    /// A segment was written anew; answers with what is not sent any more.
    Rewritten(Rewritten, Reply<Option<Tally>>),
    /// Rejected rows were written anew without so many of them.
    RewrittenRows(Rewritten, u64, Reply<bool>),
    /// These letters leave their dead-letter file.
    Leave(u32, Vec<Leaving>, Reply<Erased>),
    /// A delivery is about to be received.
    Reserve(Arc<AttemptRow>, Reply<()>),
    /// A failed delivery, its journal, and the one to be put in its place.
    Journal(DeliveryId, Arc<[u8]>, Arc<[u8]>, Reply<bool>),
    /// Something of a cancelled delivery was given back.
    Sweep,
    /// Something cannot be read, and is to be tried again, or is in memory and to be written.
    Wake,
    Close,
}

/// A delivery that is on the disk but for its last footer.
pub(in crate::outbox) struct Prepared {
    pub info: Arc<Info>,
    pub full: Vec<Summary>,
    pub writer: SegmentWriter,
    pub totals: Totals,
    /// Rejected rows that are kept.
    pub kept: u32,
}

/// Something that turned out to be damaged.
pub(in crate::outbox) enum Loss {
    Entry {
        position: u64,
        ordinal: u32,
        tally: Tally,
    },
    Segment {
        position: u64,
        number: u32,
        /// `None`: the file is gone.
        file: Option<Arc<SegmentFile>>,
    },
    Letter(u64),
}

/// An account in the place of the one that it was made of.
pub(in crate::outbox) struct Resealed {
    pub destination: DestinationId,
    pub before: Arc<[u8]>,
    pub after: Arc<[u8]>,
}

/// A file that was written anew, under another name, to take the place of the old one.
pub(in crate::outbox) struct Rewritten {
    /// Of its delivery.
    pub position: u64,
    /// Of a segment.
    pub number: u32,
    pub draft: PathBuf,
    pub bytes: u64,
}

/// A letter that leaves its file, without these of its slices.
pub(in crate::outbox) struct Leaving {
    pub id: u64,
    pub without: BTreeSet<u32>,
}

/// Something that was given up, and is sound.
#[derive(Debug)]
pub(in crate::outbox) struct GivenUp {
    pub lost: Lost,
    /// Its delivery.
    pub position: u64,
    pub record: Record,
    /// Of a dead letter.
    pub meta: Option<DeadMeta>,
    /// The slices that were given up.
    pub live: Bits,
    /// It waited to be sent again.
    pub queued: bool,
}

impl GivenUp {
    /// Rows that were given up.
    pub fn rows(&self) -> u64 {
        let rows = (0u32..).zip(&self.record.rows);
        rows.filter(|(at, _)| self.live.get(*at))
            .map(|(_, rows)| u64::from(*rows))
            .sum()
    }
}
