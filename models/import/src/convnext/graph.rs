//! The ONNX graph of a ConvNeXt.

use loftup_onnx::{Graph, Tensor, Value};

use super::{
    EPS, INPUT, OUTPUT,
    weights::{Block, Weights},
};

/// Builds the graph for one image of any size.
pub(super) fn build(weights: &Weights) -> Vec<u8> {
    let mut g = Graph::new("backbone");
    let image = g.input(INPUT, &[1.into(), 3.into(), "H".into(), "W".into()]);
    let mut x = g.scope("stem", |g| {
        let x = g.conv(&image, &weights.stem.weight, &weights.stem.bias, 4);
        let x = g.normalize(&x, 1, EPS);
        let norm = &weights.stem_norm;
        g.affine(&x, &of_channels(&norm.weight), &of_channels(&norm.bias))
    });
    for (i, stage) in weights.stages.iter().enumerate() {
        x = g.scope(format!("stages.{i}"), |g| {
            let mut x = match &stage.downsample {
                Some(conv) => g.scope("downsample", |g| {
                    let x = g.normalize(&x, 1, EPS);
                    g.conv(&x, &conv.weight, &conv.bias, 2)
                }),
                None => x,
            };
            for (j, weights) in stage.blocks.iter().enumerate() {
                x = g.scope(format!("{j}"), |g| block(g, &x, weights));
            }
            x
        });
    }
    let shape = [1.into(), weights.dim().into(), "h".into(), "w".into()];
    g.output(&x, OUTPUT, &shape);
    g.finish()
}

fn block(g: &mut Graph, x: &Value, weights: &Block) -> Value {
    let Block {
        depthwise,
        first,
        second,
    } = weights;
    let y = g.depthwise_conv(x, &depthwise.weight, &depthwise.bias);
    let y = g.normalize(&y, 1, EPS);
    let y = g.conv(&y, &first.weight, &first.bias, 1);
    let y = g.gelu(&y);
    let y = g.conv(&y, &second.weight, &second.bias, 1);
    g.add(x, &y)
}

/// Reshapes values per channel for broadcasting over pixels.
fn of_channels(values: &Tensor) -> Tensor {
    let channels = values.shape()[0];
    values.clone().reshaped([channels, 1, 1])
}
