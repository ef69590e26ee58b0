//! One row: by the layout of the row before, else walked key by key.

use std::borrow::Cow;
use std::collections::HashMap;

use super::error::{DecodeError, Problem};
use super::layout::{Layout, Stop, UNSELECTED, put};
use super::scan::{Event, Kind, Scanner, Stuck};
use super::{Limits, scan};
use crate::model::{Cell, CellKind, Row, Text};

/// Containers around a row in its document: the root object and `data`.
const AROUND_ROW: usize = 2;
/// Containers around a cell's value, seen from the row: the row and the cell.
const AROUND_VALUE: usize = 2;

/// Reads complete rows that came out of a [`Decoder`](super::Decoder) as
/// [`Step::EarlyRow`](super::Step::EarlyRow), once the columns are known.
#[derive(Debug)]
pub struct RowParser {
    reader: RowReader,
}

impl RowParser {
    /// Rows will have one value for each of `columns`, in this order.
    pub fn new(limits: Limits, columns: &[&str]) -> Self {
        let mut reader = RowReader::new(limits);
        reader.select(columns);
        Self { reader }
    }

    /// Reads the row that is all of `json`, white space around it tolerated.
    ///
    /// # Errors
    /// What [`Decoder::next`](super::Decoder::next) says of such a row; offsets are counted from
    /// the row's start.
    pub fn parse<'a>(
        &'a mut self,
        json: &'a [u8],
        row_number: u64,
    ) -> Result<Row<'a>, DecodeError> {
        let fail = |wrong: Wrong| DecodeError {
            offset: wrong.at as u64,
            rows: row_number,
            problem: wrong.problem(row_number),
        };
        self.reader.begin();
        let spaces = json.iter().take_while(|&&byte| scan::is_space(byte));
        let start = spaces.count();
        let row = json.get(start..).unwrap_or_default();
        let length = match self.reader.read_last(row) {
            Ok(Some(length)) => length,
            Ok(None) => return Err(fail(Wrong::at(json.len(), What::Truncated))),
            Err(wrong) => {
                return Err(fail(Wrong {
                    at: wrong.at + start,
                    ..wrong
                }));
            }
        };
        let (row, rest) = row.split_at(length.min(row.len()));
        if let Some(at) = rest.iter().position(|&byte| !scan::is_space(byte)) {
            return Err(fail(Wrong::at(start + length + at, What::Trailing)));
        }
        match std::str::from_utf8(row) {
            Ok(text) => Ok(Row::new(text, self.reader.cells(), row_number)),
            Err(error) => Err(fail(Wrong::at(start + error.valid_up_to(), What::NotUtf8))),
        }
    }
}

/// Reads one row after the other into the same cells.
#[derive(Debug)]
pub(super) struct RowReader {
    columns: HashMap<String, u32>,
    /// Slots of columns that were selected twice, and the slot that is filled.
    twins: Vec<(usize, usize)>,
    cells: Vec<Cell>,
    layout: Layout,
    /// A walk that waits for more bytes.
    walk: Option<Walk>,
    /// With fewer bytes of the row than this, it is not worth while to try the layout again.
    retry_from: usize,
    max_bytes: usize,
    max_depth: usize,
}

/// What is wrong with a row, and where, from its first byte.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    Malformed(scan::Fault),
    NotARow,
    NotACell(String),
    NotUtf8,
    TooLarge(usize),
    Truncated,
    Trailing,
}

