//! The two graphs of tiled NAF.

use loftup_spec::{
    io::{
        self,
        naf::{
            BIAS, CELLS, KEYS, ORDER, PIXELS, POOL_COLUMNS, POOL_ROWS, ROTARY_COLUMNS, ROTARY_ROWS,
            SCALES, SHIFTS, VALUES,
        },
    },
    naf::{CHANNELS, HEADS, LAYERS, NafWeights, PERIODS, TAPS, WIDTH},
};

use super::encode::{Groups, Norms, Rotary, attention, encodings, keys};
use crate::{Attr, Dim, Graph, Value};

/// Number of layers of both branches.
const NORMS: usize = 2 * LAYERS;

/// Writes the graph that runs once per frame: inputs [`io::naf::KEYS_INPUTS`], outputs [`io::naf::KEYS_OUTPUTS`].
pub fn keys_graph(weights: &NafWeights) -> Vec<u8> {
    let mut g = Graph::new("naf-keys");
    let image = g.input(
        io::GUIDANCE,
        &[1.into(), 3.into(), "rows".into(), "columns".into()],
    );
    let rotary = rotary(&mut g, 1.into(), "rows", "columns");
    let pool_rows = g.input(POOL_ROWS, &["cell_rows".into(), "rows".into()]);
    let pool_columns = g.input(POOL_COLUMNS, &["cell_columns".into(), "columns".into()]);
    let mut norms = Norms::computed();
    let x = encodings(&mut g, &image, weights, &mut norms, &rotary);
    let keys = g.scope("keys", |g| keys(g, &x, &pool_rows, &pool_columns));
    if let Norms::Computed(all) = norms {
        let table = |g: &mut Graph, parts: Vec<&Value>| {
            let x = g.concat(&parts, 0);
            g.reshape(&x, &[NORMS as i64, WIDTH as i64])
        };
        let scales = table(&mut g, all.iter().map(|(scale, _)| scale).collect());
        let shifts = table(&mut g, all.iter().map(|(_, shift)| shift).collect());
        g.output(&scales, SCALES, &[NORMS.into(), WIDTH.into()]);
        g.output(&shifts, SHIFTS, &[NORMS.into(), WIDTH.into()]);
    }
    g.output(&keys, KEYS, &["cells".into(), CHANNELS.into()]);
    g.finish()
}

/// Writes the graph that runs once per tile or batch of tiles: inputs [`io::naf::QUERIES_INPUTS`], outputs
/// [`io::naf::QUERIES_OUTPUTS`].
pub fn queries_graph(weights: &NafWeights) -> Vec<u8> {
    let mut g = Graph::new("naf-queries");
    let image = g.input(
        io::GUIDANCE,
        &[
            "tiles".into(),
            3.into(),
            "rows_with_halo".into(),
            "columns_with_halo".into(),
        ],
    );
    let rotary = rotary(
        &mut g,
        "tiles".into(),
        "rows_with_halo",
        "columns_with_halo",
    );
    let groups = Groups {
        pixels: g.input(PIXELS, &["groups".into(), "group_pixels".into()]),
        cells: g.input(CELLS, &["groups".into(), TAPS.into()]),
        order: g.input(ORDER, &["pixels".into()]),
    };
    let scales = g.input(SCALES, &[NORMS.into(), WIDTH.into()]);
    let shifts = g.input(SHIFTS, &[NORMS.into(), WIDTH.into()]);
    let keys = g.input(KEYS, &["cells".into(), CHANNELS.into()]);
    let values = g.input(VALUES, &["cells".into(), "values".into()]);
    let bias = g.input(BIAS, &["outputs".into()]);
    let mut norms = Norms::Given { scales, shifts };
    let x = encodings(&mut g, &image, weights, &mut norms, &rotary);
    let x = g.scope("attention", |g| attention(g, &x, &keys, &values, &groups));
    let head = g.scope("head", |g| {
        let x = g.reshape(&x, &[0, HEADS as i64, -1]);
        let axes = g.ints("axes", &[1]);
        let x = g.op("ReduceSum", &[&x, &axes], &[Attr::Int("keepdims", 0)]);
        g.add(&x, &bias)
    });
    g.output(&x, io::UPSAMPLED, &["pixels".into(), "values".into()]);
    g.output(&head, io::HEAD, &["pixels".into(), "outputs".into()]);
    g.finish()
}

fn rotary(g: &mut Graph, tiles: Dim, rows: &'static str, columns: &'static str) -> Rotary {
    let mut input = |name: &str, axis: &'static str| {
        g.input(
            name,
            &[2.into(), tiles.clone(), axis.into(), PERIODS.into()],
        )
    };
    Rotary {
        rows: input(ROTARY_ROWS, rows),
        columns: input(ROTARY_COLUMNS, columns),
    }
}
