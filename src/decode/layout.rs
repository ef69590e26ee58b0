//! The layout of the last walked row: what stood between its values.
//!
//! Looker writes every row with the same keys in the same order and the same white space, so the
//! bytes between two values are nearly always those of the row before. They were checked when the
//! layout was learned; what is equal to them is valid for the same reason.

use super::plain::plain_run;
use super::scan::Scanner;
use crate::model::{Cell, CellKind};

/// A hole whose value is checked and not kept.
pub(super) const UNSELECTED: u32 = u32::MAX;

/// The bytes between the values of a row, and where the values go.
#[derive(Debug, Default)]
pub(super) struct Layout {
    glue: Vec<u8>,
    holes: Vec<Hole>,
    ready: bool,
}

/// A value: what stands before it ends at `glue_end`, its cell is `slot`.
#[derive(Clone, Copy, Debug)]
struct Hole {
    glue_end: usize,
    slot: u32,
}

/// How a row compares with the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The row has this many bytes, and the cells are filled.
    Whole(usize),
    /// The same as far as it goes; the bytes end within the row.
    Short,
    /// Something is different, or wrong: it must be walked.
    Differs,
}

impl Layout {
    /// Nothing is known; the next row must be walked.
    pub(super) fn forget(&mut self) {
        self.glue.clear();
        self.holes.clear();
        self.ready = false;
    }

    /// A value with `glue` before it.
    pub(super) fn learn(&mut self, glue: &[u8], slot: u32) {
        self.glue.extend_from_slice(glue);
        let glue_end = self.glue.len();
        self.holes.push(Hole { glue_end, slot });
    }

    /// The row's last bytes; the layout can be used from now on.
    pub(super) fn finish(&mut self, glue: &[u8]) {
        self.glue.extend_from_slice(glue);
        self.ready = true;
    }

    /// Reads the row at the beginning of `bytes`. `max_depth` is what a value may nest.
    pub(super) fn read(&self, bytes: &[u8], cells: &mut [Cell], max_depth: usize) -> Match {
        if !self.ready {
            return Match::Differs;
        }
        match self.try_read(bytes, cells, max_depth) {
            Ok(length) => Match::Whole(length),
            Err(other) => other,
        }
    }

    fn try_read(&self, bytes: &[u8], cells: &mut [Cell], max_depth: usize) -> Result<usize, Match> {
        let mut at = 0;
        let mut from = 0;
        let mut unselected = Cell::default();
        for hole in &self.holes {
            at = expect(bytes, at, self.glue.get(from..hole.glue_end))?;
            from = hole.glue_end;
            let slot = cells.get_mut(hole.slot as usize);
            at = value(bytes, at, max_depth, slot.unwrap_or(&mut unselected))?;
        }
        expect(bytes, at, self.glue.get(from..))
    }
}

/// The place behind `glue`, when it stands at `at`.
#[inline]
fn expect(bytes: &[u8], at: usize, glue: Option<&[u8]>) -> Result<usize, Match> {
    let glue = glue.ok_or(Match::Differs)?;
    let rest = bytes.get(at..).ok_or(Match::Short)?;
    match rest.get(..glue.len()) {
        Some(found) if same(found, glue) => Ok(at + glue.len()),
        None if glue.starts_with(rest) => Err(Match::Short),
        _ => Err(Match::Differs),
    }
}

/// Whether two runs of the same length are equal: by words, without a call for the few that there are.
#[inline]
fn same(found: &[u8], glue: &[u8]) -> bool {
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let (found, found_rest) = found.as_chunks::<8>();
    let (glue, glue_rest) = glue.as_chunks::<8>();
    let mut words = found.iter().zip(glue);
    words.all(|(found, glue)| word(found) == word(glue)) && found_rest.iter().eq(glue_rest)
}