impl RowReader {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            columns: HashMap::new(),
            twins: Vec::new(),
            cells: Vec::new(),
            layout: Layout::default(),
            walk: None,
            retry_from: 0,
            max_bytes: limits.max_row_bytes.min(u32::MAX as usize),
            max_depth: limits.depth() - AROUND_ROW,
        }
    }

    /// Which columns get a cell, from the next row on.
    pub(super) fn select(&mut self, columns: &[&str]) {
        self.columns.clear();
        self.twins.clear();
        self.layout.forget();
        self.begin();
        self.cells = vec![Cell::default(); columns.len()];
        for (slot, &name) in columns.iter().enumerate() {
            // A slot that has no number of its own cannot be filled; 4 billion columns cannot be.
            let number = u32::try_from(slot).unwrap_or(UNSELECTED);
            match self.columns.get(name) {
                Some(&first) => self.twins.push((slot, first as usize)),
                None => {
                    self.columns.insert(name.to_owned(), number);
                }
            }
        }
    }

    /// Cells of the row that was read last.
    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Forgets a row that was not read to its end.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.walk = None;
        self.retry_from = 0;
    }

    /// Reads the row that begins with the first of `bytes`: its length, or `None` when they end
    /// before it does. Then call again with the same bytes and more.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Wrong> {
        if self.walk.is_some() {
            return self.walk_on(bytes);
        }
        let depth = self.max_depth - AROUND_VALUE;
        match self.layout.read(bytes, &mut self.cells, depth) {
            Ok(length) => return self.finish(length).map(Some),
            // The layout is tried again when it pays: each time on twice the bytes or more, so that
            // the work stays in proportion to the bytes. Else the walk goes on with every chunk.
            Err(Stop::Short) if bytes.len() >= self.retry_from && bytes.len() <= self.max_bytes => {
                self.retry_from = bytes.len().saturating_mul(2).max(1);
                return Ok(None);
            }
            Err(Stop::Short) => self.begin_walk(false),
            Err(Stop::Differs) => self.begin_walk(true),
        }
        self.walk_on(bytes)
    }

    /// As [`read`](Self::read), when no more bytes come: `None` is final, and no fault is missed
    /// for waiting.
    pub(super) fn read_last(&mut self, bytes: &[u8]) -> Result<Option<usize>, Wrong> {
        match self.read(bytes)? {
            // With no more bytes than before, the second call walks.
            None => self.read(bytes),
            whole => Ok(whole),
        }
    }

    /// Learns the layout again only when it was not the end of the bytes that stopped it.
    fn begin_walk(&mut self, learn: bool) {
        self.cells.fill(Cell::default());
        if learn {
            self.layout.forget();
        }
        self.walk = Some(Walk::new(self.max_depth, learn));
    }

    fn walk_on(&mut self, bytes: &[u8]) -> Result<Option<usize>, Wrong> {
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        // Nothing behind the limit is looked at, so that the same fault is found however the bytes came.
        let bytes = bytes.get(..=self.max_bytes).unwrap_or(bytes);
        let mut row = Parts {
            bytes,
            columns: &self.columns,
            cells: &mut self.cells,
            layout: &mut self.layout,
        };
        if walk.go(&mut row)? {
            let length = walk.at;
            return self.finish(length).map(Some);
        }
        if walk.at > self.max_bytes {
            return Err(Wrong::at(self.max_bytes, What::TooLarge(self.max_bytes)));
        }
        Ok(None)
    }

    #[inline]
    fn finish(&mut self, length: usize) -> Result<usize, Wrong> {
        self.begin();
        if length > self.max_bytes {
            return Err(Wrong::at(self.max_bytes, What::TooLarge(self.max_bytes)));
        }
        for &(twin, first) in &self.twins {
            let cell = self.cells.get(first).copied().unwrap_or_default();
            if let Some(twin) = self.cells.get_mut(twin) {
                *twin = cell;
            }
        }
        Ok(length)
    }
}

impl Wrong {
    fn at(at: usize, what: What) -> Self {
        Self { at, what }
    }

    pub(super) fn problem(self, row: u64) -> Problem {
        match self.what {
            What::Malformed(fault) => Problem::Malformed(fault),
            What::NotARow => Problem::NotARow { row },
            What::NotACell(column) => Problem::NotACell { row, column },
            What::NotUtf8 => Problem::NotUtf8,
            What::TooLarge(limit) => Problem::RowTooLarge { row, limit },
            What::Truncated => Problem::Truncated,
            What::Trailing => Problem::Trailing,
        }
    }
}

/// A row's bytes so far, and what a walk over them fills.
struct Parts<'a> {
    bytes: &'a [u8],
    columns: &'a HashMap<String, u32>,
    cells: &'a mut [Cell],
    layout: &'a mut Layout,
}

/// The walk over one row; places are counted from the row's first byte.
#[derive(Debug)]
struct Walk {
    scanner: Scanner,
    at: usize,
    /// First byte of the last key or value, behind the quote of a string.
    start: usize,
    kind: Kind,
    /// The cell we are in.
    slot: u32,
    cell_start: usize,
    /// Whether the last key in the cell was `value`, and what the last such key had.
    in_value: bool,
    value: Seen,
    /// Whether the last key in the cell was `error`, and whether one has said something.
    in_error: bool,
    failed: bool,
    learn: bool,
    /// What lies before this is in the layout.
    learned: usize,
}

