//! One execute request, from its first byte to the sentence that Looker is told.
//!
//! The work is a task of its own, owned by the hub and awaited at shutdown, not part of the
//! connection that asked for it. So a client that goes away does not end it: a proxy of Looker's
//! may well have cut a connection that was silent, and the url is spent. A delivery that is complete
//! is committed all the same, and when the schedule is sent again under the same webhook id, the
//! answer is success. (A pushed document comes over that very connection, and is cut with it.)
//!
//! If a request has both a url and pushed rows, which Looker does not do, the rows in hand count and
//! the url is not spent. What is checked before anything is spent, in this order: the request itself, the webhook id,
//! room in the outbox (that is the reservation, which is durable). Then a delivery waits for its turn, if as many as
//! may be are being received.
//!
//! Whatever fails is written down by the receiver, once, with what is known of the schedule.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::Settings;
use super::download::{DownloadError, Downloader};
use super::error::RequestError;
use super::live::Handle;
use super::parts::{Parts, PartsError, Piece};
use super::receiver::{Accepted, Caller, DeliveryRequest, NotReserved, Receiver, Refusal, Source};
use super::reply::Outcome;
use super::request::{Origin, Sections};
use super::spool::Spool;
use crate::causes::with_causes;
use crate::model::FailureKind;

/// Pieces of a pushed document between the connection and the receiver: enough that neither waits
/// for each single piece of the other, and few since a piece can be as large as a read.
const PIECES_AHEAD: usize = 4;

/// Documents that are spooled at once: each takes some memory.
const SPOOLS: usize = 16;

/// After so much of a spooled document the receiver is asked again whether there is room.
const ASK_AFTER_BYTES: usize = 16 << 20;

/// Why a delivery was not taken. Each is a sentence for the schedule's owner.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Parts(#[from] PartsError),
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// Said by the receiver, who logs it as it sees fit; may hold user data.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The first request with this webhook id has not ended.
    #[error("This delivery is already being received; this second request for it was ignored.")]
    Receiving,
    /// As many documents as may be wait for their settings.
    #[error(
        "The feed is already storing as many documents at once as it may ({SPOOLS}), and none of them was \
         complete within {}. Send this one again later.", humantime::format_duration(*.0)
    )]
    Busy(Duration),
    /// The spool cannot be written or read.
    #[error("The feed could not store the delivery in its directory.")]
    Spool(#[from] io::Error),
}

impl Failure {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Request(_) | Self::Parts(PartsError::Malformed { .. }) => FailureKind::Request,
            Self::Parts(PartsError::Cut { .. } | PartsError::Silent(_)) => FailureKind::Cut,
            Self::Download(error) => error.kind(),
            Self::Refused(refusal) => refusal.kind,
            Self::Receiving | Self::Busy(_) => FailureKind::Busy,
            Self::Spool(_) => FailureKind::Disk,
        }
    }
}

/// The delivery that a request is about, as far as it is known.
struct Delivery<P> {
    caller: Caller,
    reservation: Option<P>,
    /// The receiver has it, and writes down how it ends.
    handed_over: bool,
}

/// How a request ended that did not fail.
enum Done {
    Received(Accepted),
    /// Committed before, under the same webhook id.
    Before {
        rows: u64,
    },
    /// "Send if no results", and there were none.
    NoResults,
}

/// What all execute requests share.
pub(super) struct Executor<R> {
    receiver: Arc<R>,
    downloader: Downloader,
    settings: Settings,
    spools: Semaphore,
}

impl<R: Receiver> Executor<R> {
    pub(super) fn new(receiver: Arc<R>, settings: Settings, live: Handle) -> Self {
        Self {
            downloader: Downloader::new(settings.looker.clone(), live, settings.trust.clone()),
            spools: Semaphore::new(SPOOLS),
            receiver,
            settings,
        }
    }

