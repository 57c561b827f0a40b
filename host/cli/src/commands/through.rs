//! Answers of a head.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    EncodedFrame, Point, Rect, SinkError, TileFeatures,
    class_map::{ClassMap, save_classes},
    depth::{Camera, Depth, DepthMap, NormalOptions, normals, save_depth, save_normals},
    heads::Head,
    image::RgbImage,
    npy::NpyWriter,
    sinks::NpySink,
};

use super::{input::Input, panels::cropped};
use crate::{interrupt, progress};

/// A picture of an answer.
pub enum Shown<'a> {
    /// Image, backbone features and upsampled features side by side.
    Panels(RgbImage),
    /// The part of the photograph, and the color of each of its pixels, which can depend on what it covers.
    Colors(RgbImage, &'a dyn Fn(usize, [u8; 3]) -> [u8; 3]),
}

/// Receives the picture before the answer is written.
pub type Show<'a> = &'a mut dyn FnMut(Shown<'_>) -> Result<()>;

impl<'a> Shown<'a> {
    /// The colors of `rect` of a photograph.
    fn new(
        photo: &RgbImage,
        rect: Rect,
        color: &'a dyn Fn(usize, [u8; 3]) -> [u8; 3],
    ) -> Result<Self> {
        Ok(Self::Colors(cropped(photo, rect)?, color))
    }

    /// The photograph and the colors, side by side.
    pub fn beside(self) -> Result<RgbImage> {
        let (photo, color) = match self {
            Self::Panels(picture) => return Ok(picture),
            Self::Colors(photo, color) => (photo, color),
        };
        let (width, height) = (photo.width(), photo.height());
        let mut data = Vec::with_capacity(6 * width * height);
        for y in 0..height {
            let row = photo.row(y);
            data.extend_from_slice(row);
            let pixels = row.as_chunks::<3>().0.iter().enumerate();
            data.extend(pixels.flat_map(|(x, pixel)| color(y * width + x, *pixel)));
        }
        Ok(RgbImage::new(2 * width, height, data)?)
    }

    /// The photograph half covered by the colors. `None` without colors.
    pub fn over(&self) -> Result<Option<RgbImage>> {
        let Self::Colors(photo, color) = self else {
            return Ok(None);
        };
        let pixels = photo.data().as_chunks::<3>().0.iter().enumerate();
        let data = pixels.flat_map(|(i, pixel)| {
            let color = color(i, *pixel);
            std::array::from_fn::<u8, 3, _>(|c| color[c].midpoint(pixel[c]))
        });
        let over = RgbImage::new(photo.width(), photo.height(), data.collect())?;
        Ok(Some(over))
    }
}

/// An answer of a head: where it goes, and what of it.
pub struct Answer<'a, 's> {
    /// Name of the head, or its file.
    pub name: &'a str,
    pub head: &'a Head,
    /// A part of the frame, all of it if not given.
    pub region: Option<Rect>,
    pub out: Option<&'a Path>,
    pub show: Option<Show<'s>>,
    /// Surface normals of a depth map.
    pub normals: Option<&'a PathBuf>,
    /// The camera of the image, for normals.
    pub camera: Camera,
    /// Shows no progress of its own.
    pub quiet: bool,
}

impl Answer<'_, '_> {
    /// Outputs of a head at some points, `[n, k]`, or depths in meters, `[n, 1]`, with their shape.
    pub fn points(
        head: &Head,
        view: EncodedFrame<'_>,
        points: &[Point],
    ) -> Result<(Vec<usize>, Vec<f32>)> {
        let mut values = view.with_head(head)?.points(points)?;
        let mut shape = vec![points.len(), head.outputs()];
        if let Some(depth) = Depth::of(head) {
            values = depth.map(&values);
            shape[1] = 1;
        }
        Ok((shape, values))
    }

    /// A map of classes or depths `[H, W]`, or descriptors `[1, k, H, W]`.
    pub fn frame(self, view: EncodedFrame<'_>, input: &Input) -> Result<Vec<usize>> {
        let rect = self.region.unwrap_or(Rect::whole(view.size()));
        if let Some(path) = self.normals
            && !matches!(self.head.kind(), HeadKind::Depth { .. })
        {
            bail!(
                "{}: normals are those of a depth map, and {:?} is not a depth head; omit --normals",
                path.display(),
                self.name
            );
        }
        let view = view.with_head(self.head)?;
        match self.head.kind() {
            HeadKind::Classes { .. } | HeadKind::Words { .. } => self.classes(&view, rect, input),
            HeadKind::Descriptors { .. } => self.descriptors(&view, rect),
            HeadKind::Depth { .. } => {
                let depth = Depth::of(self.head).context("a head of another kind")?;
                self.depth(&view, rect, input, depth)
            }
        }
    }

    fn depth(
        self,
        view: &EncodedFrame<'_>,
        rect: Rect,
        input: &Input,
        depth: Depth,
    ) -> Result<Vec<usize>> {
        let shape = vec![rect.height, rect.width];
        if let Some(out) = self.out
            && !["png", "npy"].iter().any(|e| has_extension(out, e))
        {
            bail!(
                "{}: depth is written as .png (16 bits, millimeters) or .npy (float32, meters)",
                out.display()
            );
        }
        if let Some(path) = self.normals
            && !["png", "npy"].iter().any(|e| has_extension(path, e))
        {
            bail!(
                "{}: normals are written as .png (colors) or .npy (float32)",
                path.display()
            );
        }
        let mut map = DepthMap::new(rect, depth);
        self.stream(view, &mut |tile| map.push(tile))?;
        let meters = map.into_meters();
        let _writing = interrupt::Writing::begin()?;
        if let Some(path) = self.normals {
            let photo = Size {
                width: input.photo.width(),
                height: input.photo.height(),
            };
            let camera = self
                .camera
                .of_map(photo, view.size())
                .cropped(rect.x, rect.y);
            let size = Size {
                width: rect.width,
                height: rect.height,
            };
            let mut found = Vec::new();
            normals(
                &meters,
                size,
                &camera,
                &NormalOptions::default(),
                &mut found,
            )?;
            save_normals(path, size, &found)?;
        }
        if let Some(show) = self.show {
            let size = view.size();
            let photo = input.photo.resized(size.width, size.height)?;
            let colors = super::colors::of_depth(&meters);
            show(Shown::new(&photo, rect, &|i, _| colors[i])?)?;
        }
        if let Some(out) = self.out {
            save_depth(out, rect.width, rect.height, &meters)?;
        }
        Ok(shape)
    }

    fn classes(self, view: &EncodedFrame<'_>, rect: Rect, input: &Input) -> Result<Vec<usize>> {
        let shape = vec![rect.height, rect.width];
        if let Some(out) = self.out
            && !["png", "npy"].iter().any(|e| has_extension(out, e))
        {
            bail!("{}: classes are written as .png or .npy", out.display());
        }
        let mut map = ClassMap::new(rect);
        self.stream(view, &mut |tile| map.push(tile))?;
        let classes = map.into_classes();
        let _writing = interrupt::Writing::begin()?;
        if let Some(show) = self.show {
            let size = view.size();
            let photo = input.photo.resized(size.width, size.height)?;
            let color = |i: usize, pixel| shaded(super::colors::of_class(classes[i]), pixel);
            show(Shown::new(&photo, rect, &color)?)?;
        }
        if let Some(out) = self.out {
            save_classes(out, rect.width, rect.height, &classes)?;
        }
        Ok(shape)
    }

    fn descriptors(&self, view: &EncodedFrame<'_>, rect: Rect) -> Result<Vec<usize>> {
        if self.show.is_some() {
            bail!(
                "{:?} has neither classes nor depths, so there is nothing to draw; omit --picture, and give --out a \
                 directory or .npy",
                self.name
            );
        }
        let shape = vec![1, self.head.outputs(), rect.height, rect.width];
        let Some(out) = self.out else {
            return Ok(shape);
        };
        let _writing = interrupt::Writing::begin()?;
        let mut file = NpySink::new(rect, NpyWriter::create(out, &shape)?);
        self.stream(view, &mut |tile| file.push(tile))?;
        file.finish()?;
        Ok(shape)
    }

    fn stream(&self, view: &EncodedFrame<'_>, take: Take<'_>) -> Result<()> {
        stream(view, self.region, self.quiet, take)
    }
}

/// Receives the tiles of an output.
type Take<'a> = &'a mut (dyn FnMut(&TileFeatures<'_>) -> Result<(), SinkError> + Send);

/// Computes a region, or the frame, tile by tile, with a progress bar unless `quiet`. Ends at an interrupt.
pub fn stream(
    view: &EncodedFrame<'_>,
    region: Option<Rect>,
    quiet: bool,
    take: Take<'_>,
) -> Result<()> {
    let rect = region.unwrap_or(Rect::whole(view.size()));
    let bar = progress::pixels(rect.area(), quiet);
    let mut sink = |tile: &TileFeatures<'_>| {
        interrupt::check()?;
        take(tile)?;
        bar.inc(tile.rect.area() as u64);
        Ok(())
    };
    let result = match region {
        Some(rect) => view.region(rect, &mut sink),
        None => view.frame(&mut sink),
    };
    bar.finish_and_clear();
    Ok(result?)
}

pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// A color through which a little of the photograph shows.
pub fn shaded(color: [u8; 3], pixel: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|c| ((3 * u16::from(color[c]) + u16::from(pixel[c])) / 4) as u8)
}
