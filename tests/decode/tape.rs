//! Generates valid result documents from a tape of bytes: an empty or zero tape makes the simplest
//! document, so that what proptest shrinks stays readable.

/// A document, and what is known of it.
pub struct Document {
    pub text: String,
    /// Columns in the order of the header.
    pub columns: Vec<String>,
    /// Places behind the rows.
    pub row_ends: Vec<usize>,
}

pub struct Tape<'a> {
    bytes: std::slice::Iter<'a, u8>,
    out: String,
    /// How white space is written: 0 none, 1 pretty, 2 at random.
    spacing: usize,
}

const COLUMNS: [&str; 6] = ["a", "users.email", "b c", "é.\"quoted\"", "value", "data"];
const NUMBERS: &str = "0 -0.0 17 12345678901234567890123 0.30000000000000004 1e400 -1.5E-7 2e+0";
const STRINGS: [&str; 8] = [
    "",
    "x",
    "2026-11-20 13:05:00",
    "a string that is longer than a few words are",
    r#"\"esc\\aped\" \/ \b\f\n\r\t"#,
    "é 😀 \u{7f}",
    r"\u00e9\ud83d\ude00\u0000",
    r#"<a href='/x?f[a.b]=1'>{\"value\": [1]}</a>"#,
];

impl<'a> Tape<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
            out: String::new(),
            spacing: 0,
        }
    }

    fn pick(&mut self, choices: usize) -> usize {
        let byte = self.bytes.next().copied().unwrap_or_default();
        byte as usize % choices
    }

    pub fn document(mut self) -> Document {
        self.spacing = self.pick(3);
        let count = 1 + self.pick(COLUMNS.len());
        let columns = &COLUMNS[..count];
        let mut keys = vec!["fields", "data"];
        for extra in ["applied_filters", "timezone", "errors", "pivots", "x"] {
            if self.pick(2) == 1 {
                keys.push(extra);
            }
        }
        for at in (1..keys.len()).rev() {
            let other = at - self.pick(at + 1);
            keys.swap(at, other);
        }
        let mut row_ends = Vec::new();
        self.space();
        self.open('{');
        for (index, key) in keys.into_iter().enumerate() {
            self.comma(index);
            self.key(key);
            match key {
                "fields" => self.fields(columns),
                "data" => row_ends = self.rows(columns),
                "timezone" => self.out.push_str("\"UTC\""),
                "errors" => self.out.push_str("null"),
                _ => self.value(3),
            }
        }
        self.close('}');
        self.space();
        Document {
            text: self.out,
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            row_ends,
        }
    }

    fn fields(&mut self, columns: &[&str]) {
        self.open('{');
        let split = self.pick(columns.len() + 1);
        // Dimensions come first in the header, whatever the order of the lists.
        let (dimensions, measures) = columns.split_at(split);
        let lists = [("measures", measures), ("dimensions", dimensions)];
        for (index, (list, names)) in lists.into_iter().enumerate() {
            self.comma(index);
            self.key(list);
            self.open('[');
            for (index, name) in names.iter().enumerate() {
                self.comma(index);
                self.open('{');
                self.key("name");
                self.out.push_str(&serde_json::to_string(name).unwrap());
                if self.pick(2) == 1 {
                    self.comma(1);
                    self.key("enumerations");
                    self.value(2);
                }
                self.close('}');
            }
            self.close(']');
        }
        self.close('}');
    }

    fn rows(&mut self, columns: &[&str]) -> Vec<usize> {
        let count = self.pick(8);
        let irregular = self.pick(3) == 2;
        let mut ends = Vec::new();
        self.open('[');
        for index in 0..count {
            self.comma(index);
            self.open('{');
            let mut cells = 0;
            for column in columns {
                let absent = irregular && self.pick(4) == 3;
                if !absent {
                    self.comma(cells);
                    cells += 1;
                    self.key(column);
                    self.cell(irregular);
                }
            }
            self.close('}');
            ends.push(self.out.len());
        }
        self.close(']');
        ends
    }

    fn cell(&mut self, irregular: bool) {
        let kind = if irregular { self.pick(5) } else { 0 };
        self.open('{');
        match kind {
            1 => {
                self.key("rendered");
                self.value(1);
                self.comma(1);
                self.key("value");
                self.value(2);
            }
            2 => {
                self.key("value");
                self.value(0);
                self.comma(1);
                self.key("links");
                self.value(2);
            }
            3 => {
                self.key("a|FIELD|b");
                self.out.push_str("{\"value\":1}");
            }
            4 => {}
            _ => {
                self.key("value");
                self.value(1);
            }
        }
        self.close('}');
    }

    /// `depth`: how many lists and objects may stand inside each other.
    fn value(&mut self, depth: usize) {
        match self.pick(if depth == 0 { 5 } else { 7 }) {
            0 => self.out.push_str("null"),
            1 => {
                let text = STRINGS[self.pick(STRINGS.len())];
                self.out.push('"');
                self.out.push_str(text);
                self.out.push('"');
            }
            2 => {
                let mut numbers = NUMBERS.split(' ');
                let number = numbers.nth(self.pick(8)).unwrap();
                self.out.push_str(number);
            }
            3 => self.out.push_str("true"),
            4 => self.out.push_str("false"),
            5 => {
                self.open('[');
                for index in 0..self.pick(3) {
                    self.comma(index);
                    self.value(depth - 1);
                }
                self.close(']');
            }
            _ => {
                self.open('{');
                for index in 0..self.pick(3) {
                    self.comma(index);
                    let name = ["data", "value", "fields"][index % 3];
                    self.key(name);
                    self.value(depth - 1);
                }
                self.close('}');
            }
        }
    }

    fn key(&mut self, name: &str) {
        let name = serde_json::to_string(name).unwrap();
        // Now and then with an escape that need not be.
        let name = match self.pick(12) {
            11 => name.replacen('a', "\\u0061", 1),
            _ => name,
        };
        self.out.push_str(&name);
        self.space();
        self.out.push(':');
        self.space();
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.space();
            self.out.push(',');
            self.space();
        }
    }

    fn open(&mut self, bracket: char) {
        self.out.push(bracket);
        self.space();
    }

    fn close(&mut self, bracket: char) {
        self.space();
        self.out.push(bracket);
    }

    fn space(&mut self) {
        let random = ["", " ", "\n\t", "\r\n  "];
        let space = match self.spacing {
            0 => "",
            1 => "\n  ",
            _ => random[self.pick(random.len())],
        };
        self.out.push_str(space);
    }
}
