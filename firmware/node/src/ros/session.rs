//! A zenoh session with the router of `rmw_zenoh`, as a ROS 2 node.

use zenoh::{
    Session, Wait,
    liveliness::LivelinessToken,
    pubsub,
    qos::CongestionControl,
    query::{Query, Queryable},
    sample::{Sample, SampleKind},
};

use super::{
    Attachment, Distro, GraphNode, MAX_REQUEST, Qos, Role, Service, Type, any_topic_key, topic_key,
};

/// Maximum message size in bytes; zenoh drops longer ones.
const MAX_RECEIVED: &str = "134217728";

/// The router, and the nodes that it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Router {
    /// Endpoint, such as [`super::ROUTER`].
    pub(crate) endpoint: String,
    /// ROS domain ID.
    pub(crate) domain: u32,
    /// The distribution of the other nodes.
    pub(crate) distro: Distro,
}

/// A ROS 2 node, connected to the router as a client.
pub(crate) struct RosSession {
    // Declared before the session, so that it is dropped first.
    _token: LivelinessToken,
    node: GraphNode,
    session: Session,
    next_id: u32,
}

/// A topic that the node publishes.
pub(crate) struct Publisher {
    publisher: pubsub::Publisher<'static>,
    _token: LivelinessToken,
    gid: [u8; 16],
    sent: i64,
}

/// A subscription of the node.
pub(crate) struct Subscription {
    _subscriber: pubsub::Subscriber<()>,
    _token: LivelinessToken,
}

/// A request to a service of the node.
pub(crate) struct Request {
    pub(crate) service: Service,
    query: Query,
}

/// A service of the node.
pub(crate) struct Server {
    _queryable: Queryable<()>,
    _token: LivelinessToken,
}

