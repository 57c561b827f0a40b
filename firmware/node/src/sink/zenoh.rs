//! Class maps for ROS 2 subscribers, through the router of `rmw_zenoh` (`rmw_zenohd`).
//!
//! | topic | type |
//! |---|---|
//! | `/loftup/slot_N/classes` | `sensor_msgs/msg/Image`, `mono8`, 255 for no class |
//! | `/loftup/slot_N/label_info` | `vision_msgs/msg/LabelInfo`, with the first map and once a second |
//!
//! The sink is a client of the router. Without a router it fails and retries.

use std::time::{Duration, Instant};

use zenoh::{
    Session, Wait, liveliness::LivelinessToken, pubsub::Publisher, qos::CongestionControl,
};

use super::{Context, Sink, SinkError, SinkStatus, wall_ns};
use crate::{
    output::{FrameOutput, OutputKind, QueryOutput, SLOTS},
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

/// Publishes class maps.
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
    slots: [Option<Slot>; SLOTS],
    _node: LivelinessToken,
    session: Session,
    next_id: u32,
    check_at: Instant,
}

struct Slot {
    maps: Topic,
    labels: Topic,
    labels_at: Option<Instant>,
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
        labels: &[String],
        stamp_ns: u64,
    ) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let slot = open.slot(output.slot, self.domain)?;
        let now = Instant::now();
        let due = slot
            .labels_at
            .is_none_or(|before| now >= before + LABEL_INTERVAL);
        if due && !labels.is_empty() {
            ros::label_info(stamp_ns, FRAME_ID, labels, &mut self.body);
            slot.labels.put(&self.body)?;
            slot.labels_at = Some(now);
        }
        let mask = ros::Mask {
            stamp_ns,
            frame_id: FRAME_ID,
            width: output.width,
            height: output.height,
            data: &output.classes,
        };
        mask.encode(&mut self.body);
        slot.maps.put(&self.body)
    }
}

impl Open {
    fn slot(&mut self, number: u8, domain: u32) -> Result<&mut Slot, SinkError> {
        let place = usize::from(number).min(SLOTS - 1);
        if self.slots[place].is_none() {
            let maps = format!("/loftup/slot_{number}/classes");
            let labels = format!("/loftup/slot_{number}/label_info");
            self.slots[place] = Some(Slot {
                maps: self.topic(domain, &maps, ros::IMAGE, false)?,
                labels: self.topic(domain, &labels, ros::LABEL_INFO, true)?,
                labels_at: None,
            });
        }
        self.slots[place]
            .as_mut()
            .ok_or_else(|| error("no such slot"))
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
            .filter(|output| output.kind == OutputKind::Classes && output.height > 0)
            .try_for_each(|output| self.publish(output, context.labels, stamp_ns))
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
