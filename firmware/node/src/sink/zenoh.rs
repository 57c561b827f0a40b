//! Maps and tracked objects for ROS 2 subscribers, through the router of `rmw_zenoh` (`rmw_zenohd`).
//!
//! | topic | type |
//! |---|---|
//! | `/loftup/slot_N/classes` | `sensor_msgs/msg/Image`, `mono8`, 255 for no class |
//! | `/loftup/slot_N/label_info` | `vision_msgs/msg/LabelInfo`, with the first map and once a second |
//! | `/loftup/slot_N/depth` | `sensor_msgs/msg/Image`, `16UC1`: millimeters, 0 for no depth |
//! | `/loftup/slot_N/tracks` | `vision_msgs/msg/Detection2DArray` |
//! | `/loftup/slot_N/mask` | `sensor_msgs/msg/Image`, `mono8`: the numbers of the objects, 0 for none |
//!
//! The sink is a client of the router. Without a router it fails and retries.

use std::time::{Duration, Instant};

use zenoh::{
    Session, Wait, liveliness::LivelinessToken, pubsub::Publisher, qos::CongestionControl,
};

use super::{Context, Sink, SinkError, SinkStatus, wall_ns};
use crate::{
    output::{CLASS_LABELS, FrameOutput, OutputKind, QueryOutput, SLOTS},
    ros::{self, Type},
};

/// Default endpoint of `rmw_zenohd`.
pub const ROUTER: &str = "tcp/localhost:7447";
/// Name of the node in the ROS graph.
const NODE: &str = "loftup_node";
const FRAME_ID: &str = "camera";
/// Interval between two connection attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which labels are repeated for late subscribers.
const LABEL_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes maps and tracked objects.
pub struct ZenohSink {
    name: String,
    endpoint: String,
    domain: u32,
    open: Option<Open>,
    retry_at: Instant,
    body: Vec<u8>,
}

struct Open {
    // Declared before the session, so that they are dropped first.
    slots: [Slot; SLOTS],
    _node: LivelinessToken,
    session: Session,
    next_id: u32,
    check_at: Instant,
}

/// The topics of a slot. They are declared with their first message.
#[derive(Default)]
struct Slot {
    classes: Option<Topic>,
    labels: Option<Topic>,
    depth: Option<Topic>,
    tracks: Option<Topic>,
    mask: Option<Topic>,
    labels_at: Option<Instant>,
    /// The label set that was sent last.
    labels_sent: u16,
}

struct Topic {
    publisher: Publisher<'static>,
    _token: LivelinessToken,
    gid: [u8; 16],
    sent: i64,
}