    /// Does the work and logs how it went. Never panics, whatever the receiver does.
    pub(super) async fn run(&self, origin: Origin, mut parts: Parts) -> Outcome {
        let mut delivery = Delivery {
            caller: Caller::of(&origin),
            reservation: None,
            handed_over: false,
        };
        let result = AssertUnwindSafe(self.carry(&origin, &mut parts, &mut delivery))
            .catch_unwind()
            .await;
        let outcome = match result {
            Ok(Ok(done)) => report(done),
            Ok(Err(failure)) => {
                log_failure(&failure);
                let outcome = Outcome::failure(&failure);
                // A second request for what is being received is not a delivery of its own.
                if !matches!(failure, Failure::Receiving) {
                    self.fail(delivery, failure.kind(), &outcome);
                }
                outcome
            }
            Err(_) => {
                tracing::error!(
                    "the work on a delivery panicked; the status shows whether it was committed before"
                );
                let outcome = Outcome::failure(
                    "The feed failed on this delivery because of a mistake in its program; its log and its \
                     status say more.",
                );
                self.fail(delivery, FailureKind::Program, &outcome);
                outcome
            }
        };
        parts.discard().await;
        outcome
    }

    fn fail(&self, delivery: Delivery<R::Reservation>, kind: FailureKind, outcome: &Outcome) {
        if !delivery.handed_over {
            self.receiver.failed(
                delivery.reservation,
                &delivery.caller,
                kind,
                &outcome.message,
            );
        }
    }

    async fn carry(
        &self,
        origin: &Origin,
        parts: &mut Parts,
        delivery: &mut Delivery<R::Reservation>,
    ) -> Result<Done, Failure> {
        let mut sections = Sections::default();
        loop {
            match parts.next().await? {
                Piece::Section(name, json) => {
                    sections.put(&name, &json)?;
                    delivery.caller.read(&sections);
                }
                Piece::Attachment(first) if sections.decidable() => {
                    return self
                        .carry_push(origin, sections, first, parts, delivery)
                        .await;
                }
                Piece::Attachment(first) => {
                    return self
                        .carry_spooled(origin, sections, first, parts, delivery)
                        .await;
                }
                Piece::End => break,
            }
        }
        let (request, download_url) = sections.request(origin)?;
        let Some(download_url) = download_url else {
            return Ok(Done::NoResults);
        };
        if let Turn::Before { rows } = self.turn(delivery, Some(&request)).await? {
            return Ok(Done::Before { rows });
        }
        let source = self.downloader.fetch(&download_url).await?;
        self.receive(delivery, request, source).await
    }

    /// A pushed document whose settings came first goes straight to the receiver.
    async fn carry_push(
        &self,
        origin: &Origin,
        mut sections: Sections,
        first: Bytes,
        parts: &mut Parts,
        delivery: &mut Delivery<R::Reservation>,
    ) -> Result<Done, Failure> {
        let (request, _) = sections.request(origin)?;
        if let Turn::Before { rows } = self.turn(delivery, Some(&request)).await? {
            return Ok(Done::Before { rows });
        }
        let (sender, source) = mpsc::channel(PIECES_AHEAD);
        // Ends at the request's end, or when the receiver wants no more. The document counts as
        // complete only if the request does: an error goes through the same channel.
        let pump = async move {
            let mut next = Ok(first);
            while sender.send(next).await.is_ok() {
                next = loop {
                    match parts.next().await {
                        Ok(Piece::Attachment(bytes)) => break Ok(bytes),
                        Ok(Piece::Section(name, json)) => {
                            if let Err(error) = sections.put(&name, &json) {
                                break Err(io::Error::other(error));
                            }
                        }
                        Ok(Piece::End) => return,
                        Err(error) => break Err(io::Error::other(error)),
                    }
                };
                if next.is_err() {
                    let _ = sender.send(next).await;
                    return;
                }
            }
        };
        let source = Box::pin(ReceiverStream::new(source));
        let (result, ()) = tokio::join!(self.receive(delivery, request, source), pump);
        result
    }

