//! Aligned tables. Styled always; [`anstream`] strips what a pipe, `NO_COLOR` or `--no-color` does not want.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// Good.
    Good,
    /// Needs a look.
    Warning,
    /// Bad.
    Bad,
    /// Unimportant.
    Quiet,
}

/// A cell.
pub(super) struct Field {
    text: String,
    tone: Tone,
    right: bool,
}

impl Field {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
            right: false,
        }
    }

    /// A number, aligned to the right.
    pub(super) fn number(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
            right: true,
        }
    }

    fn cell(self) -> Cell {
        let cell = Cell::new(self.text).set_alignment(if self.right {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        });
        match self.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Warning => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red).add_attribute(Attribute::Bold),
            Tone::Quiet => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// The table, a line a row, ending in a newline.
pub(super) fn render(header: &[&str], rows: Vec<Vec<Field>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .enforce_styling();
    table.set_header(header.iter().map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
    for row in rows {
        table.add_row(row.into_iter().map(Field::cell));
    }
    // Else the padding is styled too, and cannot be trimmed from the end of a line.
    table.style_text_only();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
