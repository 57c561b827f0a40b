//! Outputs for ROS 2 subscribers, through the router of `rmw_zenoh` (`rmw_zenohd`).
//!
//! | topic | type |
//! |---|---|
//! | `/loftup/slot_N/classes` | `sensor_msgs/msg/Image`, `mono8`, 255 for no class |
//! | `/loftup/slot_N/label_info` | `vision_msgs/msg/LabelInfo`, with the first map and once a second |
//! | `/loftup/slot_N/depth` | `sensor_msgs/msg/Image`, `16UC1`: millimeters, 0 for no depth |
//! | `/loftup/slot_N/tracks` | `vision_msgs/msg/Detection2DArray` |
//! | `/loftup/slot_N/mask` | `sensor_msgs/msg/Image`, `mono8`: the numbers of the objects, 0 for none |
//! | `/loftup/slot_N/features` | `sensor_msgs/msg/PointCloud2`: features at points of the camera image |
//! | `/diagnostics` | `diagnostic_msgs/msg/DiagnosticArray`, once a second and on changes |
//!
//! It offers the services of [`ros::Service`]: a switch and the parameter `rate_hz`.
//!
//! The sink is a client of the router. Without a router it fails and retries.

mod services;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Context, HealthReport, Sink, SinkError, SinkStatus, header_of, wall_ns};
use crate::{
    health::State,
    mailbox::{Mailbox, RecvResult},
    output::{CLASS_LABELS, FrameOutput, OutputKind, QueryOutput, SLOTS},
    ros::{
        self, Distro, Level, Qos, Type,
        session::{Publisher, Request, RosSession, Router, Server},
    },
};

/// Name of the node in the ROS graph.
const NODE: &str = "loftup_node";
/// Interval between two connection attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which labels are repeated for late subscribers.
const LABEL_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes outputs and health, and answers requests.
pub struct ZenohSink {
    name: String,
    router: Router,
    requests: Arc<Mailbox<Request>>,
    open: Option<Open>,
    retry_at: Instant,
    body: Vec<u8>,
}

struct Open {
    // Declared before the session, so that they are dropped first.
    _services: Vec<Server>,
    slots: [Slot; SLOTS],
    diagnostics: Option<Publisher>,
    session: RosSession,
    check_at: Instant,
}

/// The topics of a slot, which are declared with their first message.
#[derive(Default)]
struct Slot {
    classes: Option<Publisher>,
    labels: Option<Publisher>,
    depth: Option<Publisher>,
    tracks: Option<Publisher>,
    mask: Option<Publisher>,
    features: Option<Publisher>,
    labels_at: Option<Instant>,
    /// The label set that was sent last.
    labels_sent: u16,
}

impl ZenohSink {
    /// Connects to the router at `endpoint`, such as [`ros::ROUTER`], in this ROS domain.
    pub fn new(endpoint: &str, domain: u32, distro: Distro) -> Self {
        Self {
            name: format!("zenoh {endpoint}"),
            router: Router {
                endpoint: endpoint.into(),
                domain,
                distro,
            },
            requests: Arc::new(Mailbox::new(services::MAX_REQUESTS)),
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
            if open.session.is_connected() {
                return Ok(true);
            }
            // Opened again below, with all tokens.
            self.open = None;
        }
        if now < self.retry_at {
            return Ok(false);
        }
        self.retry_at = now + RETRY_INTERVAL;
        let mut session = RosSession::open(&self.router, NODE).map_err(SinkError::Other)?;
        let services = services::declare(&mut session, &self.requests);
        self.open = Some(Open {
            _services: services.map_err(SinkError::Other)?,
            slots: Default::default(),
            diagnostics: None,
            session,
            check_at: now + RETRY_INTERVAL,
        });
        Ok(true)
    }

    fn publish(
        &mut self,
        output: &QueryOutput,
        context: &Context<'_>,
        header: ros::Header<'_>,
    ) -> Result<(), SinkError> {
        let body = &mut self.body;
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let image = |pixels| ros::Image {
            header,
            width: output.width,
            height: output.height,
            pixels,
        };
        let slot = output.slot;
        match output.kind {
            OutputKind::Classes => {
                open.publish_labels(output, context, header, body)?;
                image(ros::Pixels::Mono8(&output.classes)).encode(body);
                open.put(slot, "classes", ros::IMAGE, |s| &mut s.classes, body)
            }
            OutputKind::Depth => {
                image(ros::Pixels::Depth(&output.depth)).encode(body);
                open.put(slot, "depth", ros::IMAGE, |s| &mut s.depth, body)
            }
            OutputKind::Objects => {
                ros::detections(header, &output.objects, body);
                open.put(slot, "tracks", ros::DETECTIONS, |s| &mut s.tracks, body)?;
                image(ros::Pixels::Mono8(&output.classes)).encode(body);
                open.put(slot, "mask", ros::IMAGE, |s| &mut s.mask, body)
            }
            OutputKind::Features(_) => {
                let features = (&output.values[..], output.channels);
                ros::points(header, &output.points, features, body);
                open.put(slot, "features", ros::POINTS, |s| &mut s.features, body)
            }
            OutputKind::Regions => Ok(()),
        }
    }
}

