//! The CPU kernels agree with tract.

use loftup_onnx::loftup::LoftUp;
use loftup_runtime::backend::{Backend, CpuBackend, TractBackend, compile_once};
use loftup_spec::{HALO, io};
use loftup_tests::synthetic::{Noise, loftup};

/// Inputs of a queries graph, one list of values per input.
struct Question {
    shapes: Vec<(String, Vec<usize>)>,
    values: Vec<Vec<f32>>,
}

/// The content of the guidance.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// All values distinct; some pixels outside the image.
    Noise,
    /// Rows, columns and 256 levels per color, as in a photograph; the first row is outside.
    Photograph,
}

impl Question {
    fn new(
        model: &LoftUp,
        image: Content,
        [tiles, height, width]: [usize; 3],
        tokens: usize,
    ) -> Self {
        let config = model.config();
        let (rows, cols) = (height + 2 * HALO, width + 2 * HALO);
        let area = rows * cols;
        let mut noise = Noise::new(area as u64 + 3);
        let mut values: Vec<Vec<f32>> = match image {
            Content::Noise => vec![
                noise.vec(3 * tiles * area),
                noise.vec(2 * tiles * area),
                (noise.vec(tiles * area).iter())
                    .map(|x| f32::from(u8::from(*x > -0.5)))
                    .collect(),
            ],
            Content::Photograph => {
                let level = |x: &f32| ((x + 1.0) * 127.5).round() / 255.0 - 0.5;
                let guidance = noise.vec(3 * tiles * area).iter().map(level).collect();
                let coords = (0..2 * tiles * area).map(|i| {
                    let (source, at) = (i / area % 2, i % area);
                    [at / cols, at % cols][source] as f32 / 224.0 - 0.5
                });
                let mask = (0..tiles * area).map(|i| f32::from(u8::from(i % area >= cols)));
                vec![guidance, coords.collect(), mask.collect()]
            }
        };
        let mut shapes = vec![
            (io::GUIDANCE.to_owned(), vec![tiles, 3, rows, cols]),
            (io::COORDS.to_owned(), vec![tiles, 2, rows, cols]),
            (io::MASK.to_owned(), vec![tiles, 1, rows, cols]),
        ];
        let (heads, head) = (config.heads, config.padded_head_width());
        for i in 0..config.layers {
            shapes.push((io::key(i), vec![heads, head, tokens]));
            shapes.push((io::value(i), vec![heads, tokens, head]));
            values.push(noise.vec(heads * head * tokens));
            values.push(noise.vec(heads * head * tokens));
        }
        Self { shapes, values }
    }

    fn ask(&self, backend: &dyn Backend, onnx: &[u8]) -> Vec<f32> {
        let inputs: Vec<(&str, &[usize])> = self
            .shapes
            .iter()
            .map(|(name, shape)| (name.as_str(), shape.as_slice()))
            .collect();
        let plan = compile_once(backend, "queries.onnx", onnx, &inputs, &[io::UPSAMPLED]);
        let plan = plan.expect("a plan");
        let mut session = plan.session().expect("a session");
        for (i, values) in self.values.iter().enumerate() {
            session.set(i, values).expect("an input");
        }
        // Twice, because the state of a session must not affect the result.
        session.run().expect("a run");
        let first = session.output(0).to_vec();
        session.run().expect("a run");
        assert_eq!(first, session.output(0));
        first
    }
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, x| {
        if x.is_nan() {
            f32::INFINITY
        } else {
            x.max(worst)
        }
    })
}

#[test]
fn kernels_give_what_tract_gives() {
    for (d, tiles, height, width, tokens) in [
        (12, 1, 1, 1, 1),
        (12, 3, 1, 1, 15),
        (32, 1, 7, 3, 4),
        (48, 70, 1, 1, 9),
        (48, 2, 5, 13, 33),
        (64, 1, 32, 32, 16),
        (384, 1, 9, 6, 256),
    ] {
        let model = loftup_import::loftup::read(&loftup(d, 4)).expect("an upsampler");
        let onnx = model.queries_graph();
        for image in [Content::Noise, Content::Photograph] {
            let question = Question::new(&model, image, [tiles, height, width], tokens);
            let ours = question.ask(&CpuBackend, &onnx);
            let difference = worst(&ours, &question.ask(&TractBackend, &onnx));
            println!(
                "d {d}, {tiles} of {height}x{width}, {tokens} tokens, {image:?}: {difference:.1e}"
            );
            // Outputs are layer-normalized: standard deviation 1, maximum about 4. Winograd's
            // transforms cost two of seven digits.
            assert!(difference < 1e-4, "{difference}");
            // No difference at all would mean that tract ran both, because the graph is no longer
            // recognized as a queries graph.
            assert!(difference > 0.0, "the kernels did not run");
        }
    }
}
