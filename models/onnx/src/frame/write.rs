//! Writes a frame graph.

use loftup_spec::{HALO, io, linspace, min_max_scale};
use prost::Message;

use super::{
    Area, Backbone, Extent, FrameError, FrameGraph, Linear, LoftUp, Output, Tile, Upsampler,
    part::Part, resized,
};
use crate::{
    Attr, Dim, Graph, LARGEST, Tensor, Value,
    loftup::min_max,
    pb::{StringStringEntryProto, tensor_proto::DataType},
};

/// Class of a pixel whose scores are not finite.
const NO_CLASS: f32 = 255.0;
/// Upper limit of the mean square of the scores of a pixel: far above any score, and below infinity.
const LIMIT: f32 = f32::MAX;

impl FrameGraph<'_> {
    /// Writes the graph: input [`io::frame::IMAGE`], outputs as requested.
    ///
    /// # Errors
    /// A graph of the bundle cannot be included, or the result is too large for an ONNX file.
    pub fn write(&self) -> Result<Vec<u8>, FrameError> {
        let mut g = Graph::new("loftup-frame");
        let (rows, columns) = self.camera;
        let shape = [1, rows, columns, 3].map(Dim::from);
        let image = g.input_of(io::frame::IMAGE, DataType::Uint8, &shape);
        let image = g.cast(&image, DataType::Float);
        let image = g.transpose(&image, &[0, 3, 1, 2]);

        let small = g.scope("resize.backbone", |g| resized(g, &image, &self.resize[0]));
        let large = match self.backbone.size == self.size {
            true => small.clone(),
            false => g.scope("resize.guidance", |g| resized(g, &image, &self.resize[1])),
        };
        let input = normalized(&mut g, &small, self.normalization);
        let features = backbone(&mut g, &self.backbone, &input)?;
        let results = match &self.upsampler {
            Upsampler::LoftUp(loftup) => self.loftup(&mut g, &features, &large, loftup)?,
            Upsampler::Naf(naf) => {
                let guidance = normalized(&mut g, &large, naf.normalization);
                self.naf(&mut g, &features, &guidance, naf.whole)?
            }
        };
        self.declare(&mut g, &results);

        let mut model = g.finish_model();
        model.metadata_props = (self.metadata.iter())
            .map(|(key, value)| StringStringEntryProto {
                key: key.clone(),
                value: value.clone(),
            })
            .collect();
        let bytes = model.encoded_len() as u64;
        if bytes > LARGEST {
            return Err(FrameError::TooLarge { bytes });
        }
        Ok(model.encode_to_vec())
    }

    /// The results of all pixels after LoftUp, from the features and the levels of the image.
    fn loftup(
        &self,
        g: &mut Graph,
        features: &Value,
        levels: &Value,
        loftup: &LoftUp<'_>,
    ) -> Result<Vec<Value>, FrameError> {
        let (rows, cols) = self.backbone.grid;
        let lines = (linspace(-1.0, 1.0, rows), linspace(-1.0, 1.0, cols));
        let tokens = rows * cols;
        let grid = Tensor::from_fn([2, tokens], |i| match i < tokens {
            true => lines.0[i / cols],
            false => lines.1[i % cols],
        });
        let grid = g.constant("grid", &grid);
        let features = g.reshape(features, &[1, tokens as i64, self.backbone.dim as i64]);
        let names: Vec<String> = (0..loftup.layers)
            .flat_map(|i| [io::key(i), io::value(i)])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let inputs = [(io::FEATURES, &features), (io::GRID, &grid)];
        let pairs = Part::new(g, "keys", loftup.keys)?.call(g, &inputs, &names)?;

        let (mean, std) = self.normalization;
        let scaled = match &loftup.range {
            None => {
                let guidance = normalized(g, levels, (mean, std));
                g.scope("min_max", |g| min_max(g, &guidance))
            }
            Some([min, max]) => g.scope("range", |g| {
                looked_up(g, levels, |c, level| {
                    min_max_scale((level / 255.0 - mean[c]) / std[c], min[c], max[c])
                })
            }),
        };
        let halo = HALO as i64;
        let pads = g.ints("pads", &[0, 0, halo, halo, 0, 0, halo, halo]);
        let padded = g.op("Pad", &[&scaled, &pads], &[]);
        let mut part = Part::new(g, "queries", loftup.queries)?;
        let mut done: Vec<Vec<Value>> = Vec::new();
        for tile in &loftup.tiles {
            let [colors, coords, mask] = tile_inputs(g, &padded, self.size, &tile.compute);
            let mut inputs = vec![
                (io::GUIDANCE, &colors),
                (io::COORDS, &coords),
                (io::MASK, &mask),
            ];
            inputs.extend(names.iter().copied().zip(&pairs));
            let x = part.call(g, &inputs, &[io::UPSAMPLED])?;
            let results = self.results(g, &x[0]);
            done.push(results.iter().map(|x| kept(g, x, tile)).collect());
        }
        let join = |g: &mut Graph, values: Vec<&Value>, axis: i64| match values[..] {
            [only] => only.clone(),
            _ => g.concat(&values, axis),
        };
        let results = 0..done.first().map_or(0, Vec::len);
        Ok(results
            .map(|i| {
                let rows: Vec<Value> = (done.chunks(loftup.columns))
                    .map(|row| join(g, row.iter().map(|tile| &tile[i]).collect(), 2))
                    .collect();
                join(g, rows.iter().collect(), 1)
            })
            .collect())
    }

    /// The results of all pixels after NAF.
    fn naf(
        &self,
        g: &mut Graph,
        features: &Value,
        guidance: &Value,
        whole: &[u8],
    ) -> Result<Vec<Value>, FrameError> {
        let Backbone { dim, grid, .. } = self.backbone;
        let map = g.transpose(features, &[0, 2, 1]);
        let map = g.reshape(&map, &[1, dim as i64, grid.0 as i64, grid.1 as i64]);
        let inputs = [(io::FEATURES, &map), (io::GUIDANCE, guidance)];
        let x = Part::new(g, "upsampler", whole)?.call(g, &inputs, &[io::UPSAMPLED])?;
        let x = g.transpose(&x[0], &[0, 2, 3, 1]);
        let x = g.reshape(&x, &[-1, dim as i64]);
        let whole = Area {
            row: 0,
            column: 0,
            rows: self.size.0,
            columns: self.size.1,
        };
        let tile = Tile {
            compute: whole,
            keep: whole,
        };
        let results = self.results(g, &x);
        Ok(results.iter().map(|x| kept(g, x, &tile)).collect())
    }

    /// The results for features `[n, d]`, each `[n, channels]`.
    fn results(&self, g: &mut Graph, features: &Value) -> Vec<Value> {
        match self.output {
            Output::Features => vec![features.clone()],
            Output::Scores(head) => vec![scores(g, features, head)],
            Output::Classes {
                head,
                scores: also_scores,
            } => {
                let scores = scores(g, features, head);
                let classes = classes(g, &scores);
                match also_scores {
                    true => vec![classes, scores],
                    false => vec![classes],
                }
            }
        }
    }

    /// Declares the outputs.
    fn declare(&self, g: &mut Graph, results: &[Value]) {
        let (rows, columns) = self.size;
        let names = match self.output {
            Output::Features => &[io::frame::FEATURES][..],
            Output::Scores(_) => &[io::frame::SCORES],
            Output::Classes { .. } => &[io::frame::CLASSES, io::frame::SCORES],
        };
        for (name, x) in names.iter().zip(results) {
            if *name == io::frame::CLASSES {
                let x = g.reshape(x, &[1, rows as i64, columns as i64]);
                let shape = [1, rows, columns].map(Dim::from);
                g.output_as(&x, name, DataType::Uint8, &shape);
                continue;
            }
            let channels = match self.output {
                Output::Features => self.backbone.dim,
                Output::Scores(head) | Output::Classes { head, .. } => head.bias.data().len(),
            };
            g.output(x, name, &[1, rows, columns, channels].map(Dim::from));
        }
    }
}

