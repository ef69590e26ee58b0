//! What the data path does, as traces: one of each delivery, and one of each request to mParticle
//! that names the delivery it belongs to.
//!
//! A delivery's trace has the delivery's id, so that the requests of one that was received before a
//! restart still lead to it.

use super::refusal::kind;
use crate::drain::{Reply, Request, Transport};
use crate::ingest::{IngestError, Ingested, Progress};
use crate::model::{DataType, DeliveryId, DestinationId};
use crate::telemetry::{Kind, Span, Telemetry, TraceId, Value, now};

/// A transport whose requests leave spans.
pub struct Traced<T> {
    inner: T,
    telemetry: Telemetry,
}

impl<T> Traced<T> {
    /// Sends by `inner`.
    pub fn new(inner: T, telemetry: Telemetry) -> Self {
        Self { inner, telemetry }
    }
}

impl<T: Transport> Transport for Traced<T> {
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send {
        let trace = TraceId::random();
        let draft = self.telemetry.samples(trace).then(|| Draft::of(&request));
        async move {
            let reply = self.inner.send(request).await;
            if let Some(draft) = draft {
                self.telemetry.record(draft.ended(trace, &reply));
            }
            reply
        }
    }
}

/// A request that is under way.
struct Draft {
    start: u64,
    delivery: DeliveryId,
    attributes: Vec<(&'static str, Value)>,
}

impl Draft {
    fn of(request: &Request) -> Self {
        let bytes: usize = request.batches.iter().map(|batch| batch.len()).sum();
        Self {
            start: now(),
            delivery: request.delivery,
            attributes: vec![
                ("http.request.method", Value::Word("POST")),
                ("looker_feed.destination", Value::Id(request.destination.0)),
                ("looker_feed.delivery", Value::Id(request.delivery.0)),
                ("looker_feed.attempt", Value::Number(request.attempt.into())),
                (
                    "looker_feed.batches",
                    Value::Number(request.batches.len() as u64),
                ),
                ("looker_feed.bytes", Value::Number(bytes as u64)),
            ],
        }
    }

    fn ended(self, trace: TraceId, reply: &Reply) -> Span {
        let (outcome, status) = outcome(reply);
        let mut attributes = self.attributes;
        attributes.push(("looker_feed.outcome", Value::Word(outcome)));
        if let Some(status) = status {
            attributes.push(("http.response.status_code", Value::Number(status.into())));
        }
        let delivery = TraceId(self.delivery.0);
        Span {
            id: trace.root(),
            kind: Kind::Client,
            attributes,
            link: Some((delivery, delivery.root())),
            failed: (!matches!(reply, Reply::Accepted { .. })).then_some(outcome),
            ..Span::new("mparticle.request", trace, self.start)
        }
    }
}

/// In words, and as a status when there was one. The server's own words stay out: they may quote what
/// was sent.
fn outcome(reply: &Reply) -> (&'static str, Option<u16>) {
    match reply {
        Reply::Accepted { .. } => ("accepted", Some(202)),
        Reply::Throttled { .. } => ("throttled", Some(429)),
        Reply::Unavailable { .. } => ("unavailable", None),
        // Without a request there is no status.
        Reply::Unauthorized { status, .. } => ("unauthorized", Some(*status).filter(|s| *s > 0)),
        Reply::Unexpected { status, .. } => ("unexpected", Some(*status)),
        Reply::Rejected { status, .. } => ("rejected", Some(*status)),
        Reply::TooLarge { .. } => ("too_large", Some(413)),
    }
}

/// A delivery that is being received.
pub(super) struct Receiving {
    start: u64,
    delivery: DeliveryId,
    destination: DestinationId,
    data_type: DataType,
}

impl Receiving {
    pub fn new(delivery: DeliveryId, destination: DestinationId, data_type: DataType) -> Self {
        Self {
            start: now(),
            delivery,
            destination,
            data_type,
        }
    }

