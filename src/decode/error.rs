//! What can be wrong with a result document, in sentences for a Looker admin.

use super::scan::Fault;

/// Why a document can't be read (further). The delivery has failed: a decoder that has returned
/// an error returns it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem} (byte {offset} of the document, after {rows} complete rows). {}",
    problem.advice()
)]
pub struct DecodeError {
    /// What is wrong.
    #[source]
    pub problem: Problem,
    /// Where: bytes before the place, from the document's start. From a
    /// [`RowParser`](super::RowParser): from the row's start.
    pub offset: u64,
    /// Rows that were complete before the place.
    pub rows: u64,
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No byte came, or only white space.
    #[error("Looker sent an empty document instead of a result")]
    Empty,
    /// The first character is `<`.
    #[error("Looker sent an HTML page instead of a result")]
    Html,
    /// The root is an array: Looker's plain `json` format.
    #[error("the document is a bare list of rows, Looker's plain `json` format")]
    PlainJson,
    /// The root is neither object nor array, or no JSON at all.
    #[error("the document is not a JSON object")]
    NotAnObject,
    /// The bytes ended before the root object did.
    #[error("the document is cut off before its end")]
    Truncated,
    /// Something other than white space after the root object.
    #[error("something follows after the end of the document")]
    Trailing,
    /// The text breaks JSON's grammar.
    #[error("the document is not valid JSON: {0}")]
    Malformed(#[source] Fault),
    /// A row, a key or a kept part of the header is not UTF-8.
    #[error("the document is not valid UTF-8")]
    NotUtf8,
    /// The root object has no `data` list. `reported` holds what its `errors` said.
    #[error("the document has no `data` list{}", reported_by_looker(reported))]
    DataMissing {
        /// Sentences from the document's `errors`.
        reported: Vec<String>,
    },
    /// The root object has two `data` keys.
    #[error("the document has two `data` lists")]
    DuplicateData,
    /// An element of `data` is not an object.
    #[error("row {row} is not an object")]
    NotARow {
        /// 0 for the first row.
        row: u64,
    },
    /// A cell is a bare value, as in Looker's plain `json` format.
    #[error("the cell of column `{column}` in row {row} is a bare value, not an object")]
    NotACell {
        /// 0 for the first row.
        row: u64,
        /// The column's name, shortened.
        column: String,
    },
    /// A row's text passes [`Limits::max_row_bytes`](super::Limits::max_row_bytes).
    #[error("row {row} is larger than {limit} bytes")]
    RowTooLarge {
        /// 0 for the first row.
        row: u64,
        /// The limit.
        limit: usize,
    },
    /// What must be kept of the header passes
    /// [`Limits::max_header_bytes`](super::Limits::max_header_bytes).
    #[error("the document's header (fields, tags, errors, warnings) is larger than {limit} bytes")]
    HeaderTooLarge {
        /// The limit.
        limit: usize,
    },
    /// More fields than [`Limits::max_columns`](super::Limits::max_columns).
    #[error("the document has more than {limit} columns")]
    TooManyColumns {
        /// The limit.
        limit: usize,
    },
    /// `fields`, one of its lists or one of their entries is not what Looker documents.
    #[error("the document's header is not as Looker documents it: {0}")]
    Header(&'static str),
}

impl Problem {
    /// The way out, as a sentence.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Empty => {
                "Send the Look again; if it stays empty, open it in Looker and see whether the query itself fails."
            }
            Self::Html => {
                "This is mostly a login page, an expired download address or a proxy's error page: send the Look again, and if it repeats, check that the daemon reaches Looker without a proxy in between."
            }
            Self::PlainJson | Self::NotACell { .. } => {
                "The format must be `json_detail` or `json_detail_lite_stream`: pick one of these where the schedule or the action asks for a format."
            }
            Self::NotAnObject | Self::NotARow { .. } => {
                "Looker's formats `json_detail` and `json_detail_lite_stream` are what can be read: check the schedule's format and whether the address is Looker's."
            }
            Self::Truncated => {
                "Looker or the network cut the connection, or the query failed while it ran: send the Look again, and if it repeats, look at the query's errors in Looker."
            }
            Self::Malformed(_) | Self::NotUtf8 | Self::Trailing => {
                "The document was damaged on its way or while it was written: send the Look again, and if it repeats, look at the named place of the downloaded file."
            }
            Self::DataMissing { .. } => {
                "Open the Look in Looker and see whether the query itself fails; mend it and send it again."
            }
            Self::DuplicateData | Self::Header(_) => {
                "Send the Look again, and if it repeats, report it with the downloaded file's first kilobytes."
            }
            Self::RowTooLarge { .. } => {
                "Take the very large column out of the Look, or raise the limit of a row's size in the configuration."
            }
            Self::HeaderTooLarge { .. } | Self::TooManyColumns { .. } => {
                "Take columns that are not needed out of the Look and send it again."
            }
        }
    }
}

/// The first of the errors, which is what the admin must act on; shortened, since some hold a query.
fn reported_by_looker(reported: &[String]) -> String {
    let Some(first) = reported.first() else {
        return String::new();
    };
    let first: String = first.chars().take(500).collect();
    format!("; Looker reported: {}", first.trim_end_matches('.'))
}
