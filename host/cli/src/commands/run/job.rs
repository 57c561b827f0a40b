//! The answer for one frame.

use std::path::Path;

use anyhow::{Context, Result, bail};
use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    EncodedFrame, ImageTensor, NafStatistics, Perceptor, Point, Rect,
    heads::Head,
    jbu::JbuOptions,
    npy::{self, NpyWriter},
    panels::panels_size,
    pca::CommonBasis,
    sinks::{NpySink, PcaSink},
};

use super::{Args, Upsampler};
use crate::{
    commands::{
        input::Input,
        open_head,
        panels::Panels,
        through::{Answer, Show, Shown, stream},
    },
    interrupt,
};

/// What is asked for, and what is the same for all frames.
pub struct Job<'a> {
    args: &'a Args,
    perceptor: &'a Perceptor,
    points: Option<Vec<Point>>,
    /// Opened for the first frame.
    head: Option<Head>,
    /// The colors of the first frame, so that those of a video do not flicker.
    basis: Option<CommonBasis>,
    /// Of the video.
    naf_statistics: NafStatistics,
}

impl<'a> Job<'a> {
    pub fn new(args: &'a Args, perceptor: &'a Perceptor, points: Option<Vec<Point>>) -> Self {
        Self {
            args,
            perceptor,
            points,
            head: None,
            basis: None,
            naf_statistics: args.frames.naf_statistics(),
        }
    }

    pub fn is_jbu(&self) -> bool {
        self.args.upsampler == Upsampler::Jbu
    }

