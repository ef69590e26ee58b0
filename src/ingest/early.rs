//! Rows that came before the columns are known: kept in an unnamed temporary file, which is sealed,
//! and read once.

use std::io::{self, Read};

use crate::seal::{Scratch, Space};

/// Raw rows, each behind its length (u32, little-endian).
#[derive(Debug)]
pub struct EarlyRows {
    file: Scratch,
    rows: u64,
}

impl EarlyRows {
    /// An empty file.
    pub fn create(space: &Space) -> io::Result<Self> {
        Ok(Self {
            file: Scratch::create(space)?,
            rows: 0,
        })
    }

    /// Adds a row. The decoder bounds its size.
    pub fn push(&mut self, row: &[u8]) -> io::Result<()> {
        let length = u32::try_from(row.len()).map_err(io::Error::other)?;
        self.file.write(&length.to_le_bytes())?;
        self.file.write(row)?;
        self.rows += 1;
        Ok(())
    }

    /// Hands each row and its number to `visit`.
    pub fn read<E: From<io::Error>>(
        self,
        mut visit: impl FnMut(&[u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut file = self.file.into_reader()?;
        let mut row = Vec::new();
        for number in 0..self.rows {
            let mut length = [0; 4];
            file.read_exact(&mut length)?;
            row.resize(u32::from_le_bytes(length) as usize, 0);
            file.read_exact(&mut row)?;
            visit(&row, number)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut early = EarlyRows::create(&Space::new(directory.path())).unwrap();
        let rows: Vec<Vec<u8>> = (0..300u32).map(|n| vec![n as u8; n as usize]).collect();
        for row in &rows {
            early.push(row).unwrap();
        }
        let mut back = Vec::new();
        early
            .read(|row, number| -> io::Result<()> {
                assert_eq!(number, back.len() as u64);
                back.push(row.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(back, rows);
    }
}
