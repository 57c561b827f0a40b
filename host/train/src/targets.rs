//! Pseudo ground truths of stage 1 as feature maps, to compare them.

use loftup_runtime::image::RgbImage;

use crate::{
    config::{ColorSpace, Segmentation, Upsampling},
    losses::{Base, pseudo_ground_truth, random_projection},
    regions::{Mask, segment},
    rng::{Purpose, Rng},
};

/// Regions in which features are averaged.
#[derive(Debug, Clone, PartialEq)]
pub enum Regions {
    /// Segmentations by color; if empty, features are only upsampled.
    Color(Vec<Segmentation>),
    /// The masks that come with an image.
    Masks,
}

/// A pseudo ground truth: `data.segmentation`, `stage1.upsampling` and `stage1.alpha`.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The name in tables.
    pub name: &'static str,
    /// How features are upsampled.
    pub upsampling: Upsampling,
    /// The regions in which they are averaged.
    pub regions: Regions,
    /// How strongly they are averaged, 0 to 1.
    pub alpha: f32,
}

/// Scales, and minimum areas as fractions of the image: 20 to 100 pixels of 224x224.
const SCALES: [(f32, f32); 4] = [
    (20.0, 0.0004),
    (50.0, 0.0008),
    (100.0, 0.0014),
    (200.0, 0.002),
];

/// Returns segmentations at four scales.
pub fn four_scales(color_space: ColorSpace, sigma: f32) -> Vec<Segmentation> {
    let of = |(scale, min_area)| Segmentation {
        sigma,
        scale,
        min_area,
        color_space,
    };
    SCALES.map(of).to_vec()
}

/// Returns the targets to compare: interpolation, the published target, and others; with `masks`, also
/// targets with the masks of the images.
pub fn candidates(masks: bool) -> Vec<Target> {
    let rgb = four_scales(ColorSpace::Rgb, Segmentation::default().sigma);
    let both = [&rgb[..], &four_scales(ColorSpace::Lab, 0.5)].concat();
    let color = |name, upsampling, segmentation| Target {
        name,
        upsampling,
        regions: Regions::Color(segmentation),
        alpha: 0.8,
    };
    use Upsampling::{Bicubic, Bilinear, Jbu};
    let published = vec![Segmentation::default()];
    let mut all = vec![
        color("bilinear", Bilinear, Vec::new()),
        color("JBU", Jbu, Vec::new()),
        color("published (bicubic, one scale)", Bicubic, published),
        color("four scales", Bicubic, rgb.clone()),
        color("four scales, RGB and Lab", Bicubic, both.clone()),
        color("JBU, four scales", Jbu, rgb),
        color("JBU, four scales, RGB and Lab", Jbu, both),
    ];
    all.extend(masks.then_some(Target {
        name: "masks",
        upsampling: Bicubic,
        regions: Regions::Masks,
        alpha: 0.8,
    }));
    all
}

impl Target {
    /// Computes the target of every pixel of `image`, `[height * width, d]`, from features `[h * w, d]` on
    /// a grid of `(h, w)`. `masks` are the image's masks at this size, if the target needs them.
    pub fn map(
        &self,
        tokens: &[f32],
        grid: (usize, usize),
        image: &RgbImage,
        masks: Vec<Mask>,
    ) -> Vec<f32> {
        let dim = tokens.len() / (grid.0 * grid.1);
        let segmentations = match &self.regions {
            Regions::Color(all) => all.iter().map(|how| segment(image, *how)).collect(),
            Regions::Masks => vec![masks],
        };
        // The identity; no random numbers are drawn.
        let identity = random_projection(dim, 0, &mut Rng::new(0, Purpose::Step, 0));
        pseudo_ground_truth(
            tokens,
            grid,
            (image.height(), image.width()),
            Base::new(self.upsampling, image),
            &segmentations,
            self.alpha,
            &identity,
        )
    }
}
