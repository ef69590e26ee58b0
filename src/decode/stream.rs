//! The result document: header and rows, in whatever order its keys come.

use std::ops::Range;

use super::Limits;
use super::error::{DecodeError, Problem};
use super::header::{After, HeaderReader, matters};
use super::row::RowReader;
use super::scan::{BYTE_ORDER_MARK, Element, Fault, Scanner, Stuck, is_space};
use crate::model::{Header, Row};

/// Reads one result document. Push a chunk, call [`next`](Self::next) until it asks for bytes, and
/// so on; [`close`](Self::close) when no more come.
#[derive(Debug)]
pub struct Decoder {
    /// What was pushed and is not consumed lies behind `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes of the document before the buffer; wraps below 0 where a chunk has room in front.
    before: u64,
    closed: bool,
    stage: Stage,
    scanner: Scanner,
    header: HeaderReader,
    header_given: bool,
    row: RowReader,
    rows: u64,
    failed: Option<DecodeError>,
}

/// Room in front of a [`Chunk`] for the part of a row that came before it; few rows are longer.
const ROOM: usize = 4 << 10;

/// Bytes of a document in memory that a decoder can take over, so that they need not be copied.
#[derive(Debug, Default)]
pub struct Chunk(Vec<u8>);

impl Chunk {
    /// Puts these bytes in the place of what it held, into the same memory.
    pub fn fill(&mut self, bytes: &[u8]) {
        let needed = ROOM + bytes.len();
        // Memory of much larger parts is not kept for small ones.
        if self.0.capacity() < needed || self.0.capacity() > 2 * needed {
            self.0 = Vec::with_capacity(needed);
        }
        self.0.resize(ROOM, 0);
        self.0.extend_from_slice(bytes);
    }
}

