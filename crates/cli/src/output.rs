//! Printing results: tables that fit the terminal, JSON and YAML.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::args::Format;
use crate::failure::Failure;

/// Prints `value` as JSON or YAML, or the rows as a table.
pub(crate) fn print(
    format: Format,
    value: &Value,
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), Failure> {
    match format {
        Format::Table => print_table(headers, rows),
        Format::Json | Format::Yaml => print_value(format, value),
    }
}

/// Prints `value` as JSON or YAML.
pub(crate) fn print_value(format: Format, value: &Value) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match format {
        Format::Yaml => out.write_all(yaml(value).as_bytes())?,
        Format::Json | Format::Table => {
            serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}

/// Prints rows under headers, in columns that fit the terminal.
pub(crate) fn print_table(
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    // Piped output is for programs such as awk and must not be wrapped.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    line(table.trim_fmt())
}

/// Prints one line to stdout.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Prints text as it is to stdout.
pub(crate) fn out(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a question to stderr, whose answer follows on the same line.
pub(crate) fn ask(question: &str) {
    let mut err = io::stderr().lock();
    // Whoever cannot see the question may still know it.
    let _ = err.write_all(question.as_bytes());
    let _ = err.flush();
}

/// Prints one line about the work to stderr.
pub(crate) fn note(text: impl AsRef<str>) {
    let mut err = io::stderr().lock();
    // Whether anybody reads it changes nothing about the work.
    let _ = writeln!(err, "{}", text.as_ref());
}

/// Writes a JSON value as block YAML.
///
/// We emit a small, unambiguous part of the language (strings are quoted unless they are plainly
/// words), which needs no library; the one everybody used is no longer maintained.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Array(items) if items.is_empty() => text.push_str("[]\n"),
        Value::Object(fields) if fields.is_empty() => text.push_str("{}\n"),
        _ => put_yaml(&mut text, value, 0, false),
    }
    text
}

fn put_yaml(text: &mut String, value: &Value, indent: usize, after_dash: bool) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&" ".repeat(indent));
                text.push_str("- ");
                put_yaml(text, item, indent + 2, true);
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (name, field)) in fields.iter().enumerate() {
                if index > 0 || !after_dash {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(&yaml_text(name));
                text.push(':');
                let nested = match field {
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(fields) => !fields.is_empty(),
                    _ => false,
                };
                text.push(if nested { '\n' } else { ' ' });
                put_yaml(text, field, indent + 2, false);
            }
        }
        scalar => {
            match scalar {
                Value::String(string) => text.push_str(&yaml_text(string)),
                Value::Array(_) => text.push_str("[]"),
                Value::Object(_) => text.push_str("{}"),
                other => text.push_str(&other.to_string()),
            }
            text.push('\n');
        }
    }
}

/// Quotes what could be read as anything but this text.
fn yaml_text(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|character| {
            character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | '/')
        })
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_unambiguous() {
        let value = json!({
            "name": "greetings", "off": "no", "count": 3, "empty": [], "none": null,
            "partitions": [{"index": 0, "isr": [1, 2]}, {"index": 1, "isr": []}],
            "text": "a: b\n"
        });
        let expected = "name: greetings\n\"off\": \"no\"\ncount: 3\nempty: []\nnone: null\n\
            partitions:\n  - index: 0\n    isr:\n      - 1\n      - 2\n  - index: 1\n    isr: []\n\
            text: \"a: b\\n\"\n";
        assert_eq!(yaml(&value), expected);
        assert_eq!(yaml(&json!([])), "[]\n");
    }
}