/// The value of a cell, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    None,
    Null,
    Some,
}

impl Walk {
    fn new(max_depth: usize, learn: bool) -> Self {
        Self {
            scanner: Scanner::new(max_depth, AROUND_VALUE),
            at: 0,
            start: 0,
            kind: Kind::Null,
            slot: UNSELECTED,
            cell_start: 0,
            in_value: false,
            value: Seen::None,
            in_error: false,
            failed: false,
            learn,
            learned: 0,
        }
    }

    /// Whether the row has ended.
    fn go(&mut self, row: &mut Parts<'_>) -> Result<bool, Wrong> {
        loop {
            let rest = row.bytes.get(self.at..).unwrap_or_default();
            let (used, seen) = self
                .scanner
                .step(rest)
                .map_err(|Stuck { at, fault }| Wrong::at(self.at + at, What::Malformed(fault)))?;
            self.at += used;
            let Some(seen) = seen else {
                return Ok(false);
            };
            match seen.depth {
                0 => match seen.event {
                    Event::ValueBegin(Kind::Object) => {}
                    Event::ValueEnd => {
                        self.finish(row);
                        return Ok(true);
                    }
                    _ => return Err(Wrong::at(self.at - 1, What::NotARow)),
                },
                1 => self.on_cell(row, seen.event)?,
                _ => self.on_member(row, seen.event)?,
            }
        }
    }

    /// A column's name, or a cell's first or last byte.
    fn on_cell(&mut self, row: &mut Parts<'_>, event: Event) -> Result<(), Wrong> {
        match event {
            Event::KeyBegin => self.start = self.at,
            Event::KeyEnd => {
                let name = self.key(row.bytes)?;
                self.slot = row.columns.get(&*name).copied().unwrap_or(UNSELECTED);
            }
            Event::ValueBegin(Kind::Object) => {
                self.cell_start = self.at - 1;
                self.value = Seen::None;
                self.failed = false;
            }
            Event::ValueBegin(_) => {
                let column = self.column(row.bytes);
                return Err(Wrong::at(self.at - 1, What::NotACell(column)));
            }
            Event::ValueEnd if self.failed && self.value != Seen::Some => {
                self.set(row, CellKind::Failed, self.cell_start, self.at);
            }
            Event::ValueEnd if self.value == Seen::None => {
                self.set(row, CellKind::Pivoted, self.cell_start, self.at);
                self.unlearn(row);
            }
            Event::ValueEnd => {}
        }
        Ok(())
    }

    /// A key in a cell, or the first or last byte of its value.
    fn on_member(&mut self, row: &mut Parts<'_>, event: Event) -> Result<(), Wrong> {
        match event {
            Event::KeyBegin => self.start = self.at,
            Event::KeyEnd => {
                let key = self.key(row.bytes)?;
                self.in_value = key == "value";
                self.in_error = key == "error";
                if self.in_error {
                    self.unlearn(row);
                }
            }
            Event::ValueBegin(kind) => {
                self.kind = kind;
                self.start = self.at - usize::from(kind != Kind::String);
            }
            Event::ValueEnd => self.on_value(row),
        }
        Ok(())
    }

    fn on_value(&mut self, row: &mut Parts<'_>) {
        let quote = usize::from(self.kind == Kind::String);
        // An object is a pivot that is called so.
        self.failed |= self.in_error && !matches!(self.kind, Kind::Null | Kind::Object);
        if self.in_value {
            self.value = match self.kind {
                Kind::Null => Seen::Null,
                _ => Seen::Some,
            };
            let kind = match self.kind {
                Kind::Object => CellKind::Object,
                Kind::Array => CellKind::List,
                Kind::Number => CellKind::Number,
                Kind::True => CellKind::True,
                Kind::False => CellKind::False,
                Kind::Null => CellKind::Null,
                Kind::String if self.scanner.escaped() => CellKind::Escaped,
                Kind::String => CellKind::Plain,
            };
            self.set(row, kind, self.start, self.at - quote);
        }
        if self.learn {
            let slot = if self.in_value { self.slot } else { UNSELECTED };
            let glue = row.bytes.get(self.learned..self.start - quote);
            row.layout.learn(glue.unwrap_or_default(), slot);
            self.learned = self.at;
        }
    }