impl Open {
    /// Publishes the names of the classes or words of a map, if they are new or due.
    fn publish_labels(
        &mut self,
        output: &QueryOutput,
        context: &Context<'_>,
        header: ros::Header<'_>,
        body: &mut Vec<u8>,
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
        ros::label_info(header, names, body);
        let of = ros::LABEL_INFO;
        self.put(output.slot, "label_info", of, |s| &mut s.labels, body)
    }

    /// Publishes a message on a topic of a slot, which is declared first if necessary.
    fn put(
        &mut self,
        slot: u8,
        name: &str,
        of: Type,
        place: fn(&mut Slot) -> &mut Option<Publisher>,
        body: &[u8],
    ) -> Result<(), SinkError> {
        let place = place(&mut self.slots[usize::from(slot).min(SLOTS - 1)]);
        let publisher = match place {
            Some(publisher) => publisher,
            None => {
                let topic = format!("/loftup/slot_{slot}/{name}");
                // Subscribers may request transient local. There is no history; labels are repeated every second.
                let latched = of == ros::LABEL_INFO;
                let qos = Qos {
                    latched,
                    ..Qos::PUBLISHED
                };
                let declared = self.session.publisher(&topic, of, qos);
                place.insert(declared.map_err(SinkError::Other)?)
            }
        };
        publisher.put(body, wall_ns(0, 0)).map_err(SinkError::Other)
    }
}

/// The health of the node for `/diagnostics`.
fn encode_health(report: &HealthReport, stamp_ns: u64, out: &mut Vec<u8>) {
    let level = match report.state {
        State::Starting | State::Running => Level::Ok,
        State::Degraded(_) | State::Recovering => Level::Warn,
        State::Failed(_) => Level::Error,
    };
    let milliseconds = |us: u64| format!("{:.3}", us as f64 / 1000.0);
    let mut values = vec![
        ("outputs per second", format!("{:.2}", report.rate_hz)),
        ("latency p50 (ms)", milliseconds(report.latency_p50_us)),
        ("latency p99 (ms)", milliseconds(report.latency_p99_us)),
        ("outputs published", report.published.to_string()),
        ("frames dropped", report.dropped.to_string()),
        (
            "uptime (s)",
            format!("{:.1}", report.uptime_us as f64 / 1e6),
        ),
    ];
    if let Some(cc) = report.temperature_cc {
        values.push(("temperature (C)", format!("{:.2}", f64::from(cc) / 100.0)));
    }
    let status = ros::Status {
        level,
        name: "loftup_node: pipeline",
        message: &report.state.to_string(),
        values: &values,
    };
    ros::diagnostics(stamp_ns, &status, out);
}

impl Sink for ZenohSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn push(&mut self, frame: &FrameOutput, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.connect()? {
            return Ok(());
        }
        let captured_ns = wall_ns(frame.captured_us, context.clock.now_us());
        let header = header_of(frame, captured_ns);
        let outputs = frame.outputs().iter();
        outputs
            .filter(|output| output.height > 0)
            .try_for_each(|output| self.publish(output, context, header))
    }

    fn push_health(&mut self, report: &HealthReport, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.connect()? {
            return Ok(());
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let publisher = match &mut open.diagnostics {
            Some(publisher) => publisher,
            place => {
                let of = ros::DIAGNOSTICS;
                let declared = open.session.publisher("/diagnostics", of, Qos::PUBLISHED);
                place.insert(declared.map_err(SinkError::Other)?)
            }
        };
        let now = wall_ns(0, 0);
        encode_health(report, now, &mut self.body);
        publisher.put(&self.body, now).map_err(SinkError::Other)
    }

    fn poll(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        while let RecvResult::Item(request) = self.requests.recv(Duration::ZERO) {
            services::answer(&request, context, &mut self.body)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        match self.open.take() {
            Some(open) => open.session.close().map_err(SinkError::Other),
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
