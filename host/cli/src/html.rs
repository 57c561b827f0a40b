//! Pieces of the pages that the program writes.

use std::fmt::Write;

/// Text as HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A table. The first column is text, others are numbers; cells given by row and column have a
/// class of the page's style.
pub fn table(head: &[&str], rows: &[Vec<String>], class: &str, cells: &[(usize, usize)]) -> String {
    let mut out = String::from(r#"<div class="scroll"><table><thead><tr>"#);
    for cell in head {
        let _ = write!(out, "<th>{}</th>", escaped(cell));
    }
    out.push_str("</tr></thead><tbody>");
    for (i, row) in rows.iter().enumerate() {
        out.push_str("<tr>");
        for (j, cell) in row.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = if cells.contains(&(i, j)) {
                write!(out, "<td class=\"{class}\">{}</td>", escaped(cell))
            } else {
                write!(out, "<td>{}</td>", escaped(cell))
            };
        }
        out.push_str("</tr>");
    }
    out + "</tbody></table></div>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let table = table(
            &["<a>"],
            &[vec!["\"x\" & 'y'".into(), "1".into()]],
            "best",
            &[(0, 1)],
        );
        assert!(table.contains("<th>&lt;a&gt;</th>"));
        assert!(table.contains("<td>&quot;x&quot; &amp; &#39;y&#39;</td>"));
        assert!(table.contains("<td class=\"best\">1</td>"));
    }
}
