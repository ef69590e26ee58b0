//! Traces for OpenTelemetry: what took how long, sent to a collector over OTLP/HTTP.
//!
//! The rooms on the data path know nothing of it: the composition root notes times and hands over
//! whole [`Span`]s. Handing over never waits: [`Telemetry::record`] puts a span into a bounded queue,
//! and what does not fit is dropped and counted. One task ([`Exporter`]) sends what is in the queue.
//! A collector that is slow or away costs nothing but its spans: one warning, then tries at growing
//! intervals.
//!
//! A span cannot hold a text from outside: the values of its attributes are numbers, ids of ours, and
//! words of this program ([`Value`]).

mod export;
mod span;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ClientConfig;
use tokio::sync::mpsc;
use url::Url;

pub use export::Exporter;
pub use span::{Kind, Span, SpanId, TraceId, Value, now};

/// Spans that wait to be sent: some seconds of them at thousands of requests a second, in about 1 MB.
const QUEUE: usize = 2048;

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector's base address: `/v1/traces` goes behind it, unless it ends so.
    pub endpoint: Url,
    /// Share of the traces that are sent, 0 to 1.
    pub ratio: f64,
    /// Whom to trust on the way to it.
    pub trust: ClientConfig,
}

/// The way to the exporter. Cloning gives another handle to the same one.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    queue: mpsc::Sender<Span>,
    /// A trace is sent when the last 63 bits of its id are below this.
    below: u64,
    counts: Arc<Counters>,
}

/// What became of the spans so far.
#[derive(Debug, Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// What became of the spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector has taken them.
    pub exported: u64,
    /// The queue was full, or the collector did not take them.
    pub dropped: u64,
}

impl Telemetry {
    /// A handle, and the exporter that must be run for anything to be sent.
    pub fn new(settings: Settings) -> (Self, Exporter) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counters::default());
        let shared = Shared {
            queue,
            below: bound(settings.ratio),
            counts: Arc::clone(&counts),
        };
        let exporter = Exporter::new(settings, spans, counts);
        (Self(Some(Arc::new(shared))), exporter)
    }

    /// One that drops everything uncounted.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether spans of this trace are wanted. All handles, and all programs that decide by the id
    /// as OpenTelemetry's ratio sampler does, say the same of one trace.
    pub fn samples(&self, trace: TraceId) -> bool {
        let bits = u64::from_be_bytes(trace.tail()) >> 1;
        self.0.as_ref().is_some_and(|shared| bits < shared.below)
    }

    /// Hands a span over. Never waits.
    pub fn record(&self, span: Span) {
        if let Some(shared) = &self.0
            && shared.queue.try_send(span).is_err()
        {
            shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `None`: it is off.
    pub fn counts(&self) -> Option<Counts> {
        let counts = &self.0.as_ref()?.counts;
        Some(Counts {
            exported: counts.exported.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
        })
    }
}

/// Of the 2^63 values that the last bits of an id can have, how many are sampled.
fn bound(ratio: f64) -> u64 {
    // A cast from a float keeps to the bounds of the integer.
    (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(ratio: f64) -> Telemetry {
        let (telemetry, _) = Telemetry::new(Settings {
            endpoint: Url::parse("http://127.0.0.1:1").unwrap(),
            ratio,
            trust: crate::telemetry::export::tests::trust(),
        });
        telemetry
    }

    #[test]
    fn the_ratio_says_which_traces_are_sent() {
        let all = telemetry(1.0);
        let none = telemetry(0.0);
        let tenth = telemetry(0.1);
        let mut sampled = 0;
        for _ in 0..10_000 {
            let trace = TraceId::random();
            assert!(all.samples(trace) && !none.samples(trace));
            assert!(!Telemetry::off().samples(trace));
            sampled += u32::from(tenth.samples(trace));
            assert_eq!(tenth.samples(trace), tenth.clone().samples(trace));
        }
        assert!((700..1_300).contains(&sampled), "{sampled}");
        assert!(all.samples(TraceId([0xff; 16])));
    }

    #[test]
    fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
        let (telemetry, _exporter) = Telemetry::new(Settings {
            endpoint: Url::parse("http://127.0.0.1:1").unwrap(),
            ratio: 1.0,
            trust: crate::telemetry::export::tests::trust(),
        });
        for _ in 0..QUEUE + 3 {
            telemetry.record(Span::new("test", TraceId::random(), now()));
        }
        let counts = telemetry.counts().unwrap();
        assert_eq!((counts.exported, counts.dropped), (0, 3));
        Telemetry::off().record(Span::new("test", TraceId::random(), now()));
        assert_eq!(Telemetry::off().counts(), None);
    }
}
