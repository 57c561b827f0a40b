//! What sources and sinks need of each other's keys.

use std::path::Path;

use super::{
    Sink, SinkKind, Source, SourceKind,
    mistake::{Mistake, check_size, within, wrong},
};

pub fn check_source(source: &Source) -> Result<(), Mistake> {
    if let Some(sides) = source.size {
        check_size("source.size", sides)?;
    }
    within("source.rate_hz", source.rate_hz, 0.01, 1000.0)?;
    within("source.timeout_ms", source.timeout_ms, 10, 600_000)?;
    let gstreamer = source.kind == SourceKind::Gstreamer;
    if gstreamer != source.pipeline.is_some() {
        let (what, remedy) = match gstreamer {
            true => (
                "it is missing",
                "give elements of GStreamer, as in v4l2src device=/dev/video0",
            ),
            false => (
                "only sources of kind gstreamer have it",
                "remove the key, or choose another kind",
            ),
        };
        return wrong("source.pipeline", what, remedy);
    }
    let sized = matches!(
        source.kind,
        SourceKind::Scenes | SourceKind::Gstreamer | SourceKind::V4l
    );
    if sized && source.size.is_none() {
        return wrong(
            "source.size",
            "it is missing",
            "give [width, height] of the images",
        );
    }
    match (source.kind, &source.path) {
        (SourceKind::Scenes | SourceKind::Gstreamer, Some(_)) => wrong(
            "source.path",
            "this kind has none",
            "remove the key, or choose another kind",
        ),
        (SourceKind::Scenes, None) => Ok(()),
        (SourceKind::Gstreamer, None) => match source.pipeline.as_deref().map(str::trim) {
            None | Some("") => wrong(
                "source.pipeline",
                "it is empty",
                "give elements of GStreamer, as in v4l2src device=/dev/video0",
            ),
            Some(_) => Ok(()),
        },
        (_, None) => wrong(
            "source.path",
            "it is missing",
            "name a folder, glob, recording or camera",
        ),
        #[cfg(not(feature = "v4l"))]
        (SourceKind::V4l, Some(_)) => wrong("source.kind", crate::source::NO_V4L, ""),
        // One that is not there is waited for, as one that is lost.
        #[cfg(feature = "v4l")]
        (SourceKind::V4l, Some(_)) => Ok(()),
        (SourceKind::Images, Some(path)) => match crate::source::list(path) {
            Ok(files) if files.is_empty() => wrong(
                "source.path",
                format!("{} names no image", path.display()),
                "name a folder with images, or a glob such as frames/*.png",
            ),
            Ok(_) => Ok(()),
            Err(e) => wrong(
                "source.path",
                format!("{}: {e}", path.display()),
                "name a readable folder or glob",
            ),
        },
        (SourceKind::Recording, Some(path)) => match crate::source::Recording::open(path) {
            Ok(_) => Ok(()),
            Err(e) => wrong(
                "source.path",
                e.to_string(),
                "name a file that a sink of kind recording wrote",
            ),
        },
    }
}

pub fn check_sink(sink: &Sink, key: &str) -> Result<(), Mistake> {
    within(&format!("{key}.queue"), sink.queue, 1, 2)?;
    within(&format!("{key}.every"), sink.every, 1, 1_000_000)?;
    let udp = sink.kind == SinkKind::Udp;
    for (name, given) in [("bind", sink.bind.is_some()), ("peer", sink.peer.is_some())] {
        if udp && !given {
            return wrong(
                format!("{key}.{name}"),
                "it is missing",
                "give address:port",
            );
        }
        if !udp && given {
            return wrong(
                format!("{key}.{name}"),
                "only sinks of kind udp have it",
                "remove the key",
            );
        }
    }
    let zenoh = sink.kind == SinkKind::Zenoh;
    if !zenoh && (sink.endpoint.is_some() || sink.domain != 0) {
        return wrong(
            format!("{key}.endpoint"),
            "only sinks of kind zenoh have endpoint and domain",
            "remove the keys",
        );
    }
    within(&format!("{key}.domain"), sink.domain, 0, 232)?;
    if zenoh && cfg!(not(feature = "zenoh")) {
        let remedy = "build it with --features zenoh";
        return wrong(
            format!("{key}.kind"),
            "this program was built without zenoh",
            remedy,
        );
    }
    let Some(path) = &sink.path else {
        if udp || zenoh {
            return Ok(());
        }
        return wrong(
            format!("{key}.path"),
            "it is missing",
            "name a device, file or folder",
        );
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    match sink.kind {
        SinkKind::Udp | SinkKind::Zenoh => wrong(
            format!("{key}.path"),
            "sinks of this kind have none",
            "remove the key",
        ),
        SinkKind::Serial => {
            // One that is not there is waited for, as one that is lost.
            within(&format!("{key}.baud"), sink.baud, 300, 12_000_000)
        }
        SinkKind::Pictures if path.exists() && !path.is_dir() => wrong(
            format!("{key}.path"),
            format!("{} is no folder", path.display()),
            "name a folder",
        ),
        SinkKind::Mcap | SinkKind::Recording if path.is_dir() => wrong(
            format!("{key}.path"),
            format!("{} is a folder", path.display()),
            "name a file",
        ),
        // The node creates the last directory of the path, and no more.
        _ if parent.is_some_and(|p| !is_or_can_be_created(p)) => wrong(
            format!("{key}.path"),
            format!("the folder of {} does not exist", path.display()),
            "make it first",
        ),
        _ => Ok(()),
    }
}

/// Whether `directory` exists, or only it is missing of its path.
fn is_or_can_be_created(directory: &Path) -> bool {
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty());
    directory.is_dir() || (!directory.exists() && parent.is_none_or(Path::is_dir))
}
