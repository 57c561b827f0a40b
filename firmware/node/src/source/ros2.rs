//! Images of a ROS 2 topic, through the router of `rmw_zenoh`.
//!
//! A thread maintains the subscription: it connects, checks every second whether the router is still there,
//! and reconnects. It outlives the sources, so that the node stays in the ROS graph even if a camera is
//! silent for long.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use loftup_runtime::image::Orientation;
use parking_lot::Mutex;
use zenoh::{bytes::ZBytes, sample::Sample};

use super::{Clock, MAX_SLEEP, Poll, Source, SourceError};
use crate::{
    frame::{Header, RawFrame},
    mailbox::{Mailbox, RecvResult},
    ros::{
        self, Attachment, CompressedImage, Numbering, Qos, RawImage,
        session::{RosSession, Router, Subscription},
    },
};

/// Name of the node in the ROS graph. The sink of kind `zenoh` is another node.
const NODE: &str = "loftup_source";
/// Interval between two checks of the connection, and between two attempts to connect.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum size of a message in bytes; longer ones are not read.
const MAX_MESSAGE: usize = 64 << 20;
/// A stamp in the future by at most this many microseconds counts as now, since clocks of two machines differ.
const CLOCK_SKEW_US: u64 = 100_000;

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Endpoint of the router, such as [`ros::ROUTER`].
    pub endpoint: String,
    /// ROS domain ID.
    pub domain: u32,
    /// The distribution that the subscription is declared for. Publishers of any distribution are received.
    pub distro: ros::Distro,
    /// Name of the topic.
    pub name: String,
    /// Whether it has `sensor_msgs/msg/CompressedImage` instead of `sensor_msgs/msg/Image`.
    pub compressed: bool,
    /// Length of the queue.
    pub queue: usize,
    /// Whether to apply the EXIF orientation of compressed images.
    pub orientation: Orientation,
}

/// A message that has not been read.
struct Message {
    number: u64,
    payload: ZBytes,
}

