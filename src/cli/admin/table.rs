//! A table that fits a terminal: what says nothing is left out first, then long texts are cut, then ids are
//! shortened to what tells them apart. For programs nothing is.
//!
//! A column's name begins with marks that are not shown: `>` aligns it to the right, `~` is text that may be
//! cut, `#` an id of which a beginning is enough, `?` a column that is left out where it is empty or zero in
//! all rows, `*` a state, which has a colour.

use crate::cli::paint::Paint;

/// Between two columns.
const GAP: usize = 2;
/// Texts are not cut to less, in characters.
const LEAST_TEXT: usize = 10;
/// Ids are not shortened to less, in characters.
const LEAST_ID: usize = 8;

/// Marks and name of a column, and its cells.
struct Column {
    marks: String,
    name: String,
    cells: Vec<String>,
}

/// See the module's page.
pub(super) struct Table(Vec<Column>);

impl Column {
    fn has(&self, mark: char) -> bool {
        self.marks.contains(mark)
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(self.name.chars().count())
    }

    fn says_nothing(&self) -> bool {
        let nothing = |cell: &String| matches!(&**cell, "" | "-" | "0");
        self.cells.iter().all(nothing)
    }

    /// Cuts cells to a width, which the name needs too.
    fn cut(&mut self, width: usize) {
        for cell in &mut self.cells {
            if cell.chars().count() > width {
                let mut cut: String = cell.chars().take(width.saturating_sub(1)).collect();
                cut.push('…');
                *cell = cut;
            }
        }
    }

    /// Shortens ids to a beginning that tells them apart.
    fn shorten(&mut self) {
        let longest = self.width();
        let begin =
            |cell: &String, length: usize| -> String { cell.chars().take(length).collect() };
        let tells_apart = |length: &usize| {
            let mut whole: Vec<_> = self.cells.clone();
            whole.sort();
            whole.dedup();
            let mut short: Vec<_> = whole.iter().map(|cell| begin(cell, *length)).collect();
            short.dedup();
            short.len() == whole.len()
        };
        let length = (LEAST_ID..longest).find(tells_apart).unwrap_or(longest);
        for cell in &mut self.cells {
            *cell = begin(cell, length);
        }
    }
}

impl Table {
    /// Each row has a cell for each name.
    pub(super) fn new(head: &[&str], rows: Vec<Vec<String>>) -> Self {
        let mut columns: Vec<_> = head
            .iter()
            .map(|name| {
                let bare = name.trim_start_matches(['>', '~', '#', '?', '*']);
                Column {
                    marks: name[..name.len() - bare.len()].to_owned(),
                    name: bare.to_owned(),
                    cells: Vec::new(),
                }
            })
            .collect();
        for row in rows {
            for (column, cell) in columns.iter_mut().zip(row) {
                column.cells.push(cell);
            }
        }
        Self(columns)
    }

    /// Lines of cells with tabs between.
    pub(super) fn for_programs(&self) -> String {
        let names = self.0.iter().map(|column| &*column.name);
        let mut text = names.collect::<Vec<_>>().join("\t");
        text.push('\n');
        for at in 0..self.rows() {
            let cells = self.0.iter().filter_map(|column| column.cells.get(at));
            text.push_str(&cells.map(|cell| &**cell).collect::<Vec<_>>().join("\t"));
            text.push('\n');
        }
        text
    }

    /// Aligned, and no wider than the terminal if that can be.
    pub(super) fn for_people(mut self, most: Option<usize>, paint: Paint) -> String {
        let mut left_out = Vec::new();
        if let Some(most) = most {
            self.0
                .retain(|column| !(column.has('?') && column.says_nothing()));
            self.fit(most, &mut left_out);
        }
        let widths: Vec<_> = self.0.iter().map(Column::width).collect();
        let mut text = String::new();
        let names = |column: &Column| column.name.clone();
        text.push_str(&paint.bold(&self.line(&widths, names, |_, cell| cell)));
        text.push('\n');
        for at in 0..self.rows() {
            let cells = |column: &Column| column.cells.get(at).cloned().unwrap_or_default();
            let coloured = |column: &Column, cell: String| match column.has('*') {
                true => tone(paint, &cell),
                false => cell,
            };
            text.push_str(&self.line(&widths, cells, coloured));
            text.push('\n');
        }
        if !left_out.is_empty() {
            left_out.reverse();
            let what = format!("Not shown for want of width: {}", left_out.join(", "));
            text.push_str(&paint.dim(&what));
            text.push('\n');
        }
        text
    }