/// `(level / 255 - mean) / std`.
fn normalized(g: &mut Graph, levels: &Value, (mean, std): ([f32; 3], [f32; 3])) -> Value {
    let value = |c: usize, level: f32| (level / 255.0 - mean[c]) / std[c];
    g.scope("normalize", |g| looked_up(g, levels, value))
}

/// The value of each level in its channel, from a table: it then has the bits of the CPU's on every engine.
/// LoftUp multiplies the guidance by up to e^10, so that one ulp changes a phase by 1e-3.
fn looked_up(g: &mut Graph, levels: &Value, value: impl Fn(usize, f32) -> f32) -> Value {
    const LEVELS: usize = 256;
    let table = Tensor::from_fn([3 * LEVELS], |i| value(i / LEVELS, (i % LEVELS) as f32));
    let table = g.constant("table", &table);
    let start = g.constant("start", &per_channel(|c| (c * LEVELS) as f32));
    let index = g.add(levels, &start);
    let index = g.cast(&index, DataType::Int32);
    g.op("Gather", &[&table, &index], &[])
}

fn per_channel(f: impl FnMut(usize) -> f32) -> Tensor {
    Tensor::from_fn([1, 3, 1, 1], f)
}

/// The features of the backbone, `[1, h * w, d]`.
fn backbone(g: &mut Graph, backbone: &Backbone<'_>, image: &Value) -> Result<Value, FrameError> {
    let inputs = [(backbone.input, image)];
    let x = Part::new(g, "backbone", backbone.onnx)?.call(g, &inputs, &[backbone.output])?;
    let (dim, tokens) = (
        backbone.dim as i64,
        (backbone.grid.0 * backbone.grid.1) as i64,
    );
    Ok(match backbone.extra_tokens {
        None => {
            let x = g.reshape(&x[0], &[1, dim, tokens]);
            g.transpose(&x, &[0, 2, 1])
        }
        Some(0) => x[0].clone(),
        Some(extra) => g.slice(&x[0], &[1], &[extra as i64], &[i64::MAX]),
    })
}

