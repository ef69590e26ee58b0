//! One span: a piece of work with a beginning and an end.

use crate::clock::Clock;

/// Names a trace. Never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

impl TraceId {
    /// One that nobody has. Ids are no secrets: a fast generator does.
    pub fn random() -> Self {
        Self(fastrand::u128(1..).to_be_bytes())
    }

    /// Its last eight bytes.
    pub(super) fn tail(self) -> [u8; 8] {
        let mut tail = [0; 8];
        tail.copy_from_slice(&self.0[8..]);
        tail
    }

    /// The id of its first span, when that is to be known from the trace's id alone: so a link can
    /// name it before it is sent, and after a restart.
    pub fn root(self) -> SpanId {
        match self.tail() {
            [0, 0, 0, 0, 0, 0, 0, 0] => SpanId([0, 0, 0, 0, 0, 0, 0, 1]),
            tail => SpanId(tail),
        }
    }
}

/// Names a span in its trace. Never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

impl SpanId {
    /// One that nobody has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..).to_be_bytes())
    }
}

/// Whose work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of this program.
    Internal,
    /// An answer to somebody's call.
    Server,
    /// A call to somebody.
    Client,
}

/// The value of an attribute. No text from outside fits in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// One of this program's own words.
    Word(&'static str),
    /// An id of ours, shown as hexadecimal digits.
    Id([u8; 16]),
    /// A count, a size, a status.
    Number(u64),
}

/// A piece of work that has ended. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What kind of work, in this program's own words.
    pub name: &'static str,
    /// Its trace.
    pub trace: TraceId,
    /// Its name in the trace.
    pub id: SpanId,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// Whose work it is.
    pub kind: Kind,
    /// When it began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// A span of another trace that it belongs to.
    pub link: Option<(TraceId, SpanId)>,
    /// Why it failed, in this program's own words; `None`: it did not.
    pub failed: Option<&'static str>,
}

impl Span {
    /// One that began at `start` and ends now.
    pub fn new(name: &'static str, trace: TraceId, start: u64) -> Self {
        Self {
            name,
            trace,
            id: SpanId::random(),
            parent: None,
            kind: Kind::Internal,
            start,
            // The clock may have been set back.
            end: now().max(start),
            attributes: Vec::new(),
            link: None,
            failed: None,
        }
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    Clock::default().nanos()
}
