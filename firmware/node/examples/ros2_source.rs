//! Hears images of a ROS 2 topic with the node's source, and prints a line for each.
//!
//! ```text
//! ros2_source tcp/127.0.0.1:7447 DOMAIN /camera/image_raw [pixels]
//! ```
//!
//! A topic whose name ends in `/compressed` has compressed images. The lines are `frame NUMBER STAMP_NS NOW_NS WIDTH HEIGHT FRAME_ID`,
//! and with `pixels` the pixels in hexadecimal, or `error TEXT`. Ends when its standard input does.
//! `tools/check_ros2.py` uses it.

use std::{
    env,
    fmt::Write as _,
    io::{Read, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use loftup_node::{
    frame::RawFrame,
    ros::Distro,
    source::{Clock, Listener, Poll, Ros2, Source, Topic},
};
use loftup_runtime::image::Orientation;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [endpoint, domain, name, more @ ..] = &arguments[..] else {
        bail!("usage: ros2_source ENDPOINT DOMAIN TOPIC [pixels]");
    };
    let pixels = more.first().is_some_and(|word| word == "pixels");
    let listener = Listener::start(Topic {
        endpoint: endpoint.clone(),
        domain: domain.parse()?,
        distro: Distro::default(),
        name: name.clone(),
        compressed: name.ends_with("/compressed"),
        queue: 1,
        orientation: Orientation::AsStored,
    })?;
    let mut source = Ros2::new(Arc::new(listener));
    let ended = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let ended = ended.clone();
        move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            ended.store(true, SeqCst);
        }
    });
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    while !ended.load(SeqCst) {
        let mut line = match source.next(&clock, &mut frame) {
            Ok(Poll::Frame) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
                let header = frame.header.as_ref().context("a frame without a header")?;
                format!(
                    "frame {} {} {now} {} {} {}",
                    frame.number, header.stamp_ns, frame.width, frame.height, header.frame_id
                )
            }
            Ok(Poll::Nothing | Poll::Starting | Poll::End) => continue,
            Err(e) => format!("error {e}"),
        };
        if pixels && line.starts_with("frame") {
            line.push(' ');
            frame
                .bytes
                .iter()
                .try_for_each(|byte| write!(line, "{byte:02x}"))?;
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(())
}
