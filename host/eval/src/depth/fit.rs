//! Fits heads for several methods to the same pixels.

use loftup_bundle::{HeadKind, Linear};
use loftup_runtime::image::RgbImage;
use rayon::prelude::*;

use super::{
    DepthPair, Request,
    bins::{self, Windows},
    data,
};
use crate::{
    EvalError, Method, Progress,
    error::or_skip,
    random::Random,
    ridge::Ridge,
    sampling::{Encoder, samples_in_memory},
};

/// Heads, by method.
pub(super) struct Fitted {
    pub kind: HeadKind,
    pub linears: Vec<Linear>,
    pub r_squared: Vec<f64>,
    /// The smallest and the greatest depth of the samples, in meters.
    pub range: (f32, f32),
    pub images: usize,
    pub pixels: usize,
    pub skipped: Vec<String>,
}

/// Number of windows per training image for a head with bins.
const WINDOWS: usize = 4;

/// The samples that heads are fitted to, by method.
enum Samples {
    Ridge(Vec<Ridge>),
    Bins(Vec<Windows>),
}

impl Samples {
    /// Selects pixels of an image: random pixels with depth, or windows in which some pixel has depth.
    fn places(&self, encoder: &Encoder<'_>, depth: &[f32], each: usize, seed: u64) -> Vec<u32> {
        let mut random = Random::new(seed);
        match self {
            Self::Ridge(_) => {
                let known = (0..depth.len() as u32).filter(|i| depth[*i as usize] > 0.0);
                let mut known: Vec<u32> = known.collect();
                random.choose(&mut known, each).to_vec()
            }
            Self::Bins(windows) => {
                let side = windows.first().map_or(1, |w| w.side);
                let (width, height) = (encoder.size.width, encoder.size.height);
                let mut window = || {
                    let (x, y) = (
                        random.below(width - side + 1),
                        random.below(height - side + 1),
                    );
                    let rows = y..y + side;
                    rows.flat_map(move |y| (x..x + side).map(move |x| (y * width + x) as u32))
                };
                let windows = (0..WINDOWS).map(|_| window().collect::<Vec<u32>>());
                let known = |i: &u32| depth[*i as usize] > 0.0;
                windows.filter(|w| w.iter().any(known)).flatten().collect()
            }
        }
    }

    /// Adds the features of method `m` at the selected pixels of an image, with their depth.
    fn add(&mut self, m: usize, features: &[f32], meters: &[f32]) {
        match self {
            Self::Ridge(sums) => {
                let logs: Vec<f32> = meters.iter().map(|m| m.ln()).collect();
                sums[m].add(features, &logs);
            }
            Self::Bins(windows) => {
                windows[m].features.extend(features);
                windows[m].meters.extend(meters);
            }
        }
    }

    /// Fits the heads; also returns their R².
    fn solve(
        self,
        request: &Request<'_>,
        range: (f32, f32),
        progress: Progress<'_>,
    ) -> Vec<(Linear, f64)> {
        match self {
            Self::Ridge(sums) => sums
                .par_iter()
                .map(|sums| sums.solve(request.ridge))
                .map(|solved| (solved.linear, solved.r_squared))
                .collect(),
            Self::Bins(windows) => {
                let bins = request.bins.unwrap_or(1);
                let train = |w| bins::train(w, (bins, range), request.seed, progress);
                windows.into_iter().map(train).collect()
            }
        }
    }
}

pub(super) fn fit(
    encoder: &Encoder<'_>,
    train: &[DepthPair],
    methods: &[Method],
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<Fitted, EvalError> {
    if let Some(bins) = request
        .bins
        .filter(|n| !(2..=HeadKind::MOST_BINS).contains(n))
    {
        return Err(EvalError::Request(format!(
            "{bins} bins: expected 2 to {}",
            HeadKind::MOST_BINS
        )));
    }
    let manifest = encoder.perceptor.manifest();
    let dim = manifest.backbone.as_ref().map_or(0, |b| b.dim);
    let mut each = request.samples;
    let mut samples = match request.bins {
        None => Samples::Ridge(vec![Ridge::new(dim); methods.len()]),
        Some(_) => {
            each = samples_in_memory(WINDOWS * each, dim, methods.len(), train.len()) / WINDOWS;
            let side = each
                .isqrt()
                .clamp(1, encoder.size.width.min(encoder.size.height));
            let empty = Windows {
                dim,
                side,
                ..Windows::default()
            };
            Samples::Bins(vec![empty; methods.len()])
        }
    };
    let mut range = (f32::INFINITY, 0f32);
    let (mut images, mut pixels, mut skipped) = (0, 0, Vec::new());
    let mut features = Vec::new();
    for (i, pair) in train.iter().enumerate() {
        progress("sampling training images", i, train.len());
        let Some((photo, depth)) = open_or_skip(encoder, pair, request, &mut skipped) else {
            continue;
        };
        let places = samples.places(encoder, &depth, each, request.seed ^ ((i as u64) << 20));
        if places.is_empty() {
            continue;
        }
        let meters: Vec<f32> = places.iter().map(|i| depth[*i as usize]).collect();
        let known = || meters.iter().filter(|m| **m > 0.0);
        range = known().fold(range, |(min, max), m| (min.min(*m), max.max(*m)));
        let encoded = encoder.encode(&photo)?;
        for (m, method) in methods.iter().enumerate() {
            features.clear();
            encoder.pixels(*method, &encoded, &places, &mut features)?;
            samples.add(m, &features, &meters);
        }
        images += 1;
        pixels += known().count();
    }
    let unusable = |what: String| EvalError::Data {
        path: request.data.into(),
        what,
    };
    if images == 0 {
        return Err(unusable(match skipped.first() {
            Some(first) => format!("no usable image; the first: {first}"),
            None => "no depth in any image".into(),
        }));
    }
    if range.0 >= range.1 {
        return Err(unusable(format!("all depths are {} m", range.0)));
    }
    let (linears, r_squared) = samples.solve(request, range, progress).into_iter().unzip();
    Ok(Fitted {
        kind: HeadKind::Depth {
            min_meters: range.0,
            max_meters: range.1,
            bins: request.bins,
        },
        linears,
        r_squared,
        range,
        images,
        pixels,
        skipped,
    })
}

/// Opens an image and its depth at the size of the output. If they cannot be used, the reason is logged
/// and added to `skipped`.
pub(super) fn open_or_skip(
    encoder: &Encoder<'_>,
    pair: &DepthPair,
    request: &Request<'_>,
    skipped: &mut Vec<String>,
) -> Option<(RgbImage, Vec<f32>)> {
    let opened = data::open(pair, encoder.size, request.max_depth, encoder.orientation);
    or_skip(opened, skipped)
}
