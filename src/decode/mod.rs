//! Reads Looker's result documents and execute requests while they arrive. No I/O, no clock: bytes
//! are pushed in, rows are asked for.
//!
//! ```text
//! Envelope   the execute request: small sections whole, the attachment's document piece by piece
//! Decoder    the result document: header, then rows; rows before `fields` come out as raw JSON
//! RowParser  reads such early rows again once the columns are known
//! ```
//!
//! How a row is read. `layout` keeps the bytes between the values of the last row that was walked
//! (`{"a":{"value":` … `},"b":{"value":` … `}}`) and expects them again: one comparison and one scan
//! for the end of the value per cell. Where the row differs, or the buffer ends, `row` walks the
//! same row from its beginning on `scan`, the one place that knows JSON's grammar and that can
//! stop at any byte. Each byte of a row is thus looked at no more than a fixed number of times, however
//! the stream is cut, and all errors come from the walk.
//!
//! What is enforced: JSON's grammar (RFC 8259) everywhere, also in what is skipped; UTF-8 in what is
//! handed on (rows, keys, the kept parts of the header), not inside skipped header values. A lone
//! surrogate escape is grammar, so it passes. A byte order mark before the document is tolerated.
//! Of duplicate keys the last wins, except the root's `data`: two of them are an error.

mod envelope;
mod error;
mod header;
mod layout;
mod plain;
mod row;
mod scan;
mod sentences;
mod stream;
mod unescape;

pub use envelope::{
    AttachmentForm, Envelope, EnvelopeError, EnvelopeLimits, EnvelopeProblem, Part,
};
pub use error::{DecodeError, Problem};
pub use row::RowParser;
pub use scan::Fault;
pub use stream::{Chunk, Decoder, Step};

/// What a result document may cost before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects inside each other, the root included. Held between 8 and 128.
    pub max_depth: usize,
    /// Bytes of one row's JSON text, at most `u32::MAX`. The decoder's buffer holds one such row
    /// and one pushed chunk.
    pub max_row_bytes: usize,
    /// Bytes of all that is kept of the document outside its rows: names, tags, errors, warnings.
    pub max_header_bytes: usize,
    /// Entries of `fields.dimensions`, `measures`, `table_calculations` and `pivots` together.
    pub max_columns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_row_bytes: 16 << 20,
            max_header_bytes: 16 << 20,
            max_columns: 5_000,
        }
    }
}

impl Limits {
    /// `max_depth` held to what the scanner can count and a row needs.
    fn depth(&self) -> usize {
        self.max_depth.clamp(8, 128)
    }
}
