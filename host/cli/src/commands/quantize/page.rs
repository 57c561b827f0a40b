//! The quantization report as an HTML page.

use loftup_bundle::{ErrorStats, HeadAccuracy, Precision, Quantization};
use loftup_convert::quantize::{FileSize, LayerReport, Report, Timing};
use maud::{Markup, html};

use crate::html::{self, table};

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

/// The report as one self-contained HTML page.
pub fn page(report: &Report) -> String {
    let q = &report.quantization;
    let precision = report.precision.name();
    let title = report.bundle.display().to_string();
    let worst_image = report.worst_image.display().to_string();
    let check = |error: f64| format!("{error:.4}");
    let body = html! {
        h1 { (title) " in " (precision) }
        p {
            "Measured on " (q.calibration.images) " calibration images, "
            (q.calibration.tiles) " tiles of their outputs, against the fp32 bundle. The \
             quantized graphs were run with their rounding. Times are for the backends on \
             this machine; a CPU computes in fp32 with the rounded weights."
        }
        h2 { "Quantization error" }
        (errors(q))
        p class="soft" {
            "Outliers differ by more than a tenth of the sum of their magnitude and the root \
             mean square. The worst vector has index " (report.worst.place)
            " in its tile, on " (worst_image) ". On the built-in test image the relative \
             error is " (check(q.check.as_written)) " for the quantized graphs and "
            (check(q.check.fp32)) " with only the rounded weights; "
            code { "loftup verify" } " measures that again."
        }
        @if let Some(head) = &q.head {
            h2 { "Accuracy of the head" }
            p { "Mean IoU of head " (head.name) " on " (head.images) " labeled images." }
            (accuracy(head, precision))
        }
        h2 { "Size" }
        (sizes(&report.files, precision))
        h2 { "Time per frame" }
        (timings(&report.timings, precision))
        @if !report.notes.is_empty() {
            h2 { "Notes" }
            ul { @for note in &report.notes { li { (note) } } }
        }
        h2 { "Layers" }
        p {
            "Sensitivity is the relative error of a few small tiles of the output with only \
             this layer quantized, if it was measured; the other columns compare the layer's \
             own output in the quantized graph, errors of earlier layers included. Layers \
             that stay in fp32 are highlighted."
        }
        (layers(&report.layers))
    };
    html::page(&format!("{precision} of {title}"), STYLE, &body)
}

fn errors(q: &Quantization) -> Markup {
    let mut rows = vec![error_row("end to end", &q.error)];
    rows.extend(
        q.graphs
            .iter()
            .map(|(name, error)| error_row(&format!("{name} alone"), error)),
    );
    let head = ["", "relative error", "cosine", "worst vector", "outliers"];
    table(&head, &rows, "", &[])
}

fn accuracy(head: &HeadAccuracy, precision: &str) -> Markup {
    let change = 100.0 * (head.mean_iou_after - head.mean_iou_before);
    let row = vec![
        head.name.clone(),
        percent(head.mean_iou_before),
        percent(head.mean_iou_after),
        format!("{change:+.2} points"),
    ];
    table(&["head", "fp32", precision, "change"], &[row], "", &[])
}

fn sizes(files: &[FileSize], precision: &str) -> Markup {
    let row = |f: &FileSize| {
        let mb = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
        let share = 100.0 * f.after as f64 / f.before.max(1) as f64;
        vec![
            f.graph.clone(),
            mb(f.before),
            mb(f.after),
            format!("{share:.0} %"),
        ]
    };
    let rows: Vec<_> = files.iter().map(row).collect();
    table(&["graph", "fp32", precision, ""], &rows, "", &[])
}

fn timings(timings: &[Timing], precision: &str) -> Markup {
    let row = |t: &Timing| {
        let ms = |s: f64| format!("{:.1} ms", 1e3 * s);
        vec![t.engine.clone(), ms(t.before), ms(t.after)]
    };
    let rows: Vec<_> = timings.iter().map(row).collect();
    table(&["engine", "fp32", precision], &rows, "", &[])
}

fn layers(layers: &[LayerReport]) -> Markup {
    let row = |l: &LayerReport| {
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
    let rows: Vec<_> = layers.iter().map(row).collect();
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
    let fp32 = (0..rows.len()).filter(|i| layers[*i].precision == Precision::Fp32.name());
    let fp32: Vec<_> = fp32
        .flat_map(|i| (0..head.len()).map(move |j| (i, j)))
        .collect();
    table(&head, &rows, "fp32", &fp32)
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
