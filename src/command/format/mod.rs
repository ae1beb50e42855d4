//! How lists are printed: as a table, as JSON, or by a template, as docker has it.

mod template;

pub use template::Template;

use crate::Failed;
use crate::plain::{self, escaped};
use serde_json::Value;

/// A way to print a list.
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One line each, by a template.
    Lines(Template),
    /// Columns with a heading: what tabs separate in a template.
    Table(Template),
}

/// What is between two columns.
const GAP: usize = 3;

impl Format {
    /// By what the user wants, or else a table by `default`.
    ///
    /// # Errors
    /// When it is not a template.
    pub fn parse(text: Option<&str>, default: &str) -> Result<Self, Failed> {
        match text {
            None | Some("table") => Template::parse(default).map(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => match text.strip_prefix("table ") {
                Some(template) => Template::parse(template.trim_start()).map(Self::Table),
                None => Template::parse(text).map(Self::Lines),
            },
        }
    }

    /// The whole list.
    ///
    /// # Errors
    /// When a template asks for what a row does not have.
    pub fn render(&self, rows: &[Value], heading: fn(&str) -> String) -> Result<String, Failed> {
        match self {
            Self::Json => {
                let lines = rows.iter().map(|row| escaped(&row.to_string()) + "\n");
                Ok(lines.collect())
            }
            Self::Lines(template) => template.lines(rows),
            Self::Table(template) => {
                let mut all = vec![template.heading(heading)];
                for row in rows {
                    all.push(template.fill(row, plain::line)?);
                }
                Ok(align(&all))
            }
        }
    }
}

fn align(lines: &[String]) -> String {
    let cells: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.split('\t').collect())
        .collect();
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = cells.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + GAP
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<&str>| {
        let padded: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", padded.trim_end())
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_printed_in_three_ways() {
        let rows = [
            json!({"ID": "1", "Names": "web"}),
            json!({"ID": "23", "Names": "a-long-name"}),
        ];
        let print = |text: Option<&str>| {
            let format = Format::parse(text, "{{.ID}}\t{{.Names}}").unwrap();
            format.render(&rows, str::to_uppercase).unwrap()
        };
        assert_eq!(print(None), "ID   NAMES\n1    web\n23   a-long-name\n");
        assert_eq!(print(Some("table")), print(None));
        assert_eq!(print(Some("table {{.Names}}")), "NAMES\nweb\na-long-name\n");
        assert_eq!(print(Some("{{.Names}}={{.ID}}")), "web=1\na-long-name=23\n");
        assert_eq!(
            print(Some("json")).lines().next(),
            Some(r#"{"ID":"1","Names":"web"}"#)
        );
        let error = Format::parse(Some("{{.ID}}{{.None}}"), "")
            .unwrap()
            .render(&rows, str::to_uppercase);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("there is no field `None`") && error.contains("ID, Names"),
            "{error}"
        );
    }

    #[test]
    fn a_row_of_a_table_is_one_line_and_json_is_escaped() {
        let rows = [json!({"ID": "1\u{1b}[2J\n2\t3", "Names": ["a\u{9b}", "\u{202e}b"]})];
        let print = |text: Option<&str>| {
            let format = Format::parse(text, "{{.ID}}\t{{.Names}}").unwrap();
            format.render(&rows, str::to_uppercase).unwrap()
        };
        assert_eq!(
            print(None).lines().nth(1),
            Some("1\u{fffd}[2J 2 3   [a\u{fffd} \u{fffd}b]")
        );
        assert_eq!(
            print(Some("json")),
            "{\"ID\":\"1\\u001b[2J\\n2\\t3\",\"Names\":[\"a\\u009b\",\"\\u202eb\"]}\n"
        );
    }
}
