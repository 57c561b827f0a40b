//! Checks of sources and sinks.

use std::path::Path;

use loftup_runtime::video::is_url;

use super::{
    Sink, SinkKind, Source, SourceKind,
    error::{Invalid, check_range, check_size, invalid},
};
use crate::ros;

pub fn check_source(source: &Source) -> Result<(), Invalid> {
    if let Some(sides) = source.size {
        check_size("source.size", sides)?;
    }
    if let Some(rate) = source.rate_hz {
        check_range("source.rate_hz", rate, 0.01, 1000.0)?;
    }
    check_range("source.timeout_ms", source.timeout_ms, 10, 600_000)?;
    let gstreamer = source.kind == SourceKind::Gstreamer;
    if gstreamer != source.pipeline.is_some() {
        let (what, hint) = match gstreamer {
            true => (
                "this key is required",
                "set it to GStreamer elements, such as v4l2src device=/dev/video0",
            ),
            false => (
                "only sources of kind gstreamer have this key",
                "remove the key, or use another kind",
            ),
        };
        return invalid("source.pipeline", what, hint);
    }
    let sized = matches!(
        source.kind,
        SourceKind::Scenes | SourceKind::Gstreamer | SourceKind::V4l
    );
    if sized && source.size.is_none() {
        return invalid(
            "source.size",
            "this key is required",
            "set it to [width, height] of the images",
        );
    }
    check_topic(source)?;
    match (source.kind, &source.path) {
        (SourceKind::Scenes | SourceKind::Gstreamer | SourceKind::Ros2, Some(_)) => invalid(
            "source.path",
            "sources of this kind have no path",
            "remove the key, or use another kind",
        ),
        (SourceKind::Scenes | SourceKind::Ros2, None) => Ok(()),
        (SourceKind::Gstreamer, None) => match source.pipeline.as_deref().map(str::trim) {
            None | Some("") => invalid(
                "source.pipeline",
                "it is empty",
                "set it to GStreamer elements, such as v4l2src device=/dev/video0",
            ),
            Some(_) => Ok(()),
        },
        (_, None) => invalid(
            "source.path",
            "this key is required",
            "set it to a directory, glob, recording, video or camera",
        ),
        (SourceKind::Video, Some(path)) if is_url(path) || path.is_file() => Ok(()),
        (SourceKind::Video, Some(path)) => invalid(
            "source.path",
            format!("there is no file {}", path.display()),
            "use a video file, or the address of a stream such as rtsp://camera/1",
        ),
        #[cfg(not(feature = "v4l"))]
        (SourceKind::V4l, Some(_)) => invalid("source.kind", crate::source::NO_V4L, ""),
        // A missing device is retried, like one that was lost.
        #[cfg(feature = "v4l")]
        (SourceKind::V4l, Some(_)) => Ok(()),
        (SourceKind::Images, Some(path)) => match crate::source::list(path) {
            Ok(files) if files.is_empty() => invalid(
                "source.path",
                format!("{} matches no image", path.display()),
                "use a directory of images, or a glob such as frames/*.png",
            ),
            Ok(_) => Ok(()),
            Err(e) => invalid(
                "source.path",
                format!("{}: {e}", path.display()),
                "use a readable directory or glob",
            ),
        },
        (SourceKind::Recording, Some(path)) => match crate::source::Recording::open(path) {
            Ok(_) => Ok(()),
            Err(e) => invalid(
                "source.path",
                e.to_string(),
                "use a file that a sink of kind recording wrote",
            ),
        },
    }
}

/// The keys of a ROS 2 topic.
fn check_topic(source: &Source) -> Result<(), Invalid> {
    if source.kind != SourceKind::Ros2 {
        for (name, given) in [
            ("topic", source.topic.is_some()),
            ("transport", source.transport.is_some()),
            ("endpoint", source.endpoint.is_some()),
            ("domain", source.domain.is_some()),
            ("distro", source.distro.is_some()),
            ("queue", source.queue.is_some()),
        ] {
            if given {
                return invalid(
                    format!("source.{name}"),
                    "only sources of kind ros2 have this key",
                    "remove the key, or use another kind",
                );
            }
        }
        return Ok(());
    }
    #[cfg(not(feature = "zenoh"))]
    invalid("source.kind", crate::source::NO_ZENOH, "")?;
    let Some(topic) = &source.topic else {
        return invalid(
            "source.topic",
            "this key is required",
            "set it to a topic, such as /camera/image_raw",
        );
    };
    if !ros::is_topic(topic) {
        return invalid(
            "source.topic",
            format!("{topic:?} is not the full name of a topic"),
            "use letters, digits and underscores after each slash, such as /camera/image_raw",
        );
    }
    check_endpoint("source.endpoint", source.endpoint.as_deref())?;
    check_range("source.domain", source.domain.unwrap_or(0), 0, 232)?;
    check_range("source.queue", source.queue.unwrap_or(1), 1, 10)
}

