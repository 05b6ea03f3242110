//! Where a demo shows what it does: a picture that changes in place on a terminal, lines elsewhere.

use std::io::{self, IsTerminal, Write};

/// How a piece of text is to look, where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As the terminal likes it.
    Plain,
    /// Stands back.
    Dim,
    /// Stands out.
    Bold,
    /// Blue, for bars and the like.
    Blue,
    /// Green, for what is well.
    Green,
    /// Yellow, for what is in progress.
    Yellow,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Blue => "\x1b[36m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
        }
    }
}

/// One row of a picture.
#[derive(Clone, Debug, Default)]
pub struct Row(Vec<(Paint, String)>);

impl Row {
    /// An empty row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text. Control characters, which foreign data may bring, become spaces.
    pub fn text(mut self, paint: Paint, text: impl AsRef<str>) -> Self {
        self.0.push((paint, text.as_ref().replace(char::is_control, " ")));
        self
    }

    /// The row for a terminal of `width` columns.
    fn render(&self, width: usize, colors: bool) -> String {
        let mut out = String::new();
        let mut left = width;
        for (paint, text) in &self.0 {
            let cut: String = text.chars().take(left).collect();
            left -= cut.chars().count();
            match paint.code() {
                code if colors && !code.is_empty() => {
                    out.push_str(code);
                    out.push_str(&cut);
                    out.push_str("\x1b[0m");
                }
                _ => out.push_str(&cut),
            }
        }
        out
    }
}

/// Where a demo shows what it does.
pub struct Screen {
    out: Box<dyn Write + Send + Sync>,
    live: bool,
    colors: bool,
    drawn: usize,
}

impl Screen {
    /// The standard output.
    pub fn stdout() -> Self {
        let live = io::stdout().is_terminal();
        let colors = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out: Box::new(io::stdout()), live, colors, drawn: 0 }
    }

    /// A screen that takes lines only.
    pub fn lines(out: impl Write + Send + Sync + 'static) -> Self {
        Self { out: Box::new(out), live: false, colors: false, drawn: 0 }
    }

    /// Whether somebody watches, so that pictures are drawn.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Writes a line that stays, above the picture.
    pub fn say(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        let line = line.as_ref();
        self.clear()?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Draws a picture in the place of the last one.
    pub fn draw(&mut self, rows: &[Row]) -> io::Result<()> {
        let (width, height) = size();
        // The cursor cannot go back to what has scrolled away.
        let rows = &rows[..rows.len().min(height)];
        let mut text = String::new();
        for row in rows {
            text.push_str(&row.render(width, self.colors));
            text.push('\n');
        }
        self.clear()?;
        self.out.write_all(text.as_bytes())?;
        self.drawn = rows.len();
        self.out.flush()
    }

    /// Takes the picture away, or lets it stay for good where `say` is next.
    fn clear(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }

    /// Leaves the last picture where it is.
    pub fn keep(&mut self) {
        self.drawn = 0;
    }
}

/// Columns and rows that a picture may fill.
fn size() -> (usize, usize) {
    let (columns, rows) = match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    };
    // One less, so that a full line does not wrap on terminals that wrap early.
    (usize::from(columns).saturating_sub(1).max(20), usize::from(rows).saturating_sub(1).max(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_control_characters_kept_away() {
        let row = Row::new().text(Paint::Bold, "né\x1b[2J").text(Paint::Plain, "|much more");
        assert_eq!(row.render(8, false), "né [2J|m");
        assert_eq!(row.render(2, true), "\x1b[1mné\x1b[0m");
    }
}