/// What [`Decoder::next`] has found.
#[derive(Debug)]
pub enum Step<'a> {
    /// All that was pushed is read as far as it can be: push more, or close.
    NeedBytes,
    /// `data` came before `fields`: a row as raw JSON (grammar, cells and UTF-8 are checked), to
    /// be read again with [`RowParser`](super::RowParser) once the columns are known.
    EarlyRow(&'a [u8]),
    /// Comes once: when `data` begins and `fields` is known, else when the document has ended.
    /// Call [`Decoder::select`] before the next `next`.
    Header(&'a Header),
    /// A row with a value for each selected column.
    Row(Row<'a>),
    /// The document is complete. Only now are timezone, errors and notes complete, since they may
    /// stand behind the rows.
    End(&'a Header),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first byte that is neither white space nor byte order mark.
    Before,
    /// Outside the rows, also behind the root object.
    Outside,
    /// Between rows.
    Between,
    /// In a row, whose first byte is the first in the buffer.
    InRow,
}

/// [`Step`] by places in the buffer.
enum Found {
    NeedBytes,
    Header,
    Row(Range<usize>),
    End,
}

impl Decoder {
    /// A decoder at the beginning of a document.
    pub fn new(limits: Limits) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            before: 0,
            closed: false,
            stage: Stage::Before,
            scanner: Scanner::new(limits.depth(), 1),
            header: HeaderReader::new(limits),
            header_given: false,
            row: RowReader::new(limits),
            rows: 0,
            failed: None,
        }
    }

    /// Takes the document's next bytes. They are copied: call [`next`](Self::next) until it needs
    /// bytes before the next push, or the buffer grows by every chunk.
    pub fn push(&mut self, bytes: &[u8]) {
        // Only what is left of a row is moved, and it is moved once.
        self.before = self.place(self.start);
        self.buffer.drain(..self.start);
        self.start = 0;
        // The first chunk leaves room for what will be left of a row, so that the next one need not move.
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(bytes.len() + bytes.len() / 16);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Like [`push`](Self::push), but takes the memory over and leaves other memory in its place, to be
    /// filled again. Only what is left of a row is copied.
    pub fn take(&mut self, chunk: &mut Chunk) {
        let left = self.buffer.get(self.start..).unwrap_or_default();
        let start = ROOM.saturating_sub(left.len());
        let room = chunk.0.get_mut(start..ROOM);
        let Some(room) = room.filter(|room| room.len() == left.len()) else {
            return self.push(chunk.0.get(ROOM..).unwrap_or_default());
        };
        room.copy_from_slice(left);
        self.before = self.place(self.start).wrapping_sub(start as u64);
        self.start = start;
        std::mem::swap(&mut self.buffer, &mut chunk.0);
    }

    /// Where in the document a byte of the buffer stands.
    fn place(&self, at: usize) -> u64 {
        self.before.wrapping_add(at as u64)
    }

    /// No more bytes come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The columns that get a value, in this order, from the next row on. None before the first call.
    pub fn select(&mut self, columns: &[&str]) {
        self.row.select(columns);
    }

    /// Complete rows so far, early ones included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next thing in the document.
    ///
    /// # Errors
    /// The document is cut off, damaged, too large or none at all; see [`Problem`]. The same error
    /// comes again on further calls. Rows that were given before are good rows of a delivery that
    /// has failed.
    // An iterator could not lend rows out of the buffer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Step<'_>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let range = match self.find() {
            Ok(Found::NeedBytes) => return Ok(Step::NeedBytes),
            Ok(Found::Header) => return Ok(Step::Header(&self.header.header)),
            Ok(Found::End) => return Ok(Step::End(&self.header.header)),
            Ok(Found::Row(range)) => range,
            Err(error) => {
                self.failed = Some(error.clone());
                return Err(error);
            }
        };
        let bytes = self.buffer.get(range.clone()).unwrap_or_default();
        match super::plain::utf8(bytes) {
            Ok(text) => {
                let number = self.rows;
                self.rows += 1;
                Ok(if self.header_given {
                    Step::Row(Row::new(text, self.row.cells(), number))
                } else {
                    Step::EarlyRow(bytes)
                })
            }
            Err(error) => {
                let error = DecodeError {
                    problem: Problem::NotUtf8,
                    offset: self.place(range.start + error.valid_up_to()),
                    rows: self.rows,
                };
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn find(&mut self) -> Result<Found, DecodeError> {
        loop {
            let found = match self.stage {
                Stage::Before => self.before_root()?,
                Stage::Outside => self.outside()?,
                Stage::Between => self.between()?,
                Stage::InRow => self.in_row()?,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Looks at the first character, which tells the usual mishaps from a result.
    fn before_root(&mut self) -> Result<Option<Found>, DecodeError> {
        let rest = self.rest();
        let mark = match rest {
            _ if self.place(self.start) > 0 => 0,
            _ if rest.starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
            _ if BYTE_ORDER_MARK.starts_with(rest) && !self.closed => {
                return Ok(Some(Found::NeedBytes));
            }
            _ => 0,
        };
        let text = rest.get(mark..).unwrap_or_default();
        let spaces = text.iter().take_while(|&&byte| is_space(byte)).count();
        let first = text.get(spaces).copied();
        self.start += mark + spaces;
        match first {
            Some(b'{' | b'[') => self.stage = Stage::Outside,
            Some(b'<') => return Err(self.wrong(0, Problem::Html)),
            Some(_) => return Err(self.wrong(0, Problem::NotAnObject)),
            None if self.closed => return Err(self.wrong(0, Problem::Empty)),
            None => return Ok(Some(Found::NeedBytes)),
        }
        Ok(None)
    }

    fn outside(&mut self) -> Result<Option<Found>, DecodeError> {
        let bytes = self.buffer.get(self.start..).unwrap_or_default();
        // Most of a header: some fifty keys of each column, of which three matter.
        let passed = match self.header.keeps() {
            true => 0,
            false => self.scanner.pass_over(bytes, matters),
        };
        self.start += passed;
        let bytes = bytes.get(passed..).unwrap_or_default();
        let (used, seen) = match self.scanner.step(bytes) {
            Ok(step) => step,
            Err(stuck) => return Err(self.stuck(stuck)),
        };
        let bytes = bytes.get(..used).unwrap_or_default();
        let last = bytes.last().copied().unwrap_or_default();
        let taken = self.header.take(bytes);
        self.start += used;
        if let Err(problem) = taken {
            return Err(self.wrong(0, problem));
        }
        let Some(seen) = seen else {
            return self.out_of_bytes().map(Some);
        };
        match self.header.on(seen, last, self.scanner.escaped()) {
            Ok(After::Nothing) => {}
            Ok(After::Watch(depth)) => self.scanner.watch(depth),
            Ok(After::Mute) => self.scanner.mute_value(),
            Ok(After::Rows) => {
                self.stage = Stage::Between;
                if self.header.fields_known {
                    self.header_given = true;
                    return Ok(Some(Found::Header));
                }
            }
            Err(problem) => {
                self.start -= used.min(1);
                return Err(self.wrong(0, problem));
            }
        }
        Ok(None)
    }

    fn between(&mut self) -> Result<Option<Found>, DecodeError> {
        let bytes = self.buffer.get(self.start..).unwrap_or_default();
        let (used, element) = match self.scanner.next_element(bytes) {
            Ok(next) => next,
            Err(stuck) => return Err(self.stuck(stuck)),
        };
        self.start += used;
        match element {
            Some(Element::Item) => self.stage = Stage::InRow,
            Some(Element::Close) => self.stage = Stage::Outside,
            None => return self.out_of_bytes().map(Some),
        }
        Ok(None)
    }

    fn in_row(&mut self) -> Result<Option<Found>, DecodeError> {
        let bytes = self.buffer.get(self.start..).unwrap_or_default();
        let read = match self.closed {
            false => self.row.read(bytes),
            true => self.row.read_last(bytes),
        };
        match read {
            Ok(Some(length)) => {
                let range = self.start..self.start + length;
                self.start = range.end;
                self.scanner.read_elsewhere();
                self.stage = Stage::Between;
                Ok(Some(Found::Row(range)))
            }
            Ok(None) if self.closed => {
                let length = bytes.len();
                Err(self.wrong(length, Problem::Truncated))
            }
            Ok(None) => Ok(Some(Found::NeedBytes)),
            Err(wrong) => Err(self.wrong(wrong.at, wrong.problem(self.rows))),
        }
    }

    /// All bytes outside rows are consumed: what that means depends on where we are.
    fn out_of_bytes(&mut self) -> Result<Found, DecodeError> {
        if !self.closed {
            return Ok(Found::NeedBytes);
        }
        if !self.scanner.done() {
            return Err(self.wrong(0, Problem::Truncated));
        }
        if !self.header.data_seen {
            let reported = self.header.header.errors.clone();
            return Err(self.wrong(0, Problem::DataMissing { reported }));
        }
        if !self.header_given {
            self.header_given = true;
            return Ok(Found::Header);
        }
        Ok(Found::End)
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn stuck(&self, Stuck { at, fault }: Stuck) -> DecodeError {
        let problem = match fault {
            Fault::Trailing => Problem::Trailing,
            _ => Problem::Malformed(fault),
        };
        self.wrong(at, problem)
    }

    fn wrong(&self, at: usize, problem: Problem) -> DecodeError {
        DecodeError {
            problem,
            offset: self.place(self.start + at),
            rows: self.rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `chunk` `times` times and returns how many rows came.
    fn feed(decoder: &mut Decoder, chunk: &[u8], times: usize) -> u64 {
        let mut rows = 0;
        for _ in 0..times {
            decoder.push(chunk);
            loop {
                match decoder.next().unwrap() {
                    Step::NeedBytes => break,
                    Step::Row(_) | Step::EarlyRow(_) => rows += 1,
                    Step::Header(_) => {}
                    Step::End(_) => panic!("the document has not ended"),
                }
            }
        }
        rows
    }

    #[test]
    fn the_buffer_stays_small_whatever_the_size_of_the_document() {
        let mut decoder = Decoder::new(Limits::default());
        feed(&mut decoder, b"{\"applied_filters\": {\"x\": [", 1);
        feed(&mut decoder, b"{\"data\": [\"0123456789\", {}]}, ", 10_000);
        feed(&mut decoder, b"\"", 1);
        feed(
            &mut decoder,
            b"a string that is longer than the chunk ",
            10_000,
        );
        feed(
            &mut decoder,
            b"\"]}, \"fields\": {\"dimensions\": [{\"name\": \"a\", \"sql\": \"",
            1,
        );
        feed(&mut decoder, b"select ", 10_000);
        feed(&mut decoder, b"\"}]}, \"", 1);
        feed(&mut decoder, b"a key that is longer than the chunk", 10_000);
        feed(&mut decoder, b"\": 0, \"data\": [{}", 1);
        let rows = feed(&mut decoder, b", {\"a\": {\"value\": 1}}", 10_000);
        assert_eq!(rows, 10_000);
        assert!(
            decoder.buffer.capacity() < 1_000,
            "{}",
            decoder.buffer.capacity()
        );
    }

    #[test]
    fn what_is_kept_of_a_header_is_whole_wherever_the_bytes_are_cut() {
        let said = r#"{"code":{"a":"1","b":"2","c":null,"d":"4"}}"#;
        let document = format!("{{\"errors\":[{said}],\"fields\":{{}},\"data\":[]}}");
        for cut in 0..document.len() {
            let mut decoder = Decoder::new(Limits::default());
            let (before, after) = document.as_bytes().split_at(cut);
            let mut parts = [before, after].into_iter();
            let errors = loop {
                match decoder.next().unwrap() {
                    Step::NeedBytes => match parts.next() {
                        Some(part) => decoder.push(part),
                        None => decoder.close(),
                    },
                    Step::End(header) => break header.errors.clone(),
                    _ => {}
                }
            };
            assert_eq!(errors, [said], "cut at {cut}");
        }
    }

    #[test]
    fn chunks_that_are_taken_over_read_as_those_that_are_copied() {
        let mut document = b"{\"fields\":{\"dimensions\":[{\"name\":\"a\"}]},\"data\":[".to_vec();
        for row in 0..40usize {
            let text = "x".repeat(row * row * 20);
            document.extend_from_slice(format!("{{\"a\":{{\"value\":\"{text}\"}}}},").as_bytes());
        }
        // Damaged at the end, so that the place of the error is compared too.
        document.extend_from_slice(b"{\"a\":!");
        let read = |size: usize, take: fn(usize) -> bool| {
            let mut decoder = Decoder::new(Limits::default());
            let mut rows = Vec::new();
            let mut chunk = Chunk::default();
            for (number, part) in document.chunks(size).enumerate() {
                if take(number) {
                    chunk.fill(part);
                    decoder.take(&mut chunk);
                } else {
                    decoder.push(part);
                }
                loop {
                    match decoder.next() {
                        Ok(Step::NeedBytes) => break,
                        Ok(Step::Header(_)) => decoder.select(&["a"]),
                        Ok(Step::Row(row)) => rows.push(row.text().to_owned()),
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => return (rows, error),
                    }
                }
            }
            panic!("the damage was not seen");
        };
        let want = read(document.len(), |_| false);
        assert_eq!(want.0.len(), 40);
        assert_eq!(want.1.offset, document.len() as u64 - 1);
        for size in [
            1,
            7,
            100,
            ROOM - 1,
            ROOM,
            ROOM + 1,
            3 * ROOM,
            document.len(),
        ] {
            assert_eq!(read(size, |_| true), want, "{size}");
            assert_eq!(read(size, |number| number % 2 == 0), want, "{size}");
        }
    }

    #[test]
    fn a_row_larger_than_the_limit_is_refused_before_it_has_come() {
        let limits = Limits {
            max_row_bytes: 1_000,
            ..Limits::default()
        };
        let mut decoder = Decoder::new(limits);
        decoder.push(b"{\"data\": [{\"a\": {\"value\": \"");
        let mut pushed = 0;
        let error = loop {
            match decoder.next() {
                Err(error) => break error,
                Ok(_) => {
                    decoder.push(&[b'x'; 100]);
                    pushed += 100;
                }
            }
        };
        assert_eq!(
            error.problem,
            Problem::RowTooLarge {
                row: 0,
                limit: 1_000
            }
        );
        assert!(pushed <= 1_100, "{pushed}");
    }
}