/// A zenoh error as one line, without the source location at its end.
fn error(e: impl std::fmt::Display) -> SinkError {
    let text = e.to_string();
    let text = text.split(" at /").next().unwrap_or_default();
    SinkError::Other(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

impl ZenohSink {
    /// Connects to the router at `endpoint`, such as [`ROUTER`], in this ROS domain.
    pub fn new(endpoint: &str, domain: u32) -> Self {
        Self {
            name: format!("zenoh {endpoint}"),
            endpoint: endpoint.into(),
            domain,
            open: None,
            retry_at: Instant::now(),
            body: Vec::new(),
        }
    }

    /// Opens a session if necessary. `false` until the next attempt is due.
    fn connect(&mut self) -> Result<bool, SinkError> {
        let now = Instant::now();
        if let Some(open) = &mut self.open {
            if now < open.check_at {
                return Ok(true);
            }
            open.check_at = now + RETRY_INTERVAL;
            if open.session.info().routers_zid().wait().next().is_some() {
                return Ok(true);
            }
            // Opened again below, with all tokens.
            self.open = None;
        }
        if now < self.retry_at {
            return Ok(false);
        }
        self.retry_at = now + RETRY_INTERVAL;
        let mut config = zenoh::Config::default();
        let endpoints = serde_json::json!([self.endpoint]).to_string();
        for (key, value) in [
            ("mode", "\"client\""),
            ("connect/endpoints", endpoints.as_str()),
            ("connect/timeout_ms", "1000"),
            ("scouting/multicast/enabled", "false"),
        ] {
            config.insert_json5(key, value).map_err(error)?;
        }
        let session = zenoh::open(config).wait().map_err(error)?;
        let token = ros::node_token(self.domain, &session.zid().to_string(), NODE);
        let node = session.liveliness().declare_token(token).wait();
        self.open = Some(Open {
            slots: Default::default(),
            _node: node.map_err(error)?,
            session,
            next_id: 1,
            check_at: now + RETRY_INTERVAL,
        });
        Ok(true)
    }

    fn publish(
        &mut self,
        output: &QueryOutput,
        context: &Context<'_>,
        stamp_ns: u64,
    ) -> Result<(), SinkError> {
        let (domain, body) = (self.domain, &mut self.body);
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let image = |pixels| ros::Image {
            stamp_ns,
            frame_id: FRAME_ID,
            width: output.width,
            height: output.height,
            pixels,
        };
        let slot = output.slot;
        match output.kind {
            OutputKind::Classes => {
                open.publish_labels(output, context, stamp_ns, (domain, &mut *body))?;
                image(ros::Pixels::Mono8(&output.classes)).encode(body);
                open.put(
                    (domain, slot),
                    "classes",
                    ros::IMAGE,
                    |slot| &mut slot.classes,
                    body,
                )
            }
            OutputKind::Depth => {
                image(ros::Pixels::Depth(&output.depth)).encode(body);
                open.put(
                    (domain, slot),
                    "depth",
                    ros::IMAGE,
                    |slot| &mut slot.depth,
                    body,
                )
            }
            OutputKind::Objects => {
                ros::detections(stamp_ns, FRAME_ID, &output.objects, body);
                open.put(
                    (domain, slot),
                    "tracks",
                    ros::DETECTIONS,
                    |slot| &mut slot.tracks,
                    body,
                )?;
                image(ros::Pixels::Mono8(&output.classes)).encode(body);
                open.put(
                    (domain, slot),
                    "mask",
                    ros::IMAGE,
                    |slot| &mut slot.mask,
                    body,
                )
            }
            OutputKind::Features(_) | OutputKind::Regions => Ok(()),
        }
    }
}

impl Open {
    /// Publishes the names of the classes or words of a map, if they are new or due.
    fn publish_labels(
        &mut self,
        output: &QueryOutput,
        context: &Context<'_>,
        stamp_ns: u64,
        (domain, body): (u32, &mut Vec<u8>),
    ) -> Result<(), SinkError> {
        let words = context.control.words();
        let names = match &words {
            _ if output.labels == CLASS_LABELS => context.labels,
            Some(words) if words.labels == output.labels => &words.names,
            // They have just been replaced.
            _ => return Ok(()),
        };
        let slot = &mut self.slots[usize::from(output.slot).min(SLOTS - 1)];
        let now = Instant::now();
        let due = slot
            .labels_at
            .is_none_or(|before| now >= before + LABEL_INTERVAL);
        if names.is_empty() || !due && slot.labels_sent == output.labels {
            return Ok(());
        }
        (slot.labels_at, slot.labels_sent) = (Some(now), output.labels);
        ros::label_info(stamp_ns, FRAME_ID, names, body);
        let at = (domain, output.slot);
        self.put(
            at,
            "label_info",
            ros::LABEL_INFO,
            |slot| &mut slot.labels,
            body,
        )
    }

    /// Publishes a message on a topic of a slot, which is declared first if necessary.
    fn put(
        &mut self,
        (domain, slot): (u32, u8),
        name: &str,
        of: Type,
        place: fn(&mut Slot) -> &mut Option<Topic>,
        body: &[u8],
    ) -> Result<(), SinkError> {
        let index = usize::from(slot).min(SLOTS - 1);
        if place(&mut self.slots[index]).is_none() {
            let topic = format!("/loftup/slot_{slot}/{name}");
            // Late subscribers get the names at once.
            let latched = of == ros::LABEL_INFO;
            *place(&mut self.slots[index]) = Some(self.topic(domain, &topic, of, latched)?);
        }
        match place(&mut self.slots[index]) {
            Some(topic) => topic.put(body),
            None => Ok(()),
        }
    }

    fn topic(
        &mut self,
        domain: u32,
        topic: &str,
        of: Type,
        latched: bool,
    ) -> Result<Topic, SinkError> {
        let id = self.next_id;
        self.next_id += 1;
        let zid = self.session.zid();
        let publisher = self
            .session
            .declare_publisher(ros::topic_key(domain, topic, of))
            .congestion_control(CongestionControl::Drop)
            .wait()
            .map_err(error)?;
        let token = ros::publisher_token(domain, &zid.to_string(), NODE, id, (topic, of), latched);
        let token = self.session.liveliness().declare_token(token).wait();
        // Any value that is unique among publishers.
        let mut gid = zid.to_le_bytes();
        for (byte, id) in gid.iter_mut().zip(id.to_le_bytes()) {
            *byte ^= id;
        }
        Ok(Topic {
            publisher,
            _token: token.map_err(error)?,
            gid,
            sent: 0,
        })
    }
}

impl Topic {
    fn put(&mut self, body: &[u8]) -> Result<(), SinkError> {
        self.sent += 1;
        let now = i64::try_from(wall_ns(0, 0)).unwrap_or(i64::MAX);
        let attachment = ros::attachment(self.sent, now, self.gid);
        let put = self.publisher.put(body).attachment(attachment.as_slice());
        put.wait().map_err(error)
    }
}

impl Sink for ZenohSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn push(&mut self, frame: &FrameOutput, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.connect()? {
            return Ok(());
        }
        let stamp_ns = wall_ns(frame.captured_us, context.clock.now_us());
        let outputs = frame.outputs().iter();
        outputs
            .filter(|output| output.height > 0)
            .try_for_each(|output| self.publish(output, context, stamp_ns))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        match self.open.take() {
            Some(open) => open.session.close().wait().map_err(error),
            None => Ok(()),
        }
    }

    fn status(&self) -> SinkStatus {
        SinkStatus {
            healthy: self.open.is_some(),
            ..SinkStatus::default()
        }
    }
}
