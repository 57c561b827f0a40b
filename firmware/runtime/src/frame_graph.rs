//! The graph of a whole frame, from a bundle: [`loftup_onnx::frame`].

use loftup_bundle::{FeatureLayout, Normalization, Size, UpsamplerKind};
use loftup_onnx::{
    Tensor,
    frame::{self, Area, FrameGraph, Tile, Weights},
    naf::{NafShape, whole_graph},
};

use crate::{
    ColorRange, Perceptor, Rect, RuntimeError,
    filter::naf,
    heads::Head,
    image::{MAX_SIDE, resize_weights},
    tiles::Tiling,
};

/// Longest side of a tile of the queries in a frame graph.
const TILE: usize = 224;

/// What a frame graph computes.
#[derive(Debug, Clone, Copy)]
pub struct FrameGraphQuery<'a> {
    /// Size of the camera image.
    pub camera: Size,
    /// Size of the output.
    pub size: Size,
    /// How the guidance is scaled. Only LoftUp uses it.
    pub range: ColorRange,
    /// Longest side of a tile of LoftUp's queries: memory grows with it. 224 by default.
    pub tile: Option<usize>,
    /// The output.
    pub output: FrameGraphOutput<'a>,
}

/// What a frame graph returns.
#[derive(Debug, Clone, Copy)]
pub enum FrameGraphOutput<'a> {
    /// The features.
    Features,
    /// The outputs of a head.
    Scores(&'a Head),
    /// The class of each pixel.
    Classes(&'a Head),
    /// The class of each pixel, and the outputs of the head.
    ClassesAndScores(&'a Head),
}

impl<'a> FrameGraphOutput<'a> {
    /// The head.
    pub fn head(&self) -> Option<&'a Head> {
        match self {
            Self::Features => None,
            Self::Scores(head) | Self::Classes(head) | Self::ClassesAndScores(head) => Some(head),
        }
    }
}

impl Perceptor {
    /// Writes one ONNX graph for a whole frame, in the precision of this perceptor: input `image`, uint8
    /// `[1, rows, columns, 3]`; outputs `classes`, uint8 `[1, H, W]`, `scores`, float32 `[1, H, W, k]`, or
    /// `features`, float32 `[1, H, W, d]`. `metadata` is stored in the file.
    ///
    /// # Errors
    /// If the bundle lacks a part, a size is not supported, the head is one of words or for another number
    /// of channels, or the graph is too large for an ONNX file.
    pub fn frame_graph(
        &self,
        query: &FrameGraphQuery<'_>,
        metadata: Vec<(String, String)>,
    ) -> Result<Vec<u8>, RuntimeError> {
        let bundle = self.bundle.path().display().to_string();
        let refused = |what: String| RuntimeError::NoFrameGraph {
            bundle: bundle.clone(),
            what,
        };
        let manifest = self.manifest();
        let backbone = (manifest.backbone.as_ref()).ok_or_else(|| {
            self.bundle
                .lacks("backbone", "convert again with --backbone")
        })?;
        let upsampler = (manifest.upsampler.as_ref()).ok_or_else(|| {
            (self.bundle).lacks("upsampler", "convert again with --upsampler-weights")
        })?;
        for Size { width, height } in [query.camera, query.size] {
            if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
                return Err(crate::image::ImageError::BadSize { width, height }.into());
            }
        }
        if backbone.dim != upsampler.dim {
            return Err(RuntimeError::FeatureShape {
                found: vec![1, backbone.dim],
                dim: upsampler.dim,
            });
        }
        let head = query.output.head();
        if let Some(head) = head {
            check_head(head, upsampler.dim, query.output).map_err(|e| match e {
                Refused::Error(e) => e,
                Refused::Because(what) => refused(what),
            })?;
        }
        let linear = head.map(|head| {
            let linear = head.linear();
            let k = linear.outputs();
            let weight = Tensor::from_fn([k, linear.inputs], |i| linear.weight[i]);
            (weight, Tensor::from_fn([k], |i| linear.bias[i]))
        });
        let linear = linear
            .as_ref()
            .map(|(weight, bias)| frame::Linear { weight, bias });

        let input = self.backbone_size(query.size)?;
        let grid = (input.height / backbone.patch, input.width / backbone.patch);
        let file = (backbone.graphs.get(&self.precision())).ok_or_else(|| {
            (self.bundle).lacks("backbone graph in this precision", "convert it again")
        })?;
        let onnx = self.bundle.read(file)?;
        let (keys, queries, whole);
        let parts = match upsampler.kind {
            UpsamplerKind::LoftUp => {
                let files = upsampler.graphs.get(&self.precision()).ok_or_else(|| {
                    (self.bundle).lacks("upsampler graphs in this precision", "convert it again")
                })?;
                keys = self.bundle.read(&files.keys)?;
                queries = self.bundle.read(&files.queries)?;
                let (tiles, columns) = tiles(query.size, query.tile.unwrap_or(TILE));
                frame::Upsampler::LoftUp(frame::LoftUp {
                    keys: &keys,
                    queries: &queries,
                    layers: upsampler.layers,
                    range: match query.range {
                        ColorRange::PerImage => None,
                        ColorRange::Fixed { min, max } => Some([min, max]),
                    },
                    tiles,
                    columns,
                })
            }
            UpsamplerKind::Naf => {
                let shape = NafShape {
                    dim: upsampler.dim,
                    grid,
                    size: extent(query.size),
                };
                whole = whole_graph(&naf::weights(&self.bundle, upsampler)?, shape).ok_or_else(|| {
                    refused(format!(
                        "a frame graph with NAF needs an output whose sides are multiples of the feature grid, {}x{}, but --size is {}",
                        grid.1, grid.0, query.size
                    ))
                })?;
                frame::Upsampler::Naf(frame::Naf {
                    whole: &whole,
                    normalization: (Normalization::IMAGENET.mean, Normalization::IMAGENET.std),
                })
            }
        };
        let output = match (query.output, linear) {
            (FrameGraphOutput::Scores(_), Some(head)) => frame::Output::Scores(head),
            (FrameGraphOutput::Classes(_), Some(head)) => frame::Output::Classes {
                head,
                scores: false,
            },
            (FrameGraphOutput::ClassesAndScores(_), Some(head)) => {
                frame::Output::Classes { head, scores: true }
            }
            _ => frame::Output::Features,
        };
        let normalization = manifest.normalization;
        let graph = FrameGraph {
            camera: extent(query.camera),
            size: extent(query.size),
            resize: [input, query.size].map(|to| resize(query.camera, to)),
            normalization: (normalization.mean, normalization.std),
            backbone: frame::Backbone {
                onnx: &onnx,
                input: &backbone.input,
                output: &backbone.output,
                size: extent(input),
                grid,
                dim: backbone.dim,
                extra_tokens: match backbone.layout {
                    FeatureLayout::Map => None,
                    FeatureLayout::Tokens { extra } => Some(extra),
                },
            },
            upsampler: parts,
            output,
            metadata,
        };
        graph
            .write()
            .map_err(|source| RuntimeError::FrameGraph { bundle, source })
    }
}

