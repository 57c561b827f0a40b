//! Answers of a head.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use loftup_bundle::HeadKind;
use loftup_runtime::{
    EncodedFrame, Perceptor, Point, Rect,
    class_map::{ClassMap, save_classes},
    heads::{Head, NO_CLASS},
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
}

impl Answer<'_> {
    /// The head: a name is one of the bundle, anything else a file.
    fn open(&self, perceptor: &Perceptor) -> Result<Head> {
        Ok(match loftup_bundle::Head::is_name(self.head) {
            true => perceptor.head(self.head)?,
            false => perceptor.head_from_file(self.head.as_ref())?,
        })
    }

    /// Outputs of the head at some points, `[n, k]`.
    pub fn points(
        &self,
        perceptor: &Perceptor,
        view: EncodedFrame<'_>,
        points: &[Point],
    ) -> Result<Vec<usize>> {
        let head = self.open(perceptor)?;
        let values = view.with_head(&head)?.points(points)?;
        let shape = vec![points.len(), head.outputs()];
        if let Some(out) = self.out {
            let _writing = interrupt::Writing::begin()?;
            npy::write(out, &shape, &values)?;
        }
        Ok(shape)
    }

    /// A map of classes `[H, W]`, or descriptors `[1, k, H, W]`.
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
        let view = view.with_head(&head)?;
        match head.kind() {
            HeadKind::Classes { .. } | HeadKind::Words { .. } => self.classes(&view, rect, input),
            HeadKind::Descriptors { .. } => self.descriptors(&view, rect, &head),
        }
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
                &classes,
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

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// The photograph and its classes in colors, side by side.
fn beside(photo: &RgbImage, rect: Rect, classes: &[u8]) -> Result<RgbImage> {
    let mut data = Vec::with_capacity(6 * rect.area());
    for (y, line) in classes.chunks_exact(rect.width).enumerate() {
        let row = &photo.row(rect.y + y)[3 * rect.x..][..3 * rect.width];
        data.extend_from_slice(row);
        for (class, pixel) in line.iter().zip(row.as_chunks::<3>().0) {
            // A little of the photograph shows through.
            let color = color(*class);
            data.extend(
                (0..3).map(|c| ((3 * u16::from(color[c]) + u16::from(pixel[c])) / 4) as u8),
            );
        }
    }
    Ok(RgbImage::new(2 * rect.width, rect.height, data)?)
}

/// Colors that follow each other far apart on the circle of hues.
fn color(class: u8) -> [u8; 3] {
    if class == NO_CLASS {
        return [0; 3];
    }
    let hue = f32::from(class) * 0.618_034 % 1.0 * 6.0;
    let value = 255.0 - 40.0 * f32::from(class % 3);
    let channel = |offset: f32| {
        let k = (hue + offset) % 6.0;
        (value * (1.0 - 0.75 * k.min(4.0 - k).clamp(0.0, 1.0))) as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}