/// State shared by the subscription and the source.
struct Inbox {
    queue: Mailbox<Message>,
    numbering: Mutex<Numbering>,
    /// An error of the connection that has not been reported yet.
    fault: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Inbox {
    /// Called by zenoh. A full queue drops its oldest message, which leaves a gap in the numbers.
    fn receive(&self, sample: &Sample) {
        let mut bytes = [0; Attachment::BYTES];
        let attachment = sample.attachment().filter(|a| a.len() == bytes.len());
        let attachment = attachment
            .filter(|a| a.reader().read_exact(&mut bytes).is_ok())
            .and_then(|_| Attachment::from_bytes(&bytes));
        let number = self.numbering.lock().next(attachment);
        let payload = sample.payload().clone();
        match payload.len() {
            0..=MAX_MESSAGE => drop(self.queue.send(Message { number, payload })),
            bytes => *self.fault.lock() = Some(too_long(bytes)),
        }
    }
}

fn too_long(bytes: usize) -> String {
    let limit = MAX_MESSAGE >> 20;
    format!(
        "a message of {bytes} bytes: the limit is {limit} MiB, send smaller or compressed images"
    )
}

/// A subscription, until it is dropped.
pub struct Listener {
    topic: Topic,
    inbox: Arc<Inbox>,
    thread: Thread,
}

impl Listener {
    /// Subscribes to a topic as soon as there is a router.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(topic: Topic) -> Result<Self, SourceError> {
        let inbox = Arc::new(Inbox {
            queue: Mailbox::new(topic.queue),
            numbering: Mutex::default(),
            fault: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let keeper = thread::Builder::new().name("ros2".into()).spawn({
            let (topic, inbox) = (topic.clone(), inbox.clone());
            move || keep(&topic, &inbox)
        });
        let keeper = keeper.map_err(|e| SourceError::Other(format!("{}: {e}", topic.name)))?;
        Ok(Self {
            topic,
            inbox,
            thread: keeper.thread().clone(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Not joined: closing a session can take a while.
        self.inbox.stop.store(true, SeqCst);
        self.thread.unpark();
    }
}

/// Reconnects whenever the router is gone.
fn keep(topic: &Topic, inbox: &Arc<Inbox>) {
    let mut open: Option<(Subscription, RosSession)> = None;
    while !inbox.stop.load(SeqCst) {
        if open
            .as_ref()
            .is_none_or(|(_, session)| !session.is_connected())
        {
            open = None;
            match subscribe(topic, inbox) {
                Ok(opened) => {
                    log::info!("{}: subscribed at {}", topic.name, topic.endpoint);
                    open = Some(opened);
                }
                Err(e) => *inbox.fault.lock() = Some(e),
            }
        }
        thread::park_timeout(CHECK_INTERVAL);
    }
    if let Some((subscription, session)) = open {
        drop(subscription);
        if let Err(e) = session.close() {
            log::debug!("{}: {e}", topic.endpoint);
        }
    }
}

fn subscribe(topic: &Topic, inbox: &Arc<Inbox>) -> Result<(Subscription, RosSession), String> {
    let router = Router {
        endpoint: topic.endpoint.clone(),
        domain: topic.domain,
        distro: topic.distro,
    };
    let mut session = RosSession::open(&router, NODE)?;
    let of = match topic.compressed {
        true => ros::COMPRESSED_IMAGE,
        false => ros::IMAGE,
    };
    let inbox = inbox.clone();
    let qos = Qos::sensor_data(topic.queue);
    let subscription = session.subscribe(&topic.name, of, qos, move |s| inbox.receive(&s))?;
    Ok((subscription, session))
}

/// The images of a topic.
pub struct Ros2 {
    listener: Arc<Listener>,
    /// The last message.
    body: Vec<u8>,
    /// The last frame of reference.
    frame_id: Arc<str>,
}

impl Ros2 {
    /// Reads the messages that `listener` receives.
    pub fn new(listener: Arc<Listener>) -> Self {
        Self {
            listener,
            body: Vec::new(),
            frame_id: "".into(),
        }
    }

    fn error(&self, what: impl std::fmt::Display) -> SourceError {
        SourceError::Other(format!("{}: {what}", self.listener.topic.name))
    }

    /// Copies a message, which zenoh may store in several parts.
    fn copy(&mut self, payload: &ZBytes) {
        self.body.clear();
        for slice in payload.slices() {
            self.body.extend_from_slice(slice);
        }
    }
}

/// Converts a message. Returns its header.
fn convert<'a>(
    body: &'a [u8],
    topic: &Topic,
    into: &mut RawFrame,
) -> Result<ros::Header<'a>, ros::MessageError> {
    into.bytes.clear();
    if topic.compressed {
        let message = CompressedImage::parse(body)?;
        let image = message.decode(topic.orientation)?;
        (into.width, into.height) = (image.width(), image.height());
        into.bytes.extend_from_slice(image.data());
        return Ok(message.header);
    }
    let message = RawImage::parse(body)?;
    message.frame.append_rgb(&mut into.bytes)?;
    (into.width, into.height) = (message.frame.width, message.frame.height);
    Ok(message.header)
}

impl Source for Ros2 {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let inbox = &self.listener.inbox;
        let fault = inbox.fault.lock().take();
        if let Some(fault) = fault {
            return Err(self.error(fault));
        }
        let RecvResult::Item(message) = inbox.queue.recv(MAX_SLEEP) else {
            return Ok(Poll::Nothing);
        };
        self.copy(&message.payload);
        let converted = convert(&self.body, &self.listener.topic, into);
        let header = converted.map_err(|e| self.error(e))?;
        if *header.frame_id != *self.frame_id {
            self.frame_id = header.frame_id.into();
        }
        into.number = message.number;
        into.stamp_us = node_time(header.stamp_ns, clock);
        into.header = Some(Header {
            stamp_ns: header.stamp_ns,
            frame_id: self.frame_id.clone(),
        });
        Ok(Poll::Frame)
    }
}

/// Converts nanoseconds since 1970 to the node's clock. Times before its start become 0, and times slightly
/// in the future the current time.
fn node_time(stamp_ns: u64, clock: &Clock) -> u64 {
    let now = clock.now_us();
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wall = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
    let stamp = stamp_ns / 1000;
    match stamp.checked_sub(wall) {
        None => now.saturating_sub(wall - stamp),
        Some(0..=CLOCK_SKEW_US) => now,
        Some(ahead) => now.saturating_add(ahead),
    }
}