/// Why a head cannot be part of a frame graph.
enum Refused {
    Error(RuntimeError),
    Because(String),
}

fn check_head(head: &Head, dim: usize, output: FrameGraphOutput<'_>) -> Result<(), Refused> {
    if head.dim() != dim {
        return Err(Refused::Error(RuntimeError::HeadDim {
            found: head.dim(),
            expected: dim,
        }));
    }
    if head.is_words() {
        let what = "a head of words cannot be part of a frame graph, because its similarities depend on the statistics of each frame: use a head of classes";
        return Err(Refused::Because(what.into()));
    }
    let classes = matches!(
        output,
        FrameGraphOutput::Classes(_) | FrameGraphOutput::ClassesAndScores(_)
    );
    if classes && head.kind().class_names().is_none() {
        let what = "only a head of classes outputs classes: ask for the outputs of the head";
        return Err(Refused::Because(what.into()));
    }
    Ok(())
}

fn extent(size: Size) -> frame::Extent {
    (size.height, size.width)
}

fn resize(from: Size, to: Size) -> frame::Resize {
    let along = |from: usize, to: usize| {
        (from != to).then(|| Weights {
            from,
            to,
            weights: resize_weights(from, to),
        })
    };
    frame::Resize {
        columns: along(from.width, to.width),
        rows: along(from.height, to.height),
    }
}

/// The tiles, row by row, and the number of tiles in a row.
fn tiles(size: Size, longest: usize) -> (Vec<Tile>, usize) {
    let tiling = Tiling::new(Rect::whole(size), longest);
    let area = |r: Rect| Area {
        row: r.y,
        column: r.x,
        rows: r.height,
        columns: r.width,
    };
    let tile = |i| {
        let tile = tiling.tile(i);
        Tile {
            compute: area(tile.compute),
            keep: area(tile.keep),
        }
    };
    let tiles = (0..tiling.len()).map(tile).collect();
    (tiles, size.width.div_ceil(tiling.shape().0))
}