    fn fit(&mut self, most: usize, left_out: &mut Vec<String>) {
        if self.width() > most {
            self.0
                .iter_mut()
                .filter(|column| column.has('#'))
                .for_each(Column::shorten);
        }
        // The widest text gives first.
        while self.width() > most {
            let texts = self.0.iter_mut().filter(|column| column.has('~'));
            let widest = texts.max_by_key(|column| column.width());
            let too_wide =
                |column: &&mut Column| column.width() > LEAST_TEXT.max(column.name.chars().count());
            match widest.filter(too_wide) {
                Some(column) => column.cut(column.width() - 1),
                None => break,
            }
        }
        while self.width() > most {
            let Some(at) = self.0.iter().rposition(|column| column.has('?')) else {
                break;
            };
            left_out.push(self.0.remove(at).name);
        }
    }

    fn rows(&self) -> usize {
        self.0.first().map_or(0, |column| column.cells.len())
    }

    fn width(&self) -> usize {
        let widths: usize = self.0.iter().map(Column::width).sum();
        widths + GAP * self.0.len().saturating_sub(1)
    }

    fn line(
        &self,
        widths: &[usize],
        cell: impl Fn(&Column) -> String,
        coloured: impl Fn(&Column, String) -> String,
    ) -> String {
        let mut text = String::new();
        for (at, (column, width)) in self.0.iter().zip(widths).enumerate() {
            let cell = cell(column);
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            let cell = coloured(column, cell);
            if at > 0 {
                text.push_str(&" ".repeat(GAP));
            }
            match column.has('>') {
                true => text.push_str(&format!("{gap}{cell}")),
                false if at + 1 < self.0.len() => text.push_str(&format!("{cell}{gap}")),
                false => text.push_str(&cell),
            }
        }
        text.trim_end().to_owned()
    }
}

/// What is as it should be is green, what somebody should look at is yellow.
fn tone(paint: Paint, state: &str) -> String {
    match state {
        "done" | "sending" | "delivered" | "flowing" => paint.good(state),
        "paused" | "down" | "damaged" => paint.warn(state),
        _ => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |id: &str, rows: &str, dead: &str, title: &str| {
            [id, "done", rows, "-", dead, title]
                .map(str::to_owned)
                .to_vec()
        };
        let long = "Daily users of all the world, with what they bought";
        let rows = vec![
            row("0192f0c1a2b3c4d5e6f708192a3b4c5d", "1,200", "0", long),
            row("0192f0c1a2b3d4d5e6f708192a3b4c5d", "7", "3", "Weekly"),
        ];
        let head = ["#ID", "*STATE", ">ROWS", "?>LEFT", "?>DEAD", "~TITLE"];
        Table::new(&head, rows)
    }

    #[test]
    fn a_table_fits_its_terminal_and_ids_stay_apart() {
        // A width, then the head and the first row.
        let cases = "\
200
ID                                STATE   ROWS  DEAD  TITLE
0192f0c1a2b3c4d5e6f708192a3b4c5d  done   1,200     0  Daily users of all the world, with what they bought
60
ID             STATE   ROWS  DEAD  TITLE
0192f0c1a2b3c  done   1,200     0  Daily users of all the w…
45
ID             STATE   ROWS  DEAD  TITLE
0192f0c1a2b3c  done   1,200     0  Daily use…
40
ID             STATE   ROWS  TITLE
0192f0c1a2b3c  done   1,200  Daily use…
";
        let lines: Vec<_> = cases.lines().collect();
        for case in lines.chunks(3) {
            let width = case[0].parse().unwrap();
            let text = table().for_people(Some(width), Paint::off());
            let shown: Vec<_> = text.lines().collect();
            assert_eq!(shown[..2], case[1..], "{width}\n{text}");
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}\n{text}");
            let hidden = text.contains("Not shown for want of width: DEAD");
            assert_eq!(hidden, width == 40);
        }
    }

    #[test]
    fn programs_get_everything() {
        let text = table().for_programs();
        assert!(text.starts_with("ID\tSTATE\tROWS\tLEFT\tDEAD\tTITLE\n0192f0c1a2b3c4d5e6f708192a3b4c5d\tdone\t1,200\t-\t0\tDaily"));
        assert!(text.contains("with what they bought\n"));
    }
}
