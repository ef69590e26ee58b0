//! The layout of the last walked row: what stood between its values.
//!
//! Looker writes every row with the same keys in the same order and the same white space, so the
//! bytes between two values are nearly always those of the row before. They were checked when the
//! layout was learned; what is equal to them is valid for the same reason.

use wide::u8x32;

use super::plain::{digit_run, plain_run};
use super::scan::Scanner;
use crate::model::{Cell, CellKind};

/// A hole whose value is checked and not kept.
pub(super) const UNSELECTED: u32 = u32::MAX;

/// What stands between the values of a row, and where the values go.
#[derive(Debug, Default)]
pub(super) struct Layout {
    parts: Vec<Part>,
    /// Slots that no value goes to.
    absent: Vec<u32>,
    ready: bool,
}

/// Bytes that every row has, and perhaps a value behind them. Longer ones are several parts.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The bytes, and zeros behind them.
    glue: [u8; BLOCK],
    length: usize,
    /// One bit for each byte of the block that is not glue.
    beyond: u32,
    value: Behind,
}

/// What stands behind a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A value, and the slot of its cell.
    Value(u32),
    /// The next part, or the end.
    Nothing,
}

/// Bytes that are compared at a time.
const BLOCK: usize = 32;
/// Bytes of the quotes around a string.
const QUOTES: usize = 2;

/// Why a row is not read by the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The same as far as it goes; the bytes end within the row.
    Short,
    /// Something is different, or wrong: it must be walked.
    Differs,
}

impl Layout {
    /// Nothing is known; the next row must be walked.
    pub(super) fn forget(&mut self) {
        self.parts.clear();
        self.ready = false;
    }

    /// A value with `glue` before it.
    pub(super) fn learn(&mut self, glue: &[u8], slot: u32) {
        self.add(glue, Behind::Value(slot));
    }

    /// The row's last bytes; the layout can be used from now on, for so many slots.
    pub(super) fn finish(&mut self, glue: &[u8], slots: usize) {
        self.add(glue, Behind::Nothing);
        self.absent.clear();
        self.absent.extend(0..slots as u32);
        for part in &self.parts {
            if let Behind::Value(slot) = part.value
                && let Some(filled) = self.absent.get_mut(slot as usize)
            {
                *filled = UNSELECTED;
            }
        }
        self.absent.retain(|slot| *slot != UNSELECTED);
        self.ready = true;
    }

    fn add(&mut self, glue: &[u8], value: Behind) {
        let (mut blocks, mut last) = glue.as_chunks::<BLOCK>();
        if last.is_empty()
            && let Some((block, before)) = blocks.split_last()
        {
            (blocks, last) = (before, block);
        }
        let blocks = blocks.iter().map(|block| Part::new(block, Behind::Nothing));
        self.parts.extend(blocks);
        self.parts.push(Part::new(last, value));
    }

    /// Reads the row at the beginning of `bytes`, fills the cells and returns its length. `max_depth` is
    /// what a value may nest.
    pub(super) fn read(
        &self,
        bytes: &[u8],
        cells: &mut [Cell],
        max_depth: usize,
    ) -> Result<usize, Stop> {
        if !self.ready {
            return Err(Stop::Differs);
        }
        for slot in &self.absent {
            put(cells, *slot, Cell::default());
        }
        let mut rest = bytes;
        for part in &self.parts {
            rest = part.pass(rest)?;
            if let Behind::Value(slot) = part.value {
                let at = bytes.len() - rest.len();
                let (kind, length) = value(rest, max_depth)?;
                rest = rest.get(length..).ok_or(Stop::Short)?;
                put(cells, slot, cell(kind, at, at + length));
            }
        }
        Ok(bytes.len() - rest.len())
    }
}

impl Part {
    /// Of one block at most.
    fn new(glue: &[u8], value: Behind) -> Self {
        let mut block = [0; BLOCK];
        let mut beyond = u32::MAX;
        for (place, byte) in block.iter_mut().zip(glue) {
            *place = *byte;
            beyond <<= 1;
        }
        Self {
            glue: block,
            length: glue.len().min(BLOCK),
            beyond,
            value,
        }
    }

    /// What stands behind the glue, when `bytes` begin with it.
    #[inline]
    fn pass<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Stop> {
        match bytes.first_chunk::<BLOCK>() {
            Some(found) => {
                let equal = u8x32::new(*found).simd_eq(u8x32::new(self.glue));
                if equal.to_bitmask() | self.beyond != u32::MAX {
                    return Err(Stop::Differs);
                }
            }
            None => expect(bytes, self.glue.get(..self.length).unwrap_or_default())?,
        }
        bytes.get(self.length..).ok_or(Stop::Short)
    }
}

