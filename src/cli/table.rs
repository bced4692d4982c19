//! Formats data: columns, sizes and times for people, JSON for programs.

use std::fmt;

use serde::Serialize;

use super::escape::single_line;

/// A table of text; columns are as wide as their content.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(headings: [&str; N]) -> Self {
        Table { rows: vec![headings.map(str::to_owned)] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| single_line(&cell)));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |n: usize| self.rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.rows {
            let (last, others) = row.split_last().expect("a column");
            for (cell, width) in others.iter().zip(widths) {
                write!(f, "{cell:<width$}  ")?;
            }
            writeln!(f, "{last}")?;
        }
        Ok(())
    }
}

/// Formats a value as indented JSON, with a newline at the end.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("data serialises");
    text.push('\n');
    text
}

/// Formats a number of bytes in decimal units.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.95 { 2 } else { usize::from(value < 99.5) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Formats an RFC 3339 time to the minute, in UTC.
pub(super) fn time(rfc3339: Option<&str>) -> String {
    let parsed = rfc3339.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    parsed.map_or("unknown".into(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "LONG", "C"]);
        table.row(["aaa".into(), "b".into(), "c".into()]);
        table.row(["ü".into(), "\x1b[31m".into(), String::new()]);
        let shown = "A    LONG   C\naaa  b      c\nü    \u{fffd}[31m  \n";
        assert_eq!(table.to_string(), shown);
    }

    #[test]
    fn sizes_and_times() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_600, "1.00 MB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(time(Some("2024-01-02T03:04:05.678+01:00")), "2024-01-02 02:04");
        assert_eq!(time(Some("yesterday")), "unknown");
        assert_eq!(time(None), "unknown");
    }
}
