//! Class maps, regions and depth maps from the outputs of a head.

use std::time::{Duration, Instant};

use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    EncodedFrame, Rect, TileFeatures,
    depth::Depth,
    heads::{self, Head},
};
use loftup_wire::{
    command::{Area, Want},
    depth::millimeters,
};

use super::{FrameRequest, ModelError, ensure_finite, not_finite};
use crate::{
    output::{
        CLASS_LABELS, FrameOutput, OutputKind, Query, QueryOutput, full_frame, output_point,
        output_rect,
    },
    regions::{Placement, RegionFinder},
    static_scene::MapCache,
};

/// A head whose largest output is the class of a pixel, and the queries that it serves.
pub(super) struct ClassHead<'a> {
    /// Label set of the classes.
    pub labels: u16,
    pub wanted: &'static [Want],
    pub head: &'a Head,
}

/// Returns the queries for one of these outputs, by slot. Queries for the whole frame are skipped if only
/// regions are computed.
fn queries<'a>(
    request: &'a FrameRequest<'_>,
    wanted: &'static [Want],
) -> impl Iterator<Item = (u8, &'a Query)> {
    let queries = (0u8..).zip(request.queries);
    let queries = queries.filter_map(|(slot, query)| Some((slot, query.as_ref()?)));
    queries.filter(move |(_, query)| {
        let skipped =
            request.regions_only && query.area == Area::Frame && query.want != Want::Regions;
        wanted.contains(&query.want) && !skipped
    })
}

/// Adds an output that covers the area of the query. For points, it has one column per point.
pub(super) fn add<'a>(
    out: &'a mut FrameOutput,
    (slot, query): (u8, &Query),
    kind: OutputKind,
    request: &FrameRequest<'_>,
    size: Size,
) -> (&'a mut QueryOutput, Rect) {
    let source = match &query.area {
        Area::Region(rect) => *rect,
        Area::Frame | Area::Points(_) => full_frame(request.camera),
    };
    let rect = output_rect(source, request.camera, size);
    let output = out.add();
    (output.slot, output.kind, output.source) = (slot, kind, source);
    (output.width, output.height) = match &query.area {
        Area::Points(points) => {
            output.points.extend_from_slice(points);
            (points.len(), 1)
        }
        _ => (rect.width, rect.height),
    };
    (output, rect)
}

/// Computes the outputs of the head at the points of a query.
pub(super) fn at_points(
    view: &EncodedFrame<'_>,
    points: &[loftup_wire::message::Point],
    request: &FrameRequest<'_>,
) -> Result<Vec<f32>, ModelError> {
    let points: Vec<_> = points
        .iter()
        .map(|p| output_point(*p, request.camera, view.size()))
        .collect();
    Ok(view.points(&points)?)
}

/// Computes depth maps from the outputs of a depth head.
pub(super) fn depth(
    view: &EncodedFrame<'_>,
    depth: &Depth,
    request: &FrameRequest<'_>,
    out: &mut FrameOutput,
) -> Result<Duration, ModelError> {
    let mut head_time = Duration::ZERO;
    let dim = view.dim();
    for (slot, query) in queries(request, &[Want::Depth]) {
        let (output, rect) = add(out, (slot, query), OutputKind::Depth, request, view.size());
        if let Area::Points(points) = &query.area {
            let values = at_points(view, points, request)?;
            ensure_finite(not_finite(&values))?;
            let pixels = values.chunks_exact(dim);
            output
                .depth
                .extend(pixels.map(|pixel| millimeters(depth.meters(pixel))));
            continue;
        }
        let mut count = 0;
        output.depth.resize(rect.area(), 0);
        let map = &mut output.depth;
        view.region(rect, &mut |tile| {
            let start = Instant::now();
            let x = tile.rect.x - rect.x;
            for row in 0..tile.rect.height {
                let y = tile.rect.y - rect.y + row;
                let line = &mut map[y * rect.width + x..][..tile.rect.width];
                let values = tile.row(row);
                count += not_finite(values);
                for (place, pixel) in line.iter_mut().zip(values.chunks_exact(dim)) {
                    *place = millimeters(depth.meters(pixel));
                }
            }
            head_time += start.elapsed();
            Ok(())
        })?;
        ensure_finite(count)?;
    }
    Ok(head_time)
}

