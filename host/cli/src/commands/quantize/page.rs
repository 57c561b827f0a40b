//! `--report`: what a quantization cost, as one page.

use std::fmt::Write;

use loftup_bundle::{ErrorStats, Precision};
use loftup_convert::quantize::{FileSize, LayerReport, Report, Timing};

use crate::html::{escaped, table};

const STYLE: &str = "
:root { --back: #fbfbf9; --text: #1d2327; --soft: #5c676f; --line: #e2e3df; --accent: #b4471d; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171a; --text: #e6e8ea; --soft: #9aa5ad; --line: #31373d; --accent: #ff9466; }
}
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 68rem; background: var(--back);
  color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
p { max-width: 48rem; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.fp32 { color: var(--accent); }
";

/// The report as one HTML page that needs nothing else.
pub fn page(report: &Report) -> String {
    let q = &report.quantization;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{precision} of {bundle}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>{bundle} in {precision}</h1>\n\
         <p>Measured on {} calibration images, {} tiles of their outputs, against the fp32 \
         bundle. The quantized graphs were run with their rounding. Times are for the backends \
         on this machine; a CPU computes in fp32 with the rounded weights.</p>\n",
        q.calibration.images,
        q.calibration.tiles,
        precision = report.precision,
        bundle = escaped(&report.bundle.display().to_string()),
    );
    section(&mut page, "Quantization error", "");
    let mut rows = vec![error_row("end to end", &q.error)];
    rows.extend(
        q.graphs
            .iter()
            .map(|(name, error)| error_row(&format!("{name} alone"), error)),
    );
    let head = ["", "relative error", "cosine", "worst vector", "outliers"];
    page.push_str(&table(&head, &rows, "", &[]));
    let _ = writeln!(
        page,
        "<p class=\"soft\">Outliers differ by more than a tenth of the sum of their magnitude and \
         the root mean square. The worst vector has index {} in its tile, on \
         {}. On the built-in test image the relative error is {:.4} for the quantized graphs and {:.4} with \
         only the rounded weights; <code>loftup verify</code> measures that again.</p>",
        report.worst.place,
        escaped(&report.worst_image.display().to_string()),
        q.check.as_written,
        q.check.fp32
    );
    if let Some(head) = &q.head {
        section(
            &mut page,
            "Accuracy of the head",
            &format!(
                "Mean IoU of head {} on {} labeled images.",
                head.name, head.images
            ),
        );
        let row = vec![
            head.name.clone(),
            percent(head.mean_iou_before),
            percent(head.mean_iou_after),
            format!(
                "{:+.2} points",
                100.0 * (head.mean_iou_after - head.mean_iou_before)
            ),
        ];
        page.push_str(&table(
            &["head", "fp32", report.precision.name(), "change"],
            &[row],
            "",
            &[],
        ));
    }
    section(&mut page, "Size", "");
    let size = |f: &FileSize| {
        let mb = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
        let share = 100.0 * f.after as f64 / f.before.max(1) as f64;
        vec![
            f.graph.clone(),
            mb(f.before),
            mb(f.after),
            format!("{share:.0} %"),
        ]
    };
    let rows: Vec<_> = report.files.iter().map(size).collect();
    page.push_str(&table(
        &["graph", "fp32", report.precision.name(), ""],
        &rows,
        "",
        &[],
    ));
    section(&mut page, "Time per frame", "");
    let time = |t: &Timing| {
        let ms = |s: f64| format!("{:.1} ms", 1e3 * s);
        vec![t.engine.clone(), ms(t.before), ms(t.after)]
    };
    let rows: Vec<_> = report.timings.iter().map(time).collect();
    page.push_str(&table(
        &["engine", "fp32", report.precision.name()],
        &rows,
        "",
        &[],
    ));
    if !report.notes.is_empty() {
        section(&mut page, "Notes", "");
        page.push_str("<ul>");
        for note in &report.notes {
            let _ = write!(page, "<li>{}</li>", escaped(note));
        }
        page.push_str("</ul>\n");
    }
    section(
        &mut page,
        "Layers",
        "Sensitivity is the relative error of a few small tiles of the output with only this layer \
         quantized, if it was measured; the other columns compare the layer's own output in the quantized graph, errors of \
         earlier layers included. Layers that stay in fp32 are highlighted.",
    );
    let layer = |l: &LayerReport| {
        let number = |x: f64| format!("{x:.2e}");
        vec![
            format!("{}: {}", l.graph, l.name),
            l.op.clone(),
            l.precision.into(),
            l.calibrator.unwrap_or("").into(),
            l.range.map_or(String::new(), |r| format!("{r:.3}")),
            l.sensitivity.map_or(String::new(), number),
            number(l.relative_error),
            format!("{:.5}", l.cosine),
            format!("{:.5}", l.worst_cosine),
        ]
    };
    let rows: Vec<_> = report.layers.iter().map(layer).collect();
    let head = [
        "layer",
        "operator",
        "precision",
        "calibrator",
        "range",
        "sensitivity",
        "relative error",
        "cosine",
        "worst",
    ];
    let fp32 = (0..rows.len()).filter(|i| report.layers[*i].precision == Precision::Fp32.name());
    let fp32: Vec<_> = fp32
        .flat_map(|i| (0..head.len()).map(move |j| (i, j)))
        .collect();
    page.push_str(&table(&head, &rows, "fp32", &fp32));
    page.push_str("</body></html>\n");
    page
}

fn section(page: &mut String, title: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "<h2>{}</h2>", escaped(title));
    if !text.is_empty() {
        let _ = writeln!(page, "<p>{}</p>", escaped(text));
    }
}

fn error_row(name: &str, error: &ErrorStats) -> Vec<String> {
    vec![
        name.into(),
        format!("{:.2e}", error.relative_error),
        format!("{:.6}", error.cosine),
        format!("{:.5}", error.worst_cosine),
        format!("{:.3} %", 100.0 * error.outliers),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
