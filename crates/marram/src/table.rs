//! Tables without lines, which fit the terminal. Where there is none, nothing is wrapped: a line is what `grep` finds.

use std::io;

use crate::output::{self, DIM, paint};

/// Between columns.
const GAP: usize = 2;
/// The last column is wrapped, but not narrower than this.
const LAST_MIN: usize = 16;
/// Columns of a terminal that does not say how wide it is.
const WIDTH_DEFAULT: usize = 80;

/// A column: its head, and on which side its cells are aligned.
pub(crate) enum Column {
    /// Text, aligned left.
    Left(&'static str),
    /// A number with its unit, aligned right.
    Right(&'static str),
    /// Text that is copied as a whole, in the last column: it is not wrapped, and where it does not fit beside the
    /// others it gets a line of its own.
    Whole(&'static str),
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
    let whole = matches!(columns.last(), Some(Column::Whole(_)));
    let below = |row: &Vec<String>| row.get(last).filter(|cell| whole && columns_of(cell) > rest).cloned();
    let below: Vec<_> = rows.iter().map(below).collect();
    let beside = rows.iter().zip(&below).map(|(row, below)| if below.is_some() { &row[..last] } else { &row[..] });
    let wrapped = if whole { usize::MAX } else { rest };
    let cells: Vec<Vec<Vec<String>>> = beside.map(|row| split(row, last, wrapped)).collect();
    for line in cells.iter().filter_map(|row| row.get(last)).flatten() {
        widths[last] = widths[last].max(columns_of(line));
    }
    let mut out = vec![line(columns, &widths, |n| paint(DIM, columns[n].head()))];
    for (row, below) in cells.iter().zip(&below) {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        out.extend((0..height).map(|at| {
            line(columns, &widths, |n| row.get(n).and_then(|cell| cell.get(at)).cloned().unwrap_or_default())
        }));
        // As far to the right as it fits.
        out.extend(below.iter().map(|cell| " ".repeat(taken.min(width.saturating_sub(columns_of(cell)))) + cell));
    }
    out.join("\n")
}

impl Column {
    const fn head(&self) -> &'static str {
        match self {
            Self::Left(head) | Self::Right(head) | Self::Whole(head) => head,
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
            Column::Left(_) | Column::Whole(_) => out.extend([text, space]),
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
    if !output::stdout_is_terminal() {
        return usize::MAX;
    }
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

    #[test]
    fn what_is_copied_as_a_whole_is_on_one_line() {
        let columns = [Column::Left("STREAM"), Column::Right("DEAD"), Column::Whole("CONSUMER")];
        let rows: Vec<_> = ["a/b/key:x y", "a/schedule:0 */5 * * * *", "a/schedule:0 */5 * * * * Europe/Berlin"]
            .map(|id| vec!["s".to_owned(), "7".to_owned(), id.to_owned()])
            .to_vec();
        let shown = |width| anstream::adapter::strip_str(&fit(&columns, &rows, width)).to_string();
        let lines = [
            "STREAM  DEAD  CONSUMER",
            "s          7  a/b/key:x y",
            "s          7",
            "      a/schedule:0 */5 * * * *",
            "s          7",
            "a/schedule:0 */5 * * * * Europe/Berlin",
        ];
        assert_eq!(shown(30), lines.join("\n"));
        assert_eq!(shown(usize::MAX).lines().last(), Some("s          7  a/schedule:0 */5 * * * * Europe/Berlin"));
    }
}
