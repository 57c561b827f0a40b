//! A tiny bundle and tiny data.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::{Normalization, Size};
use loftup_convert::{BackboneSource, OnnxBackbone, Request};
use loftup_onnx::{Dim, Graph, Tensor};
use loftup_runtime::{ExecutionOptions, Perceptor, image::RgbImage};
use safetensors::{Dtype, tensor::TensorView};

/// Channels, side of a patch, side of the image.
pub const DIM: usize = 8;
pub const PATCH: usize = 8;
pub const SIDE: usize = 48;

pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A bundle whose backbone mixes the mean color of each patch into eight channels, with an
    /// upsampler of random weights.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let onnx = dir.path().join("patches.onnx");
        fs::write(&onnx, backbone()).unwrap();
        let weights = dir.path().join("up.safetensors");
        fs::write(&weights, upsampler()).unwrap();
        let place = Self { dir };
        let source = BackboneSource::Onnx(OnnxBackbone {
            path: onnx,
            patch: PATCH,
            normalization: Some(Normalization {
                mean: [0.5; 3],
                std: [0.5; 3],
            }),
            output: None,
            layout: None,
            extra_tokens: None,
        });
        let request = Request {
            backbone: Some(source),
            upsampler: Some(weights),
            prefix: None,
            license: None,
            size: Some(Size {
                width: SIDE,
                height: SIDE,
            }),
            out: place.path("tiny.loftup"),
            replace: false,
        };
        loftup_convert::convert(&request, |_| std::ops::ControlFlow::Continue(())).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn perceptor(&self) -> Perceptor {
        self.open("tiny.loftup")
    }

    pub fn open(&self, name: &str) -> Perceptor {
        Perceptor::open_on_cpu(
            &self.path(name),
            ExecutionOptions {
                threads: 2,
                tile: Some(13),
            },
        )
        .unwrap()
    }

    /// Images of patches in one of three colors; the class is the color.
    pub fn patches(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        let mut seed = 7u32;
        for (part, count) in [("train", 6), ("val", 3)] {
            for i in 0..count {
                let colors = [[200, 40, 40], [40, 200, 40], [40, 40, 200]];
                let cells: Vec<u8> = (0..(SIDE / PATCH).pow(2))
                    .map(|_| {
                        seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
                        ((seed >> 16) % 3) as u8
                    })
                    .collect();
                let cell = |i: usize| cells[i / SIDE / PATCH * (SIDE / PATCH) + i % SIDE / PATCH];
                let classes: Vec<u8> = (0..SIDE * SIDE).map(cell).collect();
                let rgb = classes
                    .iter()
                    .flat_map(|c| colors[usize::from(*c)])
                    .collect();
                write(
                    &dir.join(part),
                    &format!("{i}"),
                    (SIDE, SIDE),
                    rgb,
                    &classes,
                );
            }
        }
        fs::write(dir.join("classes.txt"), "red\ngreen\nblue\n").unwrap();
        dir
    }
}

/// An image and its mask.
pub fn write(dir: &Path, name: &str, (w, h): (usize, usize), rgb: Vec<u8>, classes: &[u8]) {
    for kind in ["images", "labels"] {
        fs::create_dir_all(dir.join(kind)).unwrap();
    }
    let image = RgbImage::new(w, h, rgb).unwrap();
    image
        .save_png(&dir.join("images").join(format!("{name}.png")))
        .unwrap();
    let file = fs::File::create(dir.join("labels").join(format!("{name}.png"))).unwrap();
    let mut encoder = png::Encoder::new(file, w as u32, h as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(classes)
        .unwrap();
}

fn backbone() -> Vec<u8> {
    let area = (PATCH * PATCH) as f32;
    // Each channel is another mixture of red, green and blue.
    let mix = |i: usize| {
        let (channel, color) = (i / (3 * PATCH * PATCH), i / (PATCH * PATCH) % 3);
        ((channel * 5 + color * 3) % 7) as f32 / 3.0 - 1.0
    };
    let weight = Tensor::from_fn([DIM, 3, PATCH, PATCH], |i| mix(i) / area);
    let bias = Tensor::from_fn([DIM], |i| i as f32 * 0.1);
    let mut graph = Graph::new("patches");
    let x = graph.input("image", &[1, 3, SIDE, SIDE].map(Dim::from));
    let y = graph.conv(&x, &weight, &bias, PATCH);
    graph.output(
        &y,
        "features",
        &[1, DIM, SIDE / PATCH, SIDE / PATCH].map(Dim::from),
    );
    graph.finish()
}

fn upsampler() -> Vec<u8> {
    let checkpoint = crate::synthetic::loftup(DIM, 5);
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = checkpoint
        .names()
        .map(|name| {
            let shape = checkpoint.shape(name).unwrap();
            let tensor = checkpoint.tensor(name, shape).unwrap();
            let bytes = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.to_owned(), tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name.clone(),
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}

impl Place {
    /// Why the bundle cannot be opened.
    pub fn perceptor_error(&self) -> loftup_runtime::RuntimeError {
        match Perceptor::open_on_cpu(&self.path("tiny.loftup"), ExecutionOptions::default()) {
            Ok(_) => panic!("it can be opened"),
            Err(e) => e,
        }
    }
}
