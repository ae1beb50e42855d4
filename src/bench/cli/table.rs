//! Text in columns.

/// Rows of cells: the first column is aligned to the left, others to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self {
            rows: vec![head.into_iter().map(Into::into).collect()],
        }
    }

    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Is there nothing below the head?
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (number, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line += &match number {
                    0 => format!("{cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A number with three digits that say something.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["", "n", "median"]);
        table.row(["process", "100", "0.31"]);
        table.row(["crun", "5", "–"]);
        assert_eq!(
            table.text(),
            "           n  median\nprocess  100    0.31\ncrun       5       –\n"
        );
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [0.312, 9.994, 12.34, 335.2].map(short),
            ["0.31", "9.99", "12.3", "335"]
        );
    }
}
