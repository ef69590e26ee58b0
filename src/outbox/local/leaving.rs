//! An outbox that nobody else has open, read to be moved elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::model::DeliveryId;
use crate::outbox::bits::Bits;
use crate::outbox::carried::{
    Carried, CarriedAccount, CarriedDelivery, CarriedLetter, CarriedWebhook,
};
use crate::outbox::codec::Malformed;
use crate::outbox::delivery::Tally;
use crate::outbox::error::{Error, OpenError};
use crate::outbox::local;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::read::{ReadError, ReadFile, sound};
use crate::outbox::local::files::segment::{SegmentFile, read_header, read_sealed};
use crate::outbox::local::handle::Local;
use crate::outbox::local::state::delivery::Delivery;
use crate::outbox::local::state::index::Index;
use crate::outbox::record::{Frame, Kind, scan};
use crate::outbox::settings::Settings;
use crate::seal::{KeyId, Keyring};

/// Longer than any daemon is told to remember: a move forgets nothing.
const FOR_EVER: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// See the module. It is in order, as after a start, and stays locked.
pub(in crate::outbox) struct Leaving {
    local: Local,
}

impl Leaving {
    /// Brings the outbox in order as a start would, and forgets nothing.
    pub fn open(path: &Path, keys: Arc<Keyring>) -> Result<Self, OpenError> {
        let settings = Settings {
            reserve_bytes: 0,
            webhook_memory: FOR_EVER,
            history: usize::MAX,
            ..Settings::new(path, keys)
        };
        local::open_to_move(settings, Disk::default()).map(|local| Self { local })
    }

    /// All that it holds.
    ///
    /// # Errors
    /// A file cannot be read, or was found damaged.
    pub fn contents(&self) -> Result<Carried, Error> {
        if let Some(damage) = self.local.shared.damage().pop() {
            return Err(Error::Damaged {
                what: damage.what.into(),
            });
        }
        let index = self.local.shared.index();
        let mut carried = Carried {
            next_letter: index.next_letter,
            attempts: index.attempts.values().cloned().collect(),
            notes: index
                .notes
                .iter()
                .map(|(key, text)| (*key, Arc::clone(text)))
                .collect(),
            ..Carried::default()
        };
        for (&position, delivery) in &index.deliveries {
            let key = self.key_of(delivery)?;
            carried.deliveries.push(CarriedDelivery {
                info: Arc::clone(&delivery.row.info),
                totals: delivery.row.totals.clone(),
                committed: delivery.row.committed,
                counters: delivery.counters(),
                held: index.is_held(position),
                turn: position,
                settled: settled(delivery),
                key,
            });
        }
        carried.letters = letters(&index);
        for (&destination, account) in &index.accounts {
            carried.accounts.push(CarriedAccount {
                destination,
                label: account.label.clone(),
                sealed: Arc::clone(&account.sealed),
            });
        }
        for (&key, webhook) in &index.webhooks {
            carried.webhooks.push(CarriedWebhook {
                key,
                delivery: webhook.delivery,
                rows: webhook.rows,
                committed: webhook.committed,
            });
        }
        Ok(carried)
    }

    /// The requests of a delivery that have not settled, in their order: each as it is sealed, once it
    /// has been opened.
    ///
    /// # Errors
    /// One cannot be read, or is damaged; or what `put` returns.
    pub fn entries(
        &self,
        delivery: &CarriedDelivery,
        mut put: impl FnMut(u32, &[u8], Tally) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (shared, id) = (&self.local.shared, delivery.info.id);
        let segments: Vec<_> = {
            let index = shared.index();
            let segments = index.delivery(id).map(|(_, delivery)| &delivery.segments);
            let rows = segments
                .into_iter()
                .flat_map(|segments| segments.iter().map(|segment| segment.row.summary));
            rows.collect()
        };
        for summary in segments {
            let path = shared.layout.segment(id, summary.number);
            let opened = SegmentFile::open(&shared.disk, &path, id, summary.first, summary.entries);
            let file = self.read(opened, || format!("a segment of delivery {id}"))?;
            for ordinal in summary.first..summary.first.saturating_add(summary.entries) {
                if delivery.settled.get(ordinal) {
                    continue;
                }
                let read = file.read_sealed(ordinal, &shared.settings.keys);
                let bytes = self.read(read, || format!("request {ordinal} of delivery {id}"))?;
                put(ordinal, &bytes, file.tally(ordinal))?;
            }
        }
        Ok(())
    }

