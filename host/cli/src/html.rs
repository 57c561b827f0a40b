//! HTML that several reports share.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A self-contained page.
pub fn page(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A table. The first column contains text, the others numbers. The cells at `highlighted`, given by row
/// and column, have the class `class`.
pub fn table(
    head: &[&str],
    rows: &[Vec<String>],
    class: &str,
    highlighted: &[(usize, usize)],
) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead { tr { @for cell in head { th { (cell) } } } }
                tbody {
                    @for (i, row) in rows.iter().enumerate() {
                        tr {
                            @for (j, cell) in row.iter().enumerate() {
                                td class=[highlighted.contains(&(i, j)).then_some(class)] { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_cells_are_highlighted() {
        let rows = [vec!["\"x\" & 'y'".into(), "1".into()]];
        let table = table(&["<a>"], &rows, "best", &[(0, 1)]).into_string();
        assert!(table.contains("<th>&lt;a&gt;</th>"));
        assert!(table.contains("<td>&quot;x&quot; &amp; 'y'</td>"));
        assert!(table.contains("<td class=\"best\">1</td>"));
    }
}