    /// Extension of the file of an answer.
    pub fn extension(&mut self) -> Result<&'static str> {
        let Some(name) = self.args.head.as_deref() else {
            return Ok("npy");
        };
        let head = open_once(&mut self.head, self.perceptor, name)?;
        Ok(match head.kind() {
            HeadKind::Descriptors { .. } => "npy",
            _ => "png",
        })
    }

    /// Writes the answer to `out` and shows it. Returns its shape.
    pub fn answer(
        &mut self,
        input: &Input,
        out: Option<&Path>,
        show: Option<Show<'_>>,
    ) -> Result<Vec<usize>> {
        let args = self.args;
        let Some(guidance) = &input.guidance else {
            if args.head.is_some() {
                bail!(self.lacks_upsampler("--head"));
            }
            if self.points.is_some() {
                bail!(self.lacks_upsampler("--points"));
            }
            return self.backbone_only(input, out, show.is_some());
        };
        let view = self.view(input, guidance)?;
        if let Some(name) = args.head.as_deref()
            && self.points.is_none()
        {
            view.check_region(args.region.unwrap_or(Rect::whole(view.size())))?;
            let head = open_once(&mut self.head, self.perceptor, name)?;
            let answer = Answer {
                name,
                head,
                region: args.region,
                out,
                show,
                normals: args.normals.as_ref(),
                camera: args.camera.camera(),
                quiet: args.video.is_some(),
            };
            return answer.frame(view, input);
        }
        let Some(points) = &self.points else {
            return self.upsample(view, input, out, show);
        };
        let file = args.points.as_deref().unwrap_or(Path::new(""));
        let named = || file.display().to_string();
        let (shape, values) = match args.head.as_deref() {
            Some(name) => {
                let head = open_once(&mut self.head, self.perceptor, name)?;
                Answer::points(head, view, points).with_context(named)?
            }
            None => {
                let values = view.points(points).with_context(named)?;
                (vec![points.len(), view.dim()], values)
            }
        };
        write(out, &shape, &values)?;
        Ok(shape)
    }

    fn lacks_upsampler(&self, option: &str) -> String {
        format!(
            "{}: {option} needs upsampled features, but the bundle has no upsampler; convert it with --upsampler-weights, or use --upsampler jbu",
            self.args.bundle
        )
    }

    /// Refuses a picture that cannot be written, before the work starts.
    pub fn check_picture(&self, path: &Path) -> Result<()> {
        if self.args.head.is_some() {
            return Ok(());
        }
        if path.is_dir() {
            bail!(
                "{}: is a directory; --picture needs a file name",
                path.display()
            );
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        if !directory.is_dir() {
            bail!(
                "{}: no directory {}; create it, or choose another --picture",
                path.display(),
                directory.display()
            );
        }
        Ok(())
    }

    /// Writes the backbone's features.
    fn backbone_only(&self, input: &Input, out: Option<&Path>, shown: bool) -> Result<Vec<usize>> {
        for (given, option) in [
            (self.args.region.is_some(), "--region"),
            (shown, "--picture"),
        ] {
            if given {
                bail!(self.lacks_upsampler(option));
            }
        }
        let f = &input.features;
        let shape = vec![1, f.dim, f.height, f.width];
        write(out, &shape, &f.to_map())?;
        Ok(shape)
    }

    fn view(&mut self, input: &Input, guidance: &ImageTensor) -> Result<EncodedFrame<'a>> {
        let normalization = &self.perceptor.manifest().normalization;
        let range = self.args.input.range.color_range(normalization);
        if self.is_jbu() {
            let features = input.features.clone();
            return Ok(self
                .perceptor
                .encode_jbu(features, guidance, JbuOptions::default()));
        }
        let statistics = &mut self.naf_statistics;
        Ok(self
            .perceptor
            .encode_video(&input.features, guidance, range, statistics)?)
    }

    /// Streams the features of an image or region to the output files.
    fn upsample(
        &mut self,
        view: EncodedFrame<'_>,
        input: &Input,
        out: Option<&Path>,
        show: Option<Show<'_>>,
    ) -> Result<Vec<usize>> {
        let Size { width, height } = view.size();
        let rect = self.args.region.unwrap_or(Rect::whole(view.size()));
        view.check_region(rect)?;
        let shape = vec![1, view.dim(), rect.height, rect.width];
        let _writing = interrupt::Writing::begin()?;
        if show.is_some() {
            let picture = self.args.picture.as_deref().unwrap_or(Path::new("--out"));
            panels_size(rect.width, rect.height).with_context(|| {
                format!(
                    "{}: three panels of {}x{} are too large for one image; omit --picture, or choose a --region",
                    picture.display(), rect.width, rect.height
                )
            })?;
        }
        // Output files first, so that a full disk or a wrong path is reported before the work starts.
        let mut file = match out {
            Some(out) => Some(NpySink::new(rect, NpyWriter::create(out, &shape)?)),
            None => None,
        };
        let panels = match &show {
            Some(_) => Some(Panels::new(&view, &input.features, rect, &mut self.basis)?),
            None => None,
        };
        let mut components = panels
            .as_ref()
            .map(|p| PcaSink::new(rect, p.basis(), Panels::HIGH));

        stream(
            &view,
            self.args.region,
            self.args.video.is_some(),
            &mut |tile| {
                if let Some(file) = &mut file {
                    file.push(tile)?;
                }
                if let Some(components) = &mut components {
                    components.push(tile)?;
                }
                Ok(())
            },
        )?;
        // The visualization first: its disk space is not reserved, so it may fail, and then --out must
        // not appear either.
        if let (Some(panels), Some(components), Some(show)) = (&panels, components, show) {
            let photo = input.photo.resized(width, height)?;
            let picture = panels.draw(&photo, &components.into_values())?;
            show(Shown::Panels(picture))?;
        }
        if let Some(file) = file {
            file.finish()?;
        }
        Ok(shape)
    }
}

/// The head, opened on first use.
fn open_once<'h>(
    head: &'h mut Option<Head>,
    perceptor: &Perceptor,
    name: &str,
) -> Result<&'h Head> {
    Ok(match head {
        Some(head) => head,
        None => head.insert(open_head(perceptor, name)?),
    })
}

/// Writes an output, if it is wanted.
fn write(out: Option<&Path>, shape: &[usize], values: &[f32]) -> Result<()> {
    if let Some(out) = out {
        let _writing = interrupt::Writing::begin()?;
        npy::write(out, shape, values)?;
    }
    Ok(())
}