    /// A layout fills cells with values, not with whole cells: rows that have such are walked.
    fn unlearn(&mut self, row: &mut Parts<'_>) {
        if self.learn && self.slot != UNSELECTED {
            row.layout.forget();
            self.learn = false;
        }
    }

    fn finish(&mut self, row: &mut Parts<'_>) {
        if self.learn {
            let glue = row.bytes.get(self.learned..self.at);
            row.layout.finish(glue.unwrap_or_default(), row.cells.len());
        }
    }

    fn set(&self, row: &mut Parts<'_>, kind: CellKind, start: usize, end: usize) {
        let (start, end) = (start as u32, end as u32);
        put(row.cells, self.slot, Cell { kind, start, end });
    }

    /// The key that ended with the last byte.
    fn key<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>, Wrong> {
        let raw = bytes.get(self.start..self.at - 1).unwrap_or_default();
        let escaped = self.scanner.escaped();
        match std::str::from_utf8(raw) {
            Ok(raw) => Ok(Text { raw, escaped }.decoded()),
            Err(error) => Err(Wrong::at(self.start + error.valid_up_to(), What::NotUtf8)),
        }
    }

    /// The name of the column whose cell begins with the last byte, for a message.
    fn column(&self, bytes: &[u8]) -> String {
        let raw = bytes.get(self.start..self.at).unwrap_or_default();
        let name = raw.split(|&byte| byte == b'"').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        name.chars().take(100).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether rows after this one are read by its layout.
    fn learned(row: &str, columns: &[&str]) -> bool {
        let mut reader = RowReader::new(Limits::default());
        reader.select(columns);
        assert_eq!(reader.read(row.as_bytes()).unwrap(), Some(row.len()));
        let mut cells = vec![Cell::default(); columns.len()];
        reader.layout.read(row.as_bytes(), &mut cells, 60) == Ok(row.len()) && cells == reader.cells
    }

    #[test]
    fn a_walked_row_teaches_its_layout() {
        let columns = ["a", "b", "none"];
        for row in [
            "{}",
            r#"{"a":{"value":1}}"#,
            r#"{ "b" : { "rendered" : "1" , "value" : "1" , "links" : [ { } ] } , "a" : { "value" : [1] } }"#,
            r#"{"x":{"p":{"value":1}},"a":{"value":null}}"#,
        ] {
            assert!(learned(row, &columns), "{row}");
        }
        assert!(!learned(r#"{"a":{"p":{"value":1}}}"#, &columns));
    }

    #[test]
    fn a_row_that_comes_in_pieces_is_still_read_by_its_layout() {
        let row = br#"{"a":{"value":"some text"}}"#;
        let mut reader = RowReader::new(Limits::default());
        reader.select(&["a"]);
        assert_eq!(reader.read(row).unwrap(), Some(row.len()));
        assert_eq!(reader.read(&row[..10]).unwrap(), None);
        assert!(reader.walk.is_none());
        assert_eq!(reader.read(&row[..12]).unwrap(), None);
        assert!(reader.walk.is_some(), "too little more: walked");
        assert_eq!(reader.read(row).unwrap(), Some(row.len()));
        assert_eq!(reader.read(&row[..10]).unwrap(), None);
        assert_eq!(reader.read(row).unwrap(), Some(row.len()));
        assert_eq!(reader.cells()[0].kind, CellKind::Plain);
    }

    #[test]
    fn a_value_of_the_row_before_is_not_taken_for_one_that_a_row_does_not_have() {
        let (without, with) = (
            br#"{"a":{"value":1}}"#,
            br#"{"a":{"value":1},"b":{"value":2}}"#,
        );
        let mut reader = RowReader::new(Limits::default());
        reader.select(&["a", "b"]);
        assert_eq!(reader.read(without).unwrap(), Some(without.len()));
        // It ends where the layout still fits, so that it is walked and the layout stays.
        for end in [4, 5, with.len()] {
            let read = reader.read(&with[..end]).unwrap();
            assert_eq!(read, (end == with.len()).then_some(end));
        }
        assert_eq!(reader.cells()[1].kind, CellKind::Number);
        assert_eq!(reader.read(without).unwrap(), Some(without.len()));
        assert_eq!(reader.cells()[1].kind, CellKind::Absent);
        assert_eq!(reader.cells()[0].kind, CellKind::Number);
    }
}