/// Reads the value at `at` into its slot; the place behind it.
#[inline]
fn value(bytes: &[u8], at: usize, max_depth: usize, slot: &mut Cell) -> Result<usize, Match> {
    // The slot is written part by part: a cell that goes through the stack is waited for.
    let (kind, end) = match bytes.get(at).ok_or(Match::Short)? {
        b'"' => {
            let (kind, end) = string(bytes, at + 1)?;
            put(slot, kind, at + 1, end);
            return Ok(end + 1);
        }
        b'-' | b'0'..=b'9' => (CellKind::Number, number(bytes, at)?),
        b'n' => (CellKind::Null, expect(bytes, at, Some(b"null"))?),
        b't' => (CellKind::True, expect(bytes, at, Some(b"true"))?),
        b'f' => (CellKind::False, expect(bytes, at, Some(b"false"))?),
        b'{' => (CellKind::Object, container(bytes, at, max_depth)?),
        b'[' => (CellKind::List, container(bytes, at, max_depth)?),
        _ => return Err(Match::Differs),
    };
    put(slot, kind, at, end);
    Ok(end)
}

/// Cuts a cell out of a row. Rows are shorter than 4 GiB, see `RowReader::new`.
#[inline]
pub(super) fn put(slot: &mut Cell, kind: CellKind, start: usize, end: usize) {
    slot.kind = kind;
    slot.start = start as u32;
    slot.end = end as u32;
}

/// Where the string that begins at `start` ends, its quotes left out.
#[inline]
fn string(bytes: &[u8], start: usize) -> Result<(CellKind, usize), Match> {
    let mut at = start;
    let mut kind = CellKind::Plain;
    loop {
        at += plain_run(bytes.get(at..).ok_or(Match::Short)?);
        match bytes.get(at).ok_or(Match::Short)? {
            b'"' => return Ok((kind, at)),
            b'\\' => {
                kind = CellKind::Escaped;
                at += escape(bytes, at)?;
            }
            _ => return Err(Match::Differs),
        }
    }
}

/// Bytes of the escape sequence at `at`.
fn escape(bytes: &[u8], at: usize) -> Result<usize, Match> {
    match bytes.get(at + 1).ok_or(Match::Short)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(2),
        b'u' => {
            let hex = bytes.get(at + 2..at + 6).ok_or(Match::Short)?;
            let valid = hex.iter().all(u8::is_ascii_hexdigit);
            valid.then_some(6).ok_or(Match::Differs)
        }
        _ => Err(Match::Differs),
    }
}

#[inline]
fn number(bytes: &[u8], start: usize) -> Result<usize, Match> {
    let mut at = start;
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    match bytes.get(at) {
        Some(b'0') => at += 1,
        _ => at = digits(bytes, at)?,
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    // More digits may come with the next chunk.
    if at == bytes.len() {
        return Err(Match::Short);
    }
    Ok(at)
}

/// The place behind one digit or more.
#[inline]
fn digits(bytes: &[u8], start: usize) -> Result<usize, Match> {
    let rest = bytes.get(start..).ok_or(Match::Short)?;
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match count {
        0 if rest.is_empty() => Err(Match::Short),
        0 => Err(Match::Differs),
        _ => Ok(start + count),
    }
}

fn container(bytes: &[u8], at: usize, max_depth: usize) -> Result<usize, Match> {
    let rest = bytes.get(at..).ok_or(Match::Short)?;
    let mut scanner = Scanner::new(max_depth, 0);
    let mut used = 0;
    loop {
        let (step, seen) = scanner
            .step(rest.get(used..).unwrap_or_default())
            .map_err(|_| Match::Differs)?;
        used += step;
        if scanner.done() {
            return Ok(at + used);
        }
        if seen.is_none() {
            return Err(Match::Short);
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
        layout.finish(b"}}");
        layout
    }

    fn read(row: &str) -> (Match, Vec<(CellKind, &str)>) {
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
            assert_eq!(matched, Match::Whole(row.len()), "{row}");
            assert_eq!(cells, [first, second], "{row}");
            for end in 0..row.len() {
                if let Some(cut) = row.get(..end) {
                    assert_eq!(read(cut).0, Match::Short, "{cut}");
                }
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
            assert_eq!(read(&format!("{start}{rest}")).0, Match::Differs, "{rest}");
        }
        assert_eq!(Layout::default().read(b"{", &mut [], 4), Match::Differs);
    }
}
