//! Tables without lines, which fit the terminal.

use std::io;

use crate::output::{DIM, paint};

/// Between columns.
const GAP: usize = 2;
/// The last column is wrapped, but not narrower than this.
const LAST_MIN: usize = 16;
/// Columns of the terminal where there is none, so that a pipe gets the same text everywhere.
const WIDTH_DEFAULT: usize = 80;

/// A column: its head, and on which side its cells are aligned.
pub(crate) enum Column {
    /// Text, aligned left.
    Left(&'static str),
    /// A number with its unit, aligned right.
    Right(&'static str),
}

/// The table as text. Cells can have colours; the last column is wrapped at commas and spaces, and line breaks in it
/// are kept.
pub(crate) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    fit(columns, rows, terminal_width())
}

fn fit(columns: &[Column], rows: &[Vec<String>], width: usize) -> String {
    let head = columns.iter().map(Column::head);
    let mut widths: Vec<usize> = head.map(columns_of).collect();
    let last = widths.len().saturating_sub(1);
    for row in rows {
        for (n, cell) in row.iter().enumerate().take(last) {
            widths[n] = widths[n].max(columns_of(cell));
        }
    }
    let taken: usize = widths[..last].iter().map(|width| width + GAP).sum();
    let rest = width.saturating_sub(taken).max(LAST_MIN);
    let cells: Vec<Vec<Vec<String>>> = rows.iter().map(|row| split(row, last, rest)).collect();
    for line in cells.iter().filter_map(|row| row.get(last)).flatten() {
        widths[last] = widths[last].max(columns_of(line));
    }
    let mut out = vec![line(columns, &widths, |n| paint(DIM, columns[n].head()))];
    for row in &cells {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        out.extend((0..height).map(|at| {
            line(columns, &widths, |n| row.get(n).and_then(|cell| cell.get(at)).cloned().unwrap_or_default())
        }));
    }
    out.join("\n")
}

impl Column {
    const fn head(&self) -> &'static str {
        match self {
            Self::Left(head) | Self::Right(head) => head,
        }
    }
}

/// A row's cells as lines: only the last cell has several.
fn split(row: &[String], last: usize, rest: usize) -> Vec<Vec<String>> {
    row.iter().enumerate().map(|(n, cell)| if n == last { wrap(cell, rest) } else { vec![cell.clone()] }).collect()
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && columns_of(&line) + 1 + columns_of(word) > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

fn line(columns: &[Column], widths: &[usize], cell: impl Fn(usize) -> String) -> String {
    let mut out = String::new();
    for (n, column) in columns.iter().enumerate() {
        let text = cell(n);
        let space = " ".repeat(widths[n].saturating_sub(columns_of(&text)));
        match column {
            Column::Left(_) => out.extend([text, space]),
            Column::Right(_) => out.extend([space, text]),
        }
        out.push_str(if n + 1 < columns.len() { "  " } else { "" });
    }
    out.trim_end().to_owned()
}

/// Columns that a text takes: its characters, without what colours it. Names are ASCII, and the few other characters
/// that are written here are one column wide.
fn columns_of(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    if size == 0 { WIDTH_DEFAULT } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_and_the_last_column_is_wrapped() {
        let columns = [Column::Left("APP"), Column::Right("RUNS"), Column::Left("FUNCTIONS")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["shop", "1 204", "price, page, report"]), row([&paint(DIM, "x"), "7", "one"])];
        let text = anstream::adapter::strip_str(&fit(&columns, &rows, 30)).to_string();
        assert_eq!(text, "APP    RUNS  FUNCTIONS\nshop  1 204  price, page,\n             report\nx         7  one");
        let wide = anstream::adapter::strip_str(&fit(&columns, &rows, 80)).to_string();
        assert_eq!(wide.lines().count(), 3);
    }
}
