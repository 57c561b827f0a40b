//! Curves as SVG.

use maud::{Markup, html};

/// Size of the drawing in SVG units; the page scales it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
/// Margins for the labels.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 50.0;
/// Momentum of the running mean.
const MOMENTUM: f64 = 0.85;

/// The values of steps 1, 2, ... as a thin curve, and their running mean as a thick one. Values that
/// are not finite are skipped.
pub fn curve(values: &[f64], x_label: &str, y_label: &str) -> Markup {
    let points: Vec<(f64, f64)> = values
        .iter()
        .enumerate()
        .filter(|(_, y)| y.is_finite())
        .map(|(i, y)| ((i + 1) as f64, *y))
        .collect();
    let (low, high) = points
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, y)| {
            (low.min(*y), high.max(*y))
        });
    if points.is_empty() {
        return html! {};
    }
    let ticks = ticks(low, high);
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let last = values.len().max(2) as f64;
    let x = |step: f64| LEFT + (step - 1.0) / (last - 1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let decimals = (-(high - low).log10().floor() + 1.0).clamp(0.0, 6.0) as usize;
    let mut mean = None;
    let smooth: Vec<(f64, f64)> = points
        .iter()
        .map(|(step, value)| {
            let next = mean.map_or(*value, |m: f64| MOMENTUM * m + (1.0 - MOMENTUM) * value);
            mean = Some(next);
            (*step, next)
        })
        .collect();
    let polyline = |points: &[(f64, f64)]| {
        let points = points
            .iter()
            .map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value)));
        points.collect::<Vec<_>>().join(" ")
    };
    let unit = |v: f64| format!("{v:.1}");
    html! {
        svg class="plot" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
            aria-label=(format!("{y_label} by {x_label}")) {
            @for tick in &ticks {
                line class="grid" x1=(LEFT) x2=(unit(WIDTH - RIGHT)) y1=(unit(y(*tick)))
                    y2=(unit(y(*tick))) {}
                text x=(unit(LEFT - 8.0)) y=(unit(y(*tick) + 4.5)) text-anchor="end" {
                    (format!("{tick:.decimals$}"))
                }
            }
            @for step in [1.0, ((1.0 + last) / 2.0).round(), last] {
                text x=(unit(x(step))) y=(unit(HEIGHT - BOTTOM + 18.0)) text-anchor="middle" {
                    (step)
                }
            }
            text x=(unit((LEFT + WIDTH - RIGHT) / 2.0)) y=(unit(HEIGHT - 6.0))
                text-anchor="middle" { (x_label) }
            polyline class="raw" points=(polyline(&points)) {}
            polyline class="mean" points=(polyline(&smooth)) {}
        }
    }
}

/// Round numbers around everything from `low` to `high`, at least two.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let extent = (high - low).max(1e-6 * high.abs()).max(1e-9);
    let power = 10f64.powf((extent / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|f| f * power)
        .into_iter()
        .find(|step| extent / step <= 5.0)
        .unwrap_or(10.0 * power);
    let first = (low / step).floor();
    let last = (high / step).ceil().max(first + 1.0);
    (0..=(last - first) as usize)
        .map(|i| (first + i as f64) * step)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_round_numbers_around_all_values() {
        for (low, high) in [(0.31, 0.94), (12.0, 12.0), (-3.0, 4500.0), (0.0, 0.0)] {
            let ticks = ticks(low, high);
            assert!((2..=8).contains(&ticks.len()), "{ticks:?}");
            assert!(
                ticks[0] <= low && ticks[ticks.len() - 1] >= high,
                "{ticks:?}"
            );
        }
        let found: Vec<String> = ticks(0.31, 0.94)
            .iter()
            .map(|t| format!("{t:.1}"))
            .collect();
        assert_eq!(found, ["0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn a_curve_has_a_point_for_each_number_and_none_outside_the_drawing() {
        let svg = curve(&[1.0, 0.5, f64::NAN, 0.25], "step", "loss").into_string();
        let raw = svg.split("class=\"raw\" points=\"").nth(1).unwrap();
        let points: Vec<(f64, f64)> = raw[..raw.find('"').unwrap()]
            .split(' ')
            .map(|p| p.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(points.len(), 3);
        assert!(points[0].1 < points[1].1 && points[1].1 < points[2].1);
        for (x, y) in points {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
        assert_eq!(curve(&[], "step", "loss").into_string(), "");
    }
}