/// An endpoint of zenoh: `tcp/host:port` or `udp/host:port`.
fn check_endpoint(key: &str, endpoint: Option<&str>) -> Result<(), Invalid> {
    let good = |endpoint: &str| {
        let address = ["tcp/", "udp/"]
            .iter()
            .find_map(|protocol| endpoint.strip_prefix(protocol))?;
        let (host, port) = address.rsplit_once(':')?;
        Some(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match endpoint {
        Some(endpoint) if good(endpoint) != Some(true) => invalid(
            key,
            format!("{endpoint:?} is not an endpoint of a router"),
            format!("use tcp/host:port, such as {}", ros::ROUTER),
        ),
        _ => Ok(()),
    }
}

pub fn check_sink(sink: &Sink, key: &str) -> Result<(), Invalid> {
    check_range(&format!("{key}.queue"), sink.queue, 1, 2)?;
    check_range(&format!("{key}.every"), sink.every, 1, 1_000_000)?;
    let udp = sink.kind == SinkKind::Udp;
    for (name, given) in [("bind", sink.bind.is_some()), ("peer", sink.peer.is_some())] {
        if udp && !given {
            return invalid(
                format!("{key}.{name}"),
                "this key is required",
                "set it to address:port",
            );
        }
        if !udp && given {
            return invalid(
                format!("{key}.{name}"),
                "only sinks of kind udp have this key",
                "remove the key",
            );
        }
    }
    let zenoh = sink.kind == SinkKind::Zenoh;
    let ros_keys = (sink.domain, sink.distro) != Default::default();
    if !zenoh && (sink.endpoint.is_some() || ros_keys) {
        return invalid(
            format!("{key}.endpoint"),
            "only sinks of kind zenoh have endpoint, domain and distro",
            "remove the keys",
        );
    }
    check_endpoint(&format!("{key}.endpoint"), sink.endpoint.as_deref())?;
    check_range(&format!("{key}.domain"), sink.domain, 0, 232)?;
    #[cfg(not(feature = "zenoh"))]
    if zenoh {
        return invalid(format!("{key}.kind"), crate::source::NO_ZENOH, "");
    }
    let Some(path) = &sink.path else {
        if udp || zenoh {
            return Ok(());
        }
        return invalid(
            format!("{key}.path"),
            "this key is required",
            "set it to a device, file or directory",
        );
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    match sink.kind {
        SinkKind::Udp | SinkKind::Zenoh => invalid(
            format!("{key}.path"),
            "sinks of this kind have no path",
            "remove the key",
        ),
        SinkKind::Serial => {
            // A missing device is retried, like one that was lost.
            check_range(&format!("{key}.baud"), sink.baud, 300, 12_000_000)
        }
        SinkKind::Images if path.exists() && !path.is_dir() => invalid(
            format!("{key}.path"),
            format!("{} is not a directory", path.display()),
            "use a directory",
        ),
        SinkKind::Mcap | SinkKind::Recording if path.is_dir() => invalid(
            format!("{key}.path"),
            format!("{} is a directory", path.display()),
            "use a file name",
        ),
        // The node creates only the last directory of the path.
        _ if parent.is_some_and(|p| !is_or_can_be_created(p)) => invalid(
            format!("{key}.path"),
            format!("the directory of {} does not exist", path.display()),
            "create it first",
        ),
        _ => Ok(()),
    }
}

/// Whether `directory` or its parent exists.
fn is_or_can_be_created(directory: &Path) -> bool {
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty());
    directory.is_dir() || (!directory.exists() && parent.is_none_or(Path::is_dir))
}
