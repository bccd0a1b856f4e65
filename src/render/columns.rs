//! Text in aligned columns, for the terminal.

/// A heading and rows, a blank at the left of each column and two between them.
pub fn aligned(head: &[String], rows: &[Vec<String>]) -> String {
    let lines = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let width = |c: usize| lines().filter_map(|l| l.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| -> String {
        let padded: String = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} ")).collect();
        padded.trim_end().to_string()
    };
    lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let text = aligned(&row(["method", "srg ↑"]), &[row(["gae", "0.1"]), row(["(random)", ""])]);
        assert_eq!(text, " method    srg ↑\n gae       0.1\n (random)");
    }
}
