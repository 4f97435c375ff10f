//! Columns of text, as wide as they need to be, without lines between them.
//!
//! On a terminal that is too narrow, the longest cells go on below themselves. What is written to
//! a pipe or a file is never broken.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table as Columns};

use super::harmless;

/// A table that grows row by row.
pub struct Table {
    columns: Columns,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        let mut columns = Columns::new();
        columns.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if cfg!(test) {
            // What a test expects does not depend on the terminal that it runs in.
            columns.force_no_tty();
        }
        columns.set_header(headings.iter().copied());
        for column in columns.column_iter_mut() {
            column.set_padding((0, 2));
        }
        // A name that somebody copies stays in one piece.
        if let Some(name) = columns.column_mut(0) {
            name.set_constraint(ColumnConstraint::ContentWidth);
        }
        Self { columns }
    }

    /// Adds a row; every cell is made harmless.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.columns.add_row(cells.map(|cell| harmless(&cell)));
    }

    /// The table without blanks at the ends of its lines and without a last newline.
    pub fn show(&self) -> String {
        self.columns.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_stand_under_their_headings() {
        let mut table = Table::new(&["TASK", "STATUS"]);
        table.row(["task-1".to_owned(), "running".to_owned()]);
        table.row(["task-1000000".to_owned(), "a\nb".to_owned()]);
        insta::assert_snapshot!(table.show(), @r"
        TASK          STATUS
        task-1        running
        task-1000000  a b
        ");
    }

    #[test]
    fn a_narrow_terminal_breaks_cells_and_never_names() {
        let mut table = Table::new(&["TASK", "STATUS", "WHY IT WAITS"]);
        table.columns.set_width(40);
        let why = "worker-2: wants 4 cores, 1.5 free";
        table.row(["task-1000000.17".to_owned(), "queued".to_owned(), why.to_owned()]);
        let shown = table.show();
        assert!(shown.lines().all(|line| line.len() <= 40), "{shown}");
        assert!(shown.lines().any(|line| line.starts_with("task-1000000.17  queued")), "{shown}");
    }
}
