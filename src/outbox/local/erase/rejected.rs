//! Files of rejected rows that are searched, and written anew.

use std::collections::HashSet;

use super::found::check;
use crate::model::DeliveryId;
use crate::outbox::erase::{Erased, Matcher, Scan};
use crate::outbox::error::Error;
use crate::outbox::local::files::format::Commit;
use crate::outbox::local::files::read::{ReadFile, sound};
use crate::outbox::local::files::rejected::{self, RejectedWriter};
use crate::outbox::local::files::segment::AppendError;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Rewritten};
use crate::outbox::record::MAX_RAW;
use crate::outbox::rejected::{Rejected, RejectedRow};

/// Positions of the deliveries that have rejected rows; `of`: only of these.
pub(super) fn all(local: &Local, of: Option<&HashSet<DeliveryId>>) -> Vec<u64> {
    let index = local.shared.index();
    let deliveries = index.deliveries.iter();
    deliveries
        .filter(|(_, delivery)| {
            let id = delivery.row.info.id;
            delivery.row.totals.rows_rejected > 0 && of.is_none_or(|of| of.contains(&id))
        })
        .map(|(position, _)| *position)
        .collect()
}

/// The rows that are kept of a delivery; `None`: there is no such file.
fn read(local: &Local, position: u64, scan: &Scan) -> Result<Option<Vec<Rejected>>, Error> {
    check(scan)?;
    let shared = &local.shared;
    let Some(id) = id_of(local, position) else {
        return Ok(None);
    };
    let read = ReadFile::open(&shared.disk, &shared.layout.rejected(id)).and_then(|file| {
        scan.add(file.length()?);
        rejected::read(&file, id, &shared.settings.keys, 0, usize::MAX)
    });
    let read = sound(read).map_err(|error| local.unreadable(error))?;
    Ok(read.map(|(rows, _)| rows))
}

fn id_of(local: &Local, position: u64) -> Option<DeliveryId> {
    let index = local.shared.index();
    Some(index.deliveries.get(&position)?.row.info.id)
}

/// How many rows are meant.
pub(super) fn find(
    local: &Local,
    position: u64,
    matcher: &dyn Matcher,
    scan: &Scan,
) -> Result<u64, Error> {
    let rows = read(local, position, scan)?.unwrap_or_default();
    let meant = rows.iter().filter(|row| matcher.row(&row.text));
    Ok(meant.count() as u64)
}

/// Erases the rows that are meant.
pub(super) fn erase(
    local: &Local,
    position: u64,
    matcher: &dyn Matcher,
    scan: &Scan,
    sum: &mut Erased,
) -> Result<(), Error> {
    let Some(rows) = read(local, position, scan)? else {
        return Ok(());
    };
    let (meant, kept): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| matcher.row(&row.text));
    if meant.is_empty() {
        return Ok(());
    }
    let Some(written) = write(local, position, &kept, meant.len() as u64)? else {
        return Ok(());
    };
    let draft = written.draft.clone();
    let erased = local.ask(|reply| Command::RewrittenRows(written, meant.len() as u64, reply));
    if !matches!(erased, Ok(true))
        && let Err(error) = local.shared.disk.remove(&draft)
    {
        tracing::warn!(%error, "a file that was written anew could not be removed; the next start removes it");
    }
    if erased? {
        sum.rejected += meant.len() as u64;
    }
    Ok(())
}

/// `None`: the delivery has left the history.
fn write(
    local: &Local,
    position: u64,
    rows: &[Rejected],
    gone: u64,
) -> Result<Option<Rewritten>, Error> {
    let shared = &local.shared;
    let found = {
        let index = shared.index();
        let found = index.deliveries.get(&position);
        found.map(|one| (one.row.clone(), one.counters().erased_rejected))
    };
    let Some((delivery, before)) = found else {
        return Ok(None);
    };
    let failed = "rejected rows could not be written anew";
    let draft = shared
        .layout
        .draft(&shared.layout.rejected(delivery.info.id));
    shared.disk.remove(&draft).map_err(Error::io(failed))?;
    let keys = &shared.settings.keys;
    let writer = RejectedWriter::create_at(&shared.disk, draft.clone(), &delivery.info, keys);
    let mut writer = writer.map_err(Error::io(failed))?;
    for row in rows {
        let row = RejectedRow {
            row: row.row,
            reason: &row.reason,
            text: &row.text,
        };
        writer.append(row).map_err(|error| match error {
            AppendError::TooLarge => Error::TooLarge {
                what: "a rejected row",
                limit: MAX_RAW,
            },
            AppendError::Io(source) => Error::io(failed)(source),
        })?;
    }
    let commit = Commit {
        position: 0,
        committed: delivery.committed,
        segments: 0,
        totals: delivery.totals.clone(),
    };
    writer.erased(before.saturating_add(gone));
    writer.finish(commit).map_err(Error::io(failed))?;
    Ok(Some(Rewritten {
        position,
        number: 0,
        draft,
        bytes: writer.length(),
    }))
}
