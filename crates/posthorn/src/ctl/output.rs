//! What is printed: JSON for programs, aligned text for people.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

/// Where a command prints, and in which form.
pub(super) struct Output<'a> {
    json: bool,
    to: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    pub(super) fn new(json: bool, to: &'a mut dyn Write) -> Self {
        Self { json, to }
    }

    /// Whether JSON was asked for.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// One thing: a JSON object, or a line for each of its fields that holds anything.
    pub(super) fn record<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        if self.json {
            return self.object(record);
        }
        let fields: Vec<(String, String)> = fields(record)?
            .iter()
            .map(|(name, value)| (name.replace('_', " "), plain(value)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields {
            writeln!(self.to, "{:width$} {value}", format!("{name}:"), width = width + 1)?;
        }
        Ok(())
    }

    /// Something that happened: a JSON object, or a line of text; seen at once.
    pub(super) fn event<T: Serialize>(&mut self, event: &T, text: &str) -> io::Result<()> {
        if self.json {
            self.object(event)?
        } else {
            self.line(text)?
        }
        self.to.flush()
    }

    /// A JSON object on a line of its own.
    pub(super) fn object<T: Serialize>(&mut self, object: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, object)?;
        self.to.write_all(b"\n")
    }

    /// A line of text, in which what controls a terminal is made harmless.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.to, "{}", harmless(text))
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// An answer for people alone; with JSON, the object.
    pub(super) fn done<T: Serialize>(&mut self, object: &T, text: &str) -> io::Result<()> {
        if self.json { self.object(object) } else { self.line(text) }
    }
}

/// Rows of a kind, printed as they come, page by page: JSON objects, or these columns of them.
pub(super) struct Table<'t> {
    columns: &'t [&'t str],
    widths: Vec<usize>,
    headed: bool,
}

impl<'t> Table<'t> {
    pub(super) fn new(columns: &'t [&'t str]) -> Self {
        Self { columns, widths: columns.iter().map(|name| name.len()).collect(), headed: false }
    }

    /// Prints more rows; columns never grow narrower from page to page.
    pub(super) fn rows<T: Serialize>(
        &mut self,
        out: &mut Output<'_>,
        rows: impl IntoIterator<Item = T>,
    ) -> io::Result<()> {
        if out.json {
            return rows.into_iter().try_for_each(|row| out.object(&row));
        }
        let cells = rows.into_iter().map(|row| self.cells(&row)).collect::<io::Result<Vec<_>>>()?;
        for row in &cells {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.headed && !cells.is_empty() {
            self.headed = true;
            let head: Vec<String> =
                self.columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
            self.write(out, &head)?;
        }
        cells.iter().try_for_each(|row| self.write(out, row))
    }

    fn cells<T: Serialize>(&self, row: &T) -> io::Result<Vec<String>> {
        let fields = fields(row)?;
        let cell = |name: &&str| match fields.get(*name).map(plain) {
            Some(text) if !text.is_empty() => text,
            _ => "-".to_owned(),
        };
        Ok(self.columns.iter().map(cell).collect())
    }

    fn write(&self, out: &mut Output<'_>, row: &[String]) -> io::Result<()> {
        let padded = |(cell, width): (&String, &usize)| format!("{cell:width$}");
        let line: Vec<String> = row.iter().zip(&self.widths).map(padded).collect();
        writeln!(out.to, "{}", line.join("  ").trim_end())
    }
}

fn fields<T: Serialize>(record: &T) -> io::Result<Map<String, Value>> {
    match serde_json::to_value(record)? {
        Value::Object(fields) => Ok(fields),
        other => Ok(Map::from_iter([("value".to_owned(), other)])),
    }
}

/// A value as a person reads it, on one line.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => harmless(text),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.values().map(plain).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Without controls: what is in a message must not command the terminal of its reader.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Whether whoever read the output has gone (`| head`), which is no failure.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