    /// Hands over the whole of it and its stages, as far as it came.
    pub fn ended(
        self,
        telemetry: &Telemetry,
        progress: &Progress,
        outcome: &Result<Ingested, IngestError>,
    ) {
        let trace = TraceId(self.delivery.0);
        if !telemetry.samples(trace) {
            return;
        }
        let failed = outcome.as_ref().err().map(|error| kind(error).name());
        let mut attributes = vec![
            ("looker_feed.delivery", Value::Id(self.delivery.0)),
            ("looker_feed.destination", Value::Id(self.destination.0)),
            ("looker_feed.data_type", Value::Word(word(self.data_type))),
            ("looker_feed.rows", Value::Number(progress.rows())),
            ("looker_feed.bytes", Value::Number(progress.bytes())),
        ];
        if let Ok(receipt) = outcome {
            let made = receipt.made;
            attributes.extend([
                ("looker_feed.rejected", Value::Number(receipt.rejected)),
                ("looker_feed.users", Value::Number(made.users)),
                ("looker_feed.batches", Value::Number(made.batches)),
                ("looker_feed.requests", Value::Number(made.requests)),
            ]);
        }
        let whole = Span {
            id: trace.root(),
            kind: Kind::Server,
            attributes,
            failed,
            ..Span::new("delivery", trace, self.start)
        };
        let end = whole.end;
        telemetry.record(whole);
        let mut start = self.start;
        for (name, until) in [
            ("delivery.receive_decode_map", progress.read()),
            ("delivery.group_encode_write", progress.written()),
            ("delivery.commit", None),
        ] {
            // What was not reached is not there; what was under way ended with the delivery.
            let stage_end = until.unwrap_or(end).clamp(start, end.max(start));
            telemetry.record(Span {
                parent: Some(trace.root()),
                end: stage_end,
                failed: failed.filter(|_| until.is_none()),
                ..Span::new(name, trace, start)
            });
            if until.is_none() {
                return;
            }
            start = stage_end;
        }
    }
}

fn word(data_type: DataType) -> &'static str {
    match data_type {
        DataType::User => "user",
        DataType::Event => "event",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_in_no_span() {
        let words = "who@example.com is no address".to_owned();
        let request = Request {
            destination: DestinationId([1; 16]),
            account: std::sync::Arc::from(*b"a-secret"),
            delivery: DeliveryId([2; 16]),
            attempt: 3,
            route: 0,
            batches: vec![bytes::Bytes::from_static(
                b"{\"email\":\"who@example.com\"}",
            )],
        };
        let rejected = Reply::Rejected {
            status: 400,
            words: words.clone(),
        };
        let unauthorized = Reply::Unauthorized {
            status: 0,
            words: words.clone(),
        };
        let accepted = Reply::Accepted { percent_used: None };
        for (reply, status, outcome) in [
            (accepted, Some(202), "accepted"),
            (rejected, Some(400), "rejected"),
            (unauthorized, None, "unauthorized"),
            (Reply::unavailable(&words), None, "unavailable"),
        ] {
            let span = Draft::of(&request).ended(TraceId::random(), &reply);
            let text = format!("{span:?}");
            assert!(
                !text.contains("example.com") && !text.contains("secret"),
                "{text}"
            );
            let of = |name: &str| {
                let mut all = span.attributes.iter().filter(|(own, _)| *own == name);
                all.next().map(|(_, value)| *value)
            };
            assert_eq!(of("looker_feed.outcome"), Some(Value::Word(outcome)));
            assert_eq!(of("http.response.status_code"), status.map(Value::Number));
            assert_eq!(of("looker_feed.attempt"), Some(Value::Number(3)));
            assert_eq!(span.failed, (outcome != "accepted").then_some(outcome));
            let delivery = TraceId([2; 16]);
            assert_eq!(span.link, Some((delivery, delivery.root())));
        }
    }
}