/// Whether `bytes` begin with `text`.
#[inline(never)]
fn expect(bytes: &[u8], text: &[u8]) -> Result<(), Stop> {
    match bytes.starts_with(text) {
        true => Ok(()),
        false if text.starts_with(bytes) => Err(Stop::Short),
        false => Err(Stop::Differs),
    }
}

/// The kind of the value that `bytes` begin with, and its length.
#[inline]
fn value(bytes: &[u8], max_depth: usize) -> Result<(CellKind, usize), Stop> {
    match *bytes {
        [b'"', ref text @ ..] => string(text),
        [b'-' | b'0'..=b'9', ..] => number(bytes).map(|length| (CellKind::Number, length)),
        [_, ..] => other(bytes, max_depth),
        [] => Err(Stop::Short),
    }
}

/// The same of what is neither a string nor a number.
#[inline(never)]
fn other(bytes: &[u8], max_depth: usize) -> Result<(CellKind, usize), Stop> {
    Ok(match bytes.first() {
        Some(b'n') => (CellKind::Null, word(bytes, b"null")?),
        Some(b't') => (CellKind::True, word(bytes, b"true")?),
        Some(b'f') => (CellKind::False, word(bytes, b"false")?),
        Some(b'{') => (CellKind::Object, container(bytes, max_depth)?),
        Some(b'[') => (CellKind::List, container(bytes, max_depth)?),
        _ => return Err(Stop::Differs),
    })
}

fn word(bytes: &[u8], word: &[u8]) -> Result<usize, Stop> {
    expect(bytes, word).map(|()| word.len())
}

/// The cell of a value with its quotes, if it has some. Rows are shorter than 4 GiB, see `RowReader::new`.
#[inline]
fn cell(kind: CellKind, start: usize, end: usize) -> Cell {
    let quote = usize::from(matches!(kind, CellKind::Plain | CellKind::Escaped));
    let (start, end) = ((start + quote) as u32, (end - quote) as u32);
    Cell { kind, start, end }
}

/// Fills the cell of a slot, if it is one.
#[inline]
pub(super) fn put(cells: &mut [Cell], slot: u32, filled: Cell) {
    if let Some(cell) = cells.get_mut(slot as usize) {
        *cell = filled;
    }
}

/// Of the string whose first quote stands before `text`.
#[inline]
fn string(text: &[u8]) -> Result<(CellKind, usize), Stop> {
    let length = plain_run(text);
    match text.get(length) {
        Some(b'"') => Ok((CellKind::Plain, length + QUOTES)),
        Some(b'\\') => escaped(text, length).map(|length| (CellKind::Escaped, length + QUOTES)),
        Some(_) => Err(Stop::Differs),
        None => Err(Stop::Short),
    }
}

/// The place of the last quote of a string with an escape at `at`.
#[inline(never)]
fn escaped(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        match text.get(at).ok_or(Stop::Short)? {
            b'"' => return Ok(at),
            b'\\' => at += escape(text, at)?,
            _ => return Err(Stop::Differs),
        }
        at += plain_run(text.get(at..).ok_or(Stop::Short)?);
    }
}

/// Bytes of the escape sequence at `at`.
fn escape(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match bytes.get(at + 1).ok_or(Stop::Short)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(2),
        b'u' => {
            let hex = bytes.get(at + 2..at + 6).ok_or(Stop::Short)?;
            let valid = hex.iter().all(u8::is_ascii_hexdigit);
            valid.then_some(6).ok_or(Stop::Differs)
        }
        _ => Err(Stop::Differs),
    }
}