    /// The rejected rows of a delivery that are kept, each as it is sealed.
    ///
    /// # Errors
    /// Their file cannot be read, or a row is damaged; or what `put` returns.
    pub fn rejected(
        &self,
        id: DeliveryId,
        mut put: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let shared = &self.local.shared;
        let read =
            ReadFile::open(&shared.disk, &shared.layout.rejected(id)).and_then(|file| file.whole());
        // A delivery without rejected rows has no file.
        let bytes = sound(read).map_err(Error::from)?.unwrap_or_default();
        for (offset, length, frame) in scan(&bytes) {
            if (frame.name.kind, frame.name.delivery) != (Kind::Rejected, id) {
                continue;
            }
            frame
                .open(&shared.settings.keys)
                .map_err(|Malformed| Error::Damaged {
                    what: format!("a rejected row of delivery {id}").into(),
                })?;
            put(bytes.get(offset..offset + length).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The record of a letter as it is sealed, once it has been opened, and under which key.
    pub fn letter(&self, id: u64) -> Result<(Vec<u8>, KeyId), Error> {
        let shared = &self.local.shared;
        let what = || format!("dead letter {id}");
        let letter = shared.index().letter(id);
        let Some((delivery, letter)) = letter else {
            return Err(Error::Damaged {
                what: what().into(),
            });
        };
        let (name, place) = (letter.name(delivery), letter.place());
        let read = ReadFile::open(&shared.disk, &shared.layout.dead(place.file)).and_then(|file| {
            let keys = &shared.settings.keys;
            file.twice(|file| read_sealed(file, place.offset, place.length, name, keys))
        });
        let record = self.read(read, what)?;
        let key = Frame::decode(&record).ok().and_then(|frame| frame.key_id());
        Ok((record, key.unwrap_or(shared.settings.keys.current())))
    }

    /// Whether an erasure has not ended.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_erasing(&self) -> Result<bool, Error> {
        Ok(local::erase::pending(&self.local)?.is_some())
    }

    /// Ends it, and lets go of the lock.
    pub fn close(self) {
        self.local.close();
    }

    /// The key that a delivery is sealed under, by the header of a file of it.
    fn key_of(&self, delivery: &Delivery) -> Result<KeyId, Error> {
        let shared = &self.local.shared;
        let id = delivery.row.info.id;
        let segments = delivery.segments.numbers();
        let files = segments.map(|number| shared.layout.segment(id, number));
        for path in files.chain([shared.layout.rejected(id)]) {
            let header =
                ReadFile::open(&shared.disk, &path).and_then(|file| file.twice(read_header));
            if let Some(header) = sound(header).map_err(Error::from)? {
                return Ok(header.key);
            }
        }
        Ok(shared.settings.keys.current())
    }

    fn read<T>(&self, read: Result<T, ReadError>, what: impl Fn() -> String) -> Result<T, Error> {
        match sound(read).map_err(Error::from)? {
            Some(value) => Ok(value),
            None => Err(Error::Damaged {
                what: what().into(),
            }),
        }
    }
}

/// Those in no segment have settled.
fn settled(delivery: &Delivery) -> Bits {
    let requests = u32::try_from(delivery.row.totals.requests).unwrap_or(u32::MAX);
    let mut bits = Bits::all(requests);
    for segment in delivery.segments.iter() {
        for at in 0..segment.row.summary.entries {
            bits.set(segment.row.summary.first + at, segment.has_settled(at));
        }
    }
    bits
}

fn letters(index: &Index) -> Vec<CarriedLetter> {
    let letters = index.letters.iter().filter_map(|(&id, letter)| {
        let delivery = index.deliveries.get(&letter.position)?;
        Some(CarriedLetter {
            id,
            delivery: delivery.row.info.id,
            destination: delivery.row.info.destination,
            ordinal: letter.ordinal,
            live: letter.live.clone(),
            tally: letter.tally,
            queued: letter.queued,
        })
    });
    letters.collect()
}
