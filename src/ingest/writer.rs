//! The writer of one delivery: a thread that compresses requests and writes them to the outbox while
//! the worker makes the next ones. By then the delivery has come in whole, so a core is free.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::IngestError;
use crate::mparticle::encode::{Batch, Sink, Unsendable};
use crate::outbox::{Entry, RejectedRow, Slice, Staging};
use crate::record::RecordView;

/// Requests that wait for the writer: enough that neither side waits for the other over one large
/// request, and at most some 1 MB.
const WAITING: usize = 4;

/// What the worker hands to the writer.
enum Ready {
    Request(Request),
    Rejected {
        row: u64,
        reason: String,
        text: Vec<u8>,
    },
}

/// A request's batches, one after the other, each with its end and rows.
#[derive(Default)]
struct Request {
    bytes: Vec<u8>,
    batches: Vec<(usize, u32)>,
}

/// Takes what the encoder makes and hands it on.
pub struct Feeder<'a> {
    ready: SyncSender<Ready>,
    /// Requests that have been written, to be filled again.
    spare: Receiver<Request>,
    rejected: &'a mut u64,
    first_reason: &'a mut Option<String>,
}

/// Runs `make` with a [`Feeder`] whose requests are appended to `staging` on a thread of their own.
/// Returns when all of them have been appended. Rows that no batch can hold are counted.
///
/// # Errors
/// The outbox's, else those of `make`.
pub fn write<T>(
    staging: &mut Staging,
    rejected: &mut u64,
    first_reason: &mut Option<String>,
    make: impl FnOnce(&mut Feeder<'_>) -> Result<T, IngestError>,
) -> Result<T, IngestError> {
    let (ready, work) = sync_channel(WAITING);
    let (done, spare) = sync_channel(WAITING);
    let span = tracing::Span::current();
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn_scoped(scope, move || {
                span.in_scope(|| append_all(staging, &work, &done))
            })
            .map_err(IngestError::Thread)?;
        let mut feeder = Feeder {
            ready,
            spare,
            rejected,
            first_reason,
        };
        let made = make(&mut feeder);
        // The end of the channel ends the writer.
        drop(feeder);
        // What stopped the writer is why the worker could not go on.
        writer.join().unwrap_or(Err(IngestError::Panicked))?;
        made
    })
}

fn append_all(
    staging: &mut Staging,
    work: &Receiver<Ready>,
    done: &SyncSender<Request>,
) -> Result<(), IngestError> {
    while let Ok(ready) = work.recv() {
        match ready {
            Ready::Request(request) => {
                staging.append(Entry {
                    slices: &request.slices(),
                })?;
                // A worker that has spare ones enough, or is done, needs no more.
                let _ = done.try_send(request);
            }
            Ready::Rejected { row, reason, text } => staging.reject(RejectedRow {
                row,
                reason: &reason,
                text: &text,
            })?,
        }
    }
    Ok(())
}

impl Request {
    fn fill(&mut self, batches: &[Batch<'_>]) {
        self.bytes.clear();
        self.batches.clear();
        for batch in batches {
            self.bytes.extend_from_slice(batch.json);
            self.batches.push((self.bytes.len(), batch.rows));
        }
    }

    fn slices(&self) -> Vec<Slice<'_>> {
        let mut start = 0;
        let slices = self.batches.iter().map(|&(end, rows)| {
            let bytes = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            Slice { bytes, rows }
        });
        slices.collect()
    }
}

impl Feeder<'_> {
    fn hand_on(&self, ready: Ready) -> Result<(), IngestError> {
        // Only a writer that failed has hung up, and `write` reports its error instead of this.
        self.ready.send(ready).map_err(|_| IngestError::Panicked)
    }
}

impl Sink for Feeder<'_> {
    type Error = IngestError;

    fn request(&mut self, batches: &[Batch<'_>]) -> Result<(), IngestError> {
        let mut request = self.spare.try_recv().unwrap_or_default();
        request.fill(batches);
        self.hand_on(Ready::Request(request))
    }

    fn unsendable(&mut self, record: RecordView<'_>, why: Unsendable) -> Result<(), IngestError> {
        *self.rejected += 1;
        let reason = why.to_string();
        let text = [b"{", record.identities, b"}"].concat();
        self.first_reason.get_or_insert_with(|| reason.clone());
        self.hand_on(Ready::Rejected {
            row: record.row,
            reason,
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::model::{DeliveryId, DestinationId};
    use crate::outbox::{NewDelivery, Outbox, Settings};

    const DESTINATION: DestinationId = DestinationId([2; 16]);

    fn staging(outbox: &Outbox) -> Staging {
        let new = NewDelivery {
            id: DeliveryId([1; 16]),
            destination: DESTINATION,
            destination_label: String::new(),
            account: Vec::new(),
            webhook: None,
            title: String::new(),
            link: None,
            received: UnixMillis(1),
        };
        outbox.begin(new).unwrap()
    }

    fn open(directory: &std::path::Path, max_bytes: Option<u64>) -> Outbox {
        let settings = Settings {
            reserve_bytes: 0,
            max_bytes,
            ..Settings::new(directory)
        };
        Outbox::open(settings).unwrap()
    }

    #[test]
    fn requests_are_appended_in_order_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = open(directory.path(), None);
        let mut staging = staging(&outbox);
        let bodies: Vec<String> = (0..100)
            .map(|n| format!("{{\"n\":{n}}}").repeat(n + 1))
            .collect();
        let (mut rejected, mut reason) = (0, None);
        let made = write(&mut staging, &mut rejected, &mut reason, |feeder| {
            for body in &bodies {
                let half = body.len() / 2;
                let batches = [&body[..half], &body[half..]].map(|part| Batch {
                    json: part.as_bytes(),
                    rows: 1,
                });
                feeder.request(&batches)?;
            }
            Ok(bodies.len())
        });
        assert_eq!(made.unwrap(), 100);
        staging
            .commit(crate::outbox::Totals {
                rows_in: 200,
                batches: 200,
                requests: 100,
                ..Default::default()
            })
            .unwrap();
        let claims = outbox.claim(DESTINATION, 1_000).unwrap();
        let found: Vec<_> = claims.iter().map(|claim| claim.slices.concat()).collect();
        let wanted: Vec<_> = bodies.iter().map(|body| body.as_bytes().to_vec()).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_stops_the_writer_is_the_error_and_what_stops_the_worker_else() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = open(directory.path(), Some(4 << 20));
        let mut staging = staging(&outbox);
        let (mut rejected, mut reason) = (0, None);
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(100_000)
            .collect();
        let full = write(&mut staging, &mut rejected, &mut reason, |feeder| {
            let batch = Batch {
                json: &noise,
                rows: 1,
            };
            (0..1_000).try_for_each(|_| feeder.request(&[batch]))
        });
        assert!(
            matches!(
                full,
                Err(IngestError::Outbox(crate::outbox::Error::Full { .. }))
            ),
            "{full:?}"
        );
        drop(staging);
        let stopped: Result<(), _> = write(
            &mut self::staging(&outbox),
            &mut rejected,
            &mut reason,
            |_| Err(IngestError::Stopped),
        );
        assert!(matches!(stopped, Err(IngestError::Stopped)), "{stopped:?}");
    }
}