/// Colors, coordinates and mask of a tile with its halo, from the guidance padded by the halo.
fn tile_inputs(g: &mut Graph, padded: &Value, size: Extent, tile: &Area) -> [Value; 3] {
    let [(top, rows), (left, columns)] = [(tile.row, tile.rows), (tile.column, tile.columns)]
        .map(|(start, len)| (start, len + 2 * HALO));
    let start = [top as i64, left as i64];
    let end = [(top + rows) as i64, (left + columns) as i64];
    let colors = g.slice(padded, &[2, 3], &start, &end);
    // Outside the image the mask is 0, and the coordinates may be any finite value.
    let inside =
        |start: usize, i: usize, side: usize| (start + i).checked_sub(HALO).filter(|at| *at < side);
    let lines = (linspace(-1.0, 1.0, size.0), linspace(-1.0, 1.0, size.1));
    let row = |i: usize| inside(top, i, size.0);
    let column = |i: usize| inside(left, i, size.1);
    let at = |line: &[f32], at: Option<usize>| at.map_or(0.0, |at| line[at]);
    let y = Tensor::from_fn([1, 1, rows, 1], |i| at(&lines.0, row(i)));
    let x = Tensor::from_fn([1, 1, 1, columns], |i| at(&lines.1, column(i)));
    let shape = g.ints("shape", &[1, 1, rows as i64, columns as i64]);
    let [y, x] = [("rows", y), ("columns", x)].map(|(name, line)| {
        let line = g.constant(name, &line);
        g.op("Expand", &[&line, &shape], &[])
    });
    let coords = g.concat(&[&y, &x], 1);
    let mask = |inside: Option<usize>| if inside.is_some() { 1.0 } else { 0.0 };
    let y = Tensor::from_fn([1, 1, rows, 1], |i| mask(row(i)));
    let x = Tensor::from_fn([1, 1, 1, columns], |i| mask(column(i)));
    let (y, x) = (g.constant("rows", &y), g.constant("columns", &x));
    [colors, coords, g.mul(&y, &x)]
}

/// The kept part of the results `[n, channels]` of a tile, `[1, rows, columns, channels]`.
fn kept(g: &mut Graph, x: &Value, Tile { compute, keep }: &Tile) -> Value {
    let x = g.reshape(x, &[1, compute.rows as i64, compute.columns as i64, -1]);
    if keep == compute {
        return x;
    }
    let start = [keep.row - compute.row, keep.column - compute.column];
    let end = [start[0] + keep.rows, start[1] + keep.columns];
    g.slice(
        &x,
        &[1, 2],
        &start.map(|i| i as i64),
        &end.map(|i| i as i64),
    )
}

/// The outputs of a head, `[n, k]`.
fn scores(g: &mut Graph, features: &Value, head: Linear<'_>) -> Value {
    g.scope("head", |g| g.linear(features, head.weight, Some(head.bias)))
}

/// The class of each pixel as a float, `[n, 1]`: the first of the largest scores.
fn classes(g: &mut Graph, scores: &Value) -> Value {
    g.scope("classes", |g| {
        let best = [Attr::Int("axis", -1), Attr::Int("keepdims", 1)];
        let best = g.op("ArgMax", &[scores], &best);
        let best = g.cast(&best, DataType::Float);
        // False for NaN and infinity.
        let square = g.mul(scores, scores);
        let over = [Attr::Ints("axes", vec![-1]), Attr::Int("keepdims", 1)];
        let square = g.op("ReduceMean", &[&square], &over);
        let limit = g.scalar("limit", LIMIT);
        let finite = g.op("Less", &[&square, &limit], &[]);
        let none = g.scalar("no_class", NO_CLASS);
        g.op("Where", &[&finite, &best, &none], &[])
    })
}