    /// A pushed document that came before its settings waits in a file for them.
    async fn carry_spooled(
        &self,
        origin: &Origin,
        mut sections: Sections,
        first: Bytes,
        parts: &mut Parts,
        delivery: &mut Delivery<R::Reservation>,
    ) -> Result<Done, Failure> {
        if let Turn::Before { rows } = self.turn(delivery, None).await? {
            return Ok(Done::Before { rows });
        }
        let limit = self.settings.looker.queue_timeout;
        let place = timeout(limit, self.spools.acquire()).await;
        let _place = place.map_err(|_| Failure::Busy(limit))?;
        let mut spool = Spool::create(self.settings.spool.clone()).await?;
        spool.write(&first).await?;
        let mut unasked = first.len();
        loop {
            match parts.next().await? {
                Piece::Attachment(bytes) => {
                    spool.write(&bytes).await?;
                    unasked += bytes.len();
                    if unasked >= ASK_AFTER_BYTES {
                        self.receiver.admit()?;
                        unasked = 0;
                    }
                }
                Piece::Section(name, json) => {
                    sections.put(&name, &json)?;
                    delivery.caller.read(&sections);
                }
                Piece::End => break,
            }
        }
        let (request, _) = sections.request(origin)?;
        let source = spool.into_source().await?;
        self.receive(delivery, request, source).await
    }

    async fn receive(
        &self,
        delivery: &mut Delivery<R::Reservation>,
        request: DeliveryRequest,
        source: Source,
    ) -> Result<Done, Failure> {
        let Some(reservation) = delivery.reservation.take() else {
            // Every way here has taken its turn.
            return Err(Failure::Receiving);
        };
        delivery.handed_over = true;
        let receipt = self.receiver.receive(reservation, request, source).await?;
        Ok(Done::Received(receipt))
    }

    /// The turn of one delivery, unless it was taken before.
    async fn turn(
        &self,
        delivery: &mut Delivery<R::Reservation>,
        request: Option<&DeliveryRequest>,
    ) -> Result<Turn, Failure> {
        match self.receiver.reserve(&delivery.caller, request).await {
            Ok(reservation) => delivery.reservation = Some(reservation),
            Err(NotReserved::Receiving) => return Err(Failure::Receiving),
            Err(NotReserved::Committed { rows }) => return Ok(Turn::Before { rows }),
            Err(NotReserved::Refused(refusal)) => return Err(refusal.into()),
        }
        self.receiver.turn().await?;
        // It may have been a long wait.
        self.receiver.admit()?;
        Ok(Turn::Now)
    }
}

/// Whether a delivery may be received.
enum Turn {
    Now,
    Before { rows: u64 },
}

fn report(done: Done) -> Outcome {
    match done {
        Done::Received(Accepted {
            delivery,
            rows,
            rejected,
        }) => {
            tracing::Span::current().record("delivery", tracing::field::display(delivery));
            tracing::info!(rows, rejected, "delivery accepted");
            Outcome::success(match rejected {
                0 => format!("{rows} rows accepted as delivery {delivery}."),
                _ => format!(
                    "{rows} rows accepted as delivery {delivery}, {rejected} of them cannot be sent."
                ),
            })
        }
        Done::Before { rows } => {
            tracing::info!(rows, "delivery was accepted before; not taken again");
            Outcome::success(format!("{rows} rows were accepted before."))
        }
        Done::NoResults => {
            tracing::info!("the schedule had no results");
            Outcome::success("0 rows: the schedule had no results.".to_owned())
        }
    }
}

fn log_failure(failure: &Failure) {
    if let Failure::Refused(refusal) = failure {
        let kind = refusal.kind.name();
        // These are our own affairs: their sentences quote nothing of the delivery.
        if refusal.kind.is_ours() {
            let reason = &refusal.message;
            tracing::warn!(kind, reason, "delivery refused; Looker was told why");
        } else {
            tracing::warn!(kind, "delivery refused; Looker was told why");
        }
        return;
    }
    tracing::warn!(reason = %with_causes(failure), "delivery refused");
}
