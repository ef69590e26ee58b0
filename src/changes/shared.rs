//! What is known of one schedule, in a database that several daemons share. It has the names that it has as
//! files, and what is short stands beside its name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::files::{Item, Kind, decode, decode_ids, encode, encode_ids};
use super::reads::{Reads, Source};
use super::{Missing, ScheduleKey};
use crate::model::DeliveryId;
use crate::outbox::{
    BlobReader, BlobWriter, Inside, Published, SnapshotEntry, SnapshotName, Snapshots,
};

/// A draft as [`Snapshots::publish`] is told of it.
type Stored = ([u8; 16], u64, u64);

/// One schedule.
#[derive(Clone)]
pub(super) struct ScheduleRows {
    pub snapshots: Snapshots,
    pub schedule: ScheduleKey,
    /// Who is in the schedule here; all zeros: nobody.
    pub holder: [u8; 16],
    /// Where unnamed files are made.
    pub temporary: PathBuf,
    pub reads: Reads,
}

impl Kind {
    /// As a database names it.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Users => 1,
            Self::Gone => 2,
            Self::Settled => 3,
            Self::Before => 4,
        }
    }
}

impl ScheduleRows {
    pub fn place(&self) -> PathBuf {
        PathBuf::from(format!("the database {}", self.snapshots.place()))
    }

    fn name(&self, number: u64, delivery: DeliveryId, kind: Kind) -> SnapshotName {
        SnapshotName {
            schedule: self.schedule.0,
            number,
            delivery,
            kind: kind.number(),
        }
    }

    fn list(&self) -> io::Result<Vec<SnapshotEntry>> {
        let list = self.snapshots.list(Some(self.schedule.0));
        list.map_err(io::Error::other)
    }

    fn entry(&self, number: u64, kind: Kind) -> io::Result<SnapshotEntry> {
        let mut all = self.list()?.into_iter();
        all.find(|entry| (entry.name.number, entry.name.kind) == (number, kind.number()))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    pub fn open(&self, number: u64, kind: Kind) -> io::Result<Source> {
        let entry = self.entry(number, kind)?;
        Ok(Source::Blob(BlobReader::new(&self.snapshots, &entry)))
    }

    pub fn items(&self) -> io::Result<Vec<Item>> {
        let mut items: BTreeMap<u64, Item> = BTreeMap::new();
        for entry in self.list()? {
            let item = items.entry(entry.name.number).or_default();
            item.number = entry.name.number;
            item.delivery = Some(entry.name.delivery);
            match entry.name.kind {
                1 => item.users = true,
                2 => item.gone = true,
                3 => item.settled = true,
                4 => item.before = true,
                _ => {}
            }
        }
        Ok(items.into_values().collect())
    }

    pub fn draft(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<BlobWriter> {
        BlobWriter::new(&self.snapshots, self.name(number, delivery, kind))
    }

    pub fn draft_before(
        &self,
        number: u64,
        delivery: DeliveryId,
        before: &[DeliveryId],
    ) -> io::Result<Stored> {
        let name = self.name(number, delivery, Kind::Before);
        let blob = self.snapshots.draft(name, encode_ids(before));
        Ok((blob.map_err(io::Error::other)?, 0, 0))
    }

    /// What was dropped meanwhile is not kept, and the delivery goes on.
    pub fn publish(&self, drafts: Vec<Stored>) -> io::Result<()> {
        let published = self.snapshots.publish(self.schedule.0, self.holder, drafts);
        match published.map_err(io::Error::other)? {
            Published::Yes | Published::Dropped => Ok(()),
            Published::Lost => Err(io::Error::other(
                "this daemon was not heard of for long, and another has taken the schedule over",
            )),
        }
    }

    pub fn temporary(&self) -> io::Result<File> {
        fs::create_dir_all(&self.temporary)?;
        tempfile::tempfile_in(&self.temporary)
    }

    pub fn source(&self, file: File) -> Source {
        self.reads.of(file, &self.temporary)
    }

    pub fn remove_drafts(&self) -> io::Result<()> {
        let removed = self.snapshots.remove_drafts(self.schedule.0);
        removed.map_err(io::Error::other)
    }

    pub fn remove(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<()> {
        let removed = self.snapshots.remove(self.name(number, delivery, kind));
        removed.map_err(io::Error::other)
    }

    pub fn clear(&self) -> io::Result<()> {
        let forgotten = self.snapshots.forget(self.schedule.0, self.holder);
        forgotten.map_err(io::Error::other)
    }

    pub fn settle(&self, number: u64, delivery: DeliveryId, missing: &Missing) -> io::Result<()> {
        let name = self.name(number, delivery, Kind::Settled);
        let put = self.snapshots.put(name, encode(missing));
        put.map_err(io::Error::other)
    }

    pub fn before(&self, number: u64) -> io::Result<Option<Vec<DeliveryId>>> {
        Ok(decode_ids(&self.entry(number, Kind::Before)?.body))
    }

    pub fn missing(&self, number: u64) -> io::Result<Missing> {
        match self.entry(number, Kind::Settled) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Missing::InDoubt),
            Err(error) => Err(error),
            Ok(entry) => Ok(decode(&entry.body).unwrap_or(Missing::InDoubt)),
        }
    }
}

/// Schedules that one of these deliveries may be of.
///
/// # Errors
/// They cannot be read now.
pub(super) fn may_be_of(
    snapshots: &Snapshots,
    deliveries: &[DeliveryId],
) -> io::Result<Vec<ScheduleKey>> {
    // `None`: it may be any.
    let among = |noted: Option<Vec<DeliveryId>>| {
        noted.is_none_or(|noted| noted.iter().any(|id| deliveries.contains(id)))
    };
    let mut found = Vec::new();
    // Who is inside first: what is published meanwhile is listed.
    for inside in snapshots.inside().map_err(io::Error::other)? {
        let Inside {
            schedule,
            delivery,
            noted,
        } = inside;
        if delivery.is_some() && among(noted.and_then(|noted| decode_ids(&noted))) {
            found.push(ScheduleKey(schedule));
        }
    }
    for entry in snapshots.list(None).map_err(io::Error::other)? {
        let is_before = entry.name.kind == Kind::Before.number();
        let own = deliveries.contains(&entry.name.delivery);
        if own || (is_before && among(decode_ids(&entry.body))) {
            found.push(ScheduleKey(entry.name.schedule));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