/// Computes class maps and regions from the scores of a head. If `maps` of the last frame are given,
/// only changed tiles are computed.
pub(super) fn classes(
    view: &EncodedFrame<'_>,
    head: &ClassHead<'_>,
    request: &FrameRequest<'_>,
    mut maps: Option<&mut MapCache>,
    finder: &mut RegionFinder,
    out: &mut FrameOutput,
) -> Result<Duration, ModelError> {
    let mut head_time = Duration::ZERO;
    let size = view.size();
    let invalid = invalid(head.head);
    for (slot, query) in queries(request, head.wanted) {
        let kind = match query.want {
            Want::Regions => OutputKind::Regions,
            _ => OutputKind::Classes,
        };
        let (output, rect) = add(out, (slot, query), kind, request, size);
        output.labels = head.labels;
        if let Area::Points(points) = &query.area {
            let scores = at_points(view, points, request)?;
            ensure_finite(scores.iter().filter(|x| invalid(x)).count())?;
            output
                .classes
                .extend(scores.chunks_exact(view.dim()).map(heads::argmax));
            continue;
        }
        let (mut computed, mut kept) = out.tiles;
        let Some((output, before)) = out.split_last_mut() else {
            continue;
        };
        let known = before.iter().find(|p| {
            let same =
                (p.source, p.width, p.height) == (output.source, output.width, output.height);
            let map = matches!(p.kind, OutputKind::Classes | OutputKind::Regions);
            map && same && p.labels == head.labels
        });
        match known {
            Some(known) => output.classes.extend_from_slice(&known.classes),
            None => {
                let mut not_finite = 0;
                output.classes.resize(rect.area(), heads::NO_CLASS);
                let mut write = |tile: &TileFeatures<'_>, map: &mut [u8]| {
                    let start = Instant::now();
                    let n = write_classes(tile, rect, invalid, map);
                    head_time += start.elapsed();
                    not_finite += n;
                    n == 0
                };
                if let Some(maps) = &mut maps {
                    let update = maps.update(slot, view, rect, &mut write, &mut output.classes)?;
                    computed += update.computed;
                    kept += update.tiles - update.computed;
                } else {
                    view.region(rect, &mut |tile| {
                        write(tile, &mut output.classes);
                        Ok(())
                    })?;
                }
                ensure_finite(not_finite)?;
            }
        }
        if kind == OutputKind::Regions {
            let start = Instant::now();
            find_regions(output, (rect, size), request, finder);
            head_time += start.elapsed();
        }
        out.tiles = (computed, kept);
    }
    Ok(head_time)
}

/// Finds the regions of an output that covers `rect` of a map of `size`.
fn find_regions(
    output: &mut QueryOutput,
    (rect, size): (Rect, Size),
    request: &FrameRequest<'_>,
    finder: &mut RegionFinder,
) {
    let place = Placement {
        rect,
        output: size,
        camera: request.camera,
    };
    let (min_area, max_regions) = (request.min_area_px, request.max_regions);
    let regions = &mut output.regions;
    finder.find(&output.classes, &place, min_area, max_regions, regions);
}

/// Adds the outputs of all queries for classes and regions of the whole frame from the class map `map` of
/// `size`.
pub(super) fn whole_frame(
    map: &[u8],
    size: Size,
    request: &FrameRequest<'_>,
    finder: &mut RegionFinder,
    out: &mut FrameOutput,
) -> Result<(), ModelError> {
    ensure_finite(map.iter().filter(|x| **x == heads::NO_CLASS).count())?;
    for (slot, query) in queries(request, &[Want::Classes, Want::Regions]) {
        let kind = match query.want {
            Want::Regions => OutputKind::Regions,
            _ => OutputKind::Classes,
        };
        let (output, rect) = add(out, (slot, query), kind, request, size);
        output.labels = CLASS_LABELS;
        output.classes.extend_from_slice(map);
        if kind == OutputKind::Regions {
            find_regions(output, (rect, size), request, finder);
        }
    }
    Ok(())
}

/// Returns a test for invalid scores. Scores of words are negative infinity if none was found.
fn invalid(head: &Head) -> fn(&f32) -> bool {
    match head.kind() {
        HeadKind::Words { .. } => |x| x.is_nan() || *x == f32::INFINITY,
        _ => |x| !x.is_finite(),
    }
}

/// Writes the argmax of each pixel to the map. Returns the number of scores that are invalid.
fn write_classes(
    tile: &TileFeatures<'_>,
    rect: Rect,
    invalid: fn(&f32) -> bool,
    map: &mut [u8],
) -> usize {
    let mut count = 0;
    let x = tile.rect.x - rect.x;
    for row in 0..tile.rect.height {
        let y = tile.rect.y - rect.y + row;
        let line = &mut map[y * rect.width + x..][..tile.rect.width];
        let scores = tile.row(row);
        count += scores.iter().filter(|x| invalid(x)).count();
        heads::argmax_pixels(scores, tile.dim(), line);
    }
    count
}
