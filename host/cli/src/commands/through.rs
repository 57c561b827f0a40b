//! Answers of a head.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    EncodedFrame, Perceptor, Point, Rect,
    class_map::{ClassMap, save_classes},
    depth::{Camera, Depth, DepthMap, NormalOptions, normals, save_depth, save_normals},
    heads::Head,
    image::RgbImage,
    npy::{self, NpyWriter},
    sinks::NpySink,
};

use super::input::Input;
use crate::{interrupt, progress};

/// Where an answer goes, and what of it.
pub struct Answer<'a> {
    /// Name of the head, or its file.
    pub head: &'a str,
    /// A part of the frame, all of it if not given.
    pub region: Option<Rect>,
    pub out: Option<&'a PathBuf>,
    pub picture: Option<&'a PathBuf>,
    /// Surface normals of a depth map.
    pub normals: Option<&'a PathBuf>,
    /// The camera of the image, for normals.
    pub camera: Camera,
}

impl Answer<'_> {
    /// The head: a name is one of the bundle, anything else a file.
    fn open(&self, perceptor: &Perceptor) -> Result<Head> {
        Ok(match loftup_bundle::Head::is_name(self.head) {
            true => perceptor.head(self.head)?,
            false => perceptor.head_from_file(self.head.as_ref())?,
        })
    }

    /// Outputs of the head at some points, `[n, k]`, or depths in meters, `[n, 1]`.
    pub fn points(
        &self,
        perceptor: &Perceptor,
        view: EncodedFrame<'_>,
        points: &[Point],
    ) -> Result<Vec<usize>> {
        let head = self.open(perceptor)?;
        let mut values = view.with_head(&head)?.points(points)?;
        let mut shape = vec![points.len(), head.outputs()];
        if let Some(depth) = Depth::of(&head) {
            values = depth.map(&values);
            shape[1] = 1;
        }
        if let Some(out) = self.out {
            let _writing = interrupt::Writing::begin()?;
            npy::write(out, &shape, &values)?;
        }
        Ok(shape)
    }

    /// A map of classes or depths `[H, W]`, or descriptors `[1, k, H, W]`.
    pub fn frame(
        &self,
        perceptor: &Perceptor,
        view: EncodedFrame<'_>,
        input: &Input,
    ) -> Result<Vec<usize>> {
        let size = view.size();
        let rect = self.region.unwrap_or(Rect::whole(size));
        view.check_region(rect)?;
        let head = self.open(perceptor)?;
        if let Some(path) = self.normals
            && !matches!(head.kind(), HeadKind::Depth { .. })
        {
            bail!(
                "{}: normals are those of a depth map, and {:?} is not a depth head; omit --normals",
                path.display(),
                self.head
            );
        }
        let view = view.with_head(&head)?;
        match head.kind() {
            HeadKind::Classes { .. } | HeadKind::Words { .. } => self.classes(&view, rect, input),
            HeadKind::Descriptors { .. } => self.descriptors(&view, rect, &head),
            HeadKind::Depth { .. } => {
                let depth = Depth::of(&head).context("a head of another kind")?;
                self.depth(&view, rect, input, depth)
            }
        }
    }

    fn depth(
        &self,
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
        self.stream(view, rect, &mut |tile| map.push(tile))?;
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
        if let Some(path) = self.picture {
            let size = view.size();
            let photo = input.photo.resized(size.width, size.height)?;
            let colors = super::colors::of_depth(&meters);
            beside(&photo, rect, |i, _| colors[i])?.save_png(path)?;
        }
        if let Some(out) = self.out {
            save_depth(out, rect.width, rect.height, &meters)?;
        }
        Ok(shape)
    }

    fn classes(&self, view: &EncodedFrame<'_>, rect: Rect, input: &Input) -> Result<Vec<usize>> {
        let shape = vec![rect.height, rect.width];
        if let Some(out) = self.out
            && !["png", "npy"].iter().any(|e| has_extension(out, e))
        {
            bail!("{}: classes are written as .png or .npy", out.display());
        }
        let mut map = ClassMap::new(rect);
        self.stream(view, rect, &mut |tile| map.push(tile))?;
        let classes = map.into_classes();
        let _writing = interrupt::Writing::begin()?;
        if let Some(path) = self.picture {
            let size = view.size();
            beside(
                &input.photo.resized(size.width, size.height)?,
                rect,
                |i, pixel| shaded(super::colors::of_class(classes[i]), pixel),
            )?
            .save_png(path)?;
        }
        if let Some(out) = self.out {
            save_classes(out, rect.width, rect.height, &classes)?;
        }
        Ok(shape)
    }

    fn descriptors(&self, view: &EncodedFrame<'_>, rect: Rect, head: &Head) -> Result<Vec<usize>> {
        if self.picture.is_some() {
            bail!(
                "--picture shows the classes of a head, and {:?} has none; leave it out",
                self.head
            );
        }
        let shape = vec![1, head.outputs(), rect.height, rect.width];
        let Some(out) = self.out else {
            return Ok(shape);
        };
        let _writing = interrupt::Writing::begin()?;
        let mut file = NpySink::new(rect, NpyWriter::create(out, &shape)?);
        self.stream(view, rect, &mut |tile| file.push(tile))?;
        file.finish()?;
        Ok(shape)
    }

    fn stream(
        &self,
        view: &EncodedFrame<'_>,
        rect: Rect,
        take: &mut (
                 dyn FnMut(
            &loftup_runtime::TileFeatures<'_>,
        ) -> Result<(), loftup_runtime::SinkError>
                     + Send
             ),
    ) -> Result<()> {
        let bar = progress::pixels(rect.area());
        let mut sink = |tile: &loftup_runtime::TileFeatures<'_>| {
            interrupt::check()?;
            take(tile)?;
            bar.inc(tile.rect.area() as u64);
            Ok(())
        };
        let result = match self.region {
            Some(rect) => view.region(rect, &mut sink),
            None => view.frame(&mut sink),
        };
        bar.finish_and_clear();
        Ok(result?)
    }
}

pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// The photograph and a map in colors, side by side. `color` gives the color of pixel `i` of the map
/// over a pixel of the photograph.
fn beside(
    photo: &RgbImage,
    rect: Rect,
    color: impl Fn(usize, [u8; 3]) -> [u8; 3],
) -> Result<RgbImage> {
    let mut data = Vec::with_capacity(6 * rect.area());
    for y in 0..rect.height {
        let row = &photo.row(rect.y + y)[3 * rect.x..][..3 * rect.width];
        data.extend_from_slice(row);
        let pixels = row.as_chunks::<3>().0.iter().enumerate();
        data.extend(pixels.flat_map(|(x, pixel)| color(y * rect.width + x, *pixel)));
    }
    Ok(RgbImage::new(2 * rect.width, rect.height, data)?)
}

/// A color through which a little of the photograph shows.
pub fn shaded(color: [u8; 3], pixel: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|c| ((3 * u16::from(color[c]) + u16::from(pixel[c])) / 4) as u8)
}