#[inline]
fn number(bytes: &[u8]) -> Result<usize, Stop> {
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    match bytes.get(at) {
        Some(b'0') => at += 1,
        _ => at = digits(bytes, at)?,
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    match bytes.get(at) {
        Some(b'e' | b'E') => exponent(bytes, at + 1),
        Some(_) => Ok(at),
        // More digits may come with the next chunk.
        None => Err(Stop::Short),
    }
}

/// The place behind the exponent of a number.
#[cold]
fn exponent(bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
    if let Some(b'+' | b'-') = bytes.get(at) {
        at += 1;
    }
    let end = digits(bytes, at)?;
    if end == bytes.len() {
        return Err(Stop::Short);
    }
    Ok(end)
}

/// The place behind one digit or more.
#[inline]
fn digits(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let rest = bytes.get(start..).ok_or(Stop::Short)?;
    match digit_run(rest) {
        0 if rest.is_empty() => Err(Stop::Short),
        0 => Err(Stop::Differs),
        count => Ok(start + count),
    }
}

fn container(bytes: &[u8], max_depth: usize) -> Result<usize, Stop> {
    let mut scanner = Scanner::new(max_depth, 0);
    let mut used = 0;
    loop {
        let (step, seen) = scanner
            .step(bytes.get(used..).unwrap_or_default())
            .map_err(|_| Stop::Differs)?;
        used += step;
        if scanner.done() {
            return Ok(used);
        }
        if seen.is_none() {
            return Err(Stop::Short);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> Layout {
        let mut layout = Layout::default();
        layout.learn(b"{\"a\": {\"value\": ", 1);
        layout.learn(b"}, \"b\": {\"value\": ", UNSELECTED);
        layout.learn(b"}, \"c\": {\"value\": ", 0);
        layout.finish(b"}}", 2);
        layout
    }

    fn read(row: &str) -> (Result<usize, Stop>, Vec<(CellKind, &str)>) {
        let mut cells = [Cell::default(); 2];
        let matched = learned().read(row.as_bytes(), &mut cells, 4);
        let text = |cell: &Cell| &row[cell.start as usize..cell.end as usize];
        let cells = cells.iter().map(|cell| (cell.kind, text(cell))).collect();
        (matched, cells)
    }

    #[test]
    fn a_row_of_the_same_layout_is_read_whole() {
        use CellKind::*;
        for (a, b, c, first, second) in [
            ("1", "2", "\"\"", (Plain, ""), (Number, "1")),
            (
                "-0.5e+7",
                "[1]",
                "true",
                (True, "true"),
                (Number, "-0.5e+7"),
            ),
            (
                r#""é\"\u00e9""#,
                r#""x""#,
                "false",
                (False, "false"),
                (Escaped, r#"é\"\u00e9"#),
            ),
            (
                "null",
                "{}",
                "[{\"x\": \"]\"}]",
                (List, "[{\"x\": \"]\"}]"),
                (Null, "null"),
            ),
            (
                "{\"x\": 1}",
                "0",
                "7",
                (Number, "7"),
                (Object, "{\"x\": 1}"),
            ),
        ] {
            let row = format!(
                "{{\"a\": {{\"value\": {a}}}, \"b\": {{\"value\": {b}}}, \"c\": {{\"value\": {c}}}}}"
            );
            let more = format!("{row}, {{");
            let (matched, cells) = read(&more);
            assert_eq!(matched, Ok(row.len()), "{row}");
            assert_eq!(cells, [first, second], "{row}");
            for end in 0..row.len() {
                if let Some(cut) = row.get(..end) {
                    assert_eq!(read(cut).0, Err(Stop::Short), "{cut}");
                }
            }
        }
    }

    #[test]
    fn glue_of_any_length_is_compared_to_its_last_byte() {
        for length in 0..100 {
            let glue: Vec<u8> = (0..length).map(|at| b'a' + at % 26).collect();
            let mut layout = Layout::default();
            layout.learn(&glue, 0);
            layout.finish(&glue, 1);
            let mut row = [&glue[..], b"7", &glue].concat();
            let whole = row.len();
            row.extend_from_slice(b"behind it there is more than a whole block of bytes");
            let read = |row: &[u8]| layout.read(row, &mut [Cell::default()], 4);
            assert_eq!(read(&row), Ok(whole), "{length}");
            for end in 0..whole {
                assert_eq!(
                    read(&row[..end]),
                    Err(Stop::Short),
                    "{length}, cut at {end}"
                );
                row[end] ^= 1;
                assert_ne!(
                    read(&row[..end]),
                    Err(Stop::Differs),
                    "{length}, cut at {end}"
                );
                if end != glue.len() {
                    assert_eq!(read(&row), Err(Stop::Differs), "{length}, altered at {end}");
                }
                row[end] ^= 1;
            }
        }
    }

    #[test]
    fn whatever_else_stands_there_is_left_to_the_walk() {
        let start = "{\"a\": {\"value\": ";
        for rest in [
            "1 }, ",
            "1}, \"c\"",
            "01}",
            "1.}",
            "-}",
            "1e}",
            "nul}",
            "+1",
            "\"\n\"",
            r#""\x""#,
            r#""\u00g0""#,
            "[1,]",
            "[[[[[]]]]]",
            "}",
        ] {
            assert_eq!(
                read(&format!("{start}{rest}")).0,
                Err(Stop::Differs),
                "{rest}"
            );
        }
        assert_eq!(Layout::default().read(b"{", &mut [], 4), Err(Stop::Differs));
    }
}
