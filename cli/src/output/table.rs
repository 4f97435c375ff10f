//! Columns of text, as wide as they need to be, without lines between them.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table as Columns};

use super::harmless;

/// A table that grows row by row.
pub struct Table {
    columns: Columns,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        let mut columns = Columns::new();
        columns.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        columns.set_header(headings.iter().copied());
        for column in columns.column_iter_mut() {
            column.set_padding((0, 2));
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
}