/// Formats a zenoh error as one line, without the source location at its end.
pub(crate) fn line(e: impl std::fmt::Display) -> String {
    let text = e.to_string();
    let text = text.split(" at /").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl RosSession {
    /// Connects to the router, within a second.
    pub(crate) fn open(router: &Router, name: &'static str) -> Result<Self, String> {
        let mut config = zenoh::Config::default();
        let endpoints = serde_json::json!([router.endpoint]).to_string();
        for (key, value) in [
            ("mode", "\"client\""),
            ("connect/endpoints", endpoints.as_str()),
            ("connect/timeout_ms", "1000"),
            ("scouting/multicast/enabled", "false"),
            ("transport/link/rx/max_message_size", MAX_RECEIVED),
        ] {
            config.insert_json5(key, value).map_err(line)?;
        }
        let session = zenoh::open(config).wait().map_err(line)?;
        let node = GraphNode {
            domain: router.domain,
            session: session.zid().to_string(),
            name,
            distro: router.distro,
        };
        let token = session.liveliness().declare_token(node.token()).wait();
        Ok(Self {
            _token: token.map_err(line)?,
            node,
            session,
            next_id: 1,
        })
    }

    /// Whether the router is connected. After a loss, open a new session with all tokens.
    pub(crate) fn is_connected(&self) -> bool {
        self.session.info().routers_zid().wait().next().is_some()
    }

    /// Declares the liveliness token of a new endpoint. Also returns its ID.
    fn endpoint(
        &mut self,
        role: Role,
        topic: (&str, Type),
        qos: Qos,
    ) -> Result<(LivelinessToken, u32), String> {
        let id = self.next_id;
        self.next_id += 1;
        let token = self.node.endpoint_token(id, role, topic, qos);
        let token = self.session.liveliness().declare_token(token).wait();
        Ok((token.map_err(line)?, id))
    }

    /// Declares a topic that this node publishes.
    pub(crate) fn publisher(
        &mut self,
        topic: &str,
        of: Type,
        qos: Qos,
    ) -> Result<Publisher, String> {
        let GraphNode { domain, distro, .. } = self.node;
        let publisher = self
            .session
            .declare_publisher(topic_key(domain, topic, of, distro))
            .congestion_control(CongestionControl::Drop)
            .wait()
            .map_err(line)?;
        let (token, id) = self.endpoint(Role::Publisher, (topic, of), qos)?;
        // Any value that is unique among publishers.
        let mut gid = self.session.zid().to_le_bytes();
        for (byte, id) in gid.iter_mut().zip(id.to_le_bytes()) {
            *byte ^= id;
        }
        Ok(Publisher {
            publisher,
            _token: token,
            gid,
            sent: 0,
        })
    }

    /// Subscribes to a topic, with publishers of any distribution.
    pub(crate) fn subscribe(
        &mut self,
        topic: &str,
        of: Type,
        qos: Qos,
        receive: impl Fn(Sample) + Send + Sync + 'static,
    ) -> Result<Subscription, String> {
        let subscriber = self
            .session
            .declare_subscriber(any_topic_key(self.node.domain, topic, of))
            .callback(move |sample| {
                if sample.kind() == SampleKind::Put {
                    receive(sample);
                }
            })
            .wait()
            .map_err(line)?;
        let (token, _) = self.endpoint(Role::Subscription, (topic, of), qos)?;
        Ok(Subscription {
            _subscriber: subscriber,
            _token: token,
        })
    }

    /// Declares a service of the node. `receive` must not block.
    pub(crate) fn serve(
        &mut self,
        service: Service,
        receive: impl Fn(Request) + Send + Sync + 'static,
    ) -> Result<Server, String> {
        let GraphNode {
            domain,
            name,
            distro,
            ..
        } = self.node;
        let (path, of) = (format!("/{name}/{}", service.name()), service.of());
        let queryable = self
            .session
            .declare_queryable(topic_key(domain, &path, of, distro))
            .complete(true)
            .callback(move |query| receive(Request { service, query }))
            .wait()
            .map_err(line)?;
        let (token, _) = self.endpoint(Role::Service, (&path, of), Qos::SERVICE)?;
        Ok(Server {
            _queryable: queryable,
            _token: token,
        })
    }

    /// Closes the session.
    pub(crate) fn close(self) -> Result<(), String> {
        self.session.close().wait().map_err(line)
    }
}

impl Request {
    /// The CDR body; `None` if it is too long or missing.
    pub(crate) fn body(&self) -> Option<Vec<u8>> {
        let payload = self.query.payload()?;
        (payload.len() <= MAX_REQUEST).then(|| payload.to_bytes().into_owned())
    }

    /// Sends a response. `now_ns` is the current time in nanoseconds since 1970-01-01 UTC.
    pub(crate) fn reply(&self, body: &[u8], now_ns: u64) -> Result<(), String> {
        let key = self.query.key_expr().clone();
        let reply = self.query.reply(key, body);
        let attachment = self.query.attachment().map(|a| a.to_bytes());
        // Number and ID are copied from the request.
        let attachment = attachment.and_then(|bytes| Attachment::from_bytes(&bytes));
        let reply = match attachment {
            Some(attachment) => reply.attachment(
                Attachment {
                    sent_ns: i64::try_from(now_ns).unwrap_or(i64::MAX),
                    ..attachment
                }
                .to_bytes()
                .as_slice(),
            ),
            None => reply,
        };
        reply.wait().map_err(line)
    }
}

impl Publisher {
    /// Publishes a message. `now_ns` is the current time in nanoseconds since 1970-01-01 UTC.
    pub(crate) fn put(&mut self, body: &[u8], now_ns: u64) -> Result<(), String> {
        self.sent += 1;
        let attachment = Attachment {
            sequence: self.sent,
            sent_ns: i64::try_from(now_ns).unwrap_or(i64::MAX),
            publisher: self.gid,
        };
        let put = self.publisher.put(body);
        let put = put.attachment(attachment.to_bytes().as_slice());
        put.wait().map_err(line)
    }
}
