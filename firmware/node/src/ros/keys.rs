//! Names in `rmw_zenoh`: message types and their hashes, keys of topics, liveliness tokens, attachments.
//!
//! The key of a topic is `domain/topic/type/hash`. The hash is that of the type description (REP 2016) since
//! Iron, and a fixed word in Humble.

use serde::Deserialize;

/// A message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Name in keys.
    pub name: &'static str,
    /// Hash of the type description.
    pub hash: &'static str,
}

/// `sensor_msgs/msg/Image`.
pub const IMAGE: Type = Type {
    name: "sensor_msgs::msg::dds_::Image_",
    hash: "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
};

/// `sensor_msgs/msg/CompressedImage`.
pub const COMPRESSED_IMAGE: Type = Type {
    name: "sensor_msgs::msg::dds_::CompressedImage_",
    hash: "RIHS01_15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a",
};

/// `sensor_msgs/msg/PointCloud2`.
pub const POINTS: Type = Type {
    name: "sensor_msgs::msg::dds_::PointCloud2_",
    hash: "RIHS01_9198cabf7da3796ae6fe19c4cb3bdd3525492988c70522628af5daa124bae2b5",
};

/// `vision_msgs/msg/LabelInfo`.
pub const LABEL_INFO: Type = Type {
    name: "vision_msgs::msg::dds_::LabelInfo_",
    hash: "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
};

/// `vision_msgs/msg/Detection2DArray`.
pub const DETECTIONS: Type = Type {
    name: "vision_msgs::msg::dds_::Detection2DArray_",
    hash: "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
};

/// `diagnostic_msgs/msg/DiagnosticArray`.
pub const DIAGNOSTICS: Type = Type {
    name: "diagnostic_msgs::msg::dds_::DiagnosticArray_",
    hash: "RIHS01_5a8a36efb05fb25070fa0fb3810290c0e6cd4862b54a8fb975a1ee8dc55a333e",
};

/// The ROS 2 distribution of the other nodes. Messages are the same in all; keys are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distro {
    /// Humble, whose keys have no hashes.
    Humble,
    /// Iron.
    Iron,
    /// Jazzy.
    #[default]
    Jazzy,
    /// Kilted.
    Kilted,
    /// Lyrical.
    Lyrical,
    /// Rolling.
    Rolling,
}

impl Type {
    /// The last part of keys.
    fn hash_in(self, distro: Distro) -> &'static str {
        match distro {
            Distro::Humble => "TypeHashNotSupported",
            _ => self.hash,
        }
    }
}

/// Quality of service: the settings that differ between the topics of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qos {
    /// Best effort instead of reliable.
    pub best_effort: bool,
    /// Transient local instead of volatile: late subscribers get the last message.
    pub latched: bool,
    /// Length of the queue: keep last.
    pub depth: usize,
}

impl Qos {
    /// A topic that this node publishes.
    pub const PUBLISHED: Self = Self {
        best_effort: false,
        latched: false,
        depth: 1,
    };

    /// A service.
    pub const SERVICE: Self = Self {
        best_effort: false,
        latched: false,
        depth: 10,
    };

    /// Sensor data with a queue of this length.
    pub const fn sensor_data(depth: usize) -> Self {
        Self {
            best_effort: true,
            latched: false,
            depth,
        }
    }
}

/// Formats reliability, durability, history and depth as the numbers of ROS 2, then deadline, lifespan
/// and liveliness with their defaults.
impl std::fmt::Display for Qos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reliability = if self.best_effort { 2 } else { 1 };
        let durability = if self.latched { 1 } else { 2 };
        let depth = self.depth;
        write!(f, "{reliability}:{durability}:1,{depth}:,:,:,,")
    }
}

/// Returns the key of a topic such as `/loftup/slot_0/classes`, or of a service.
pub fn topic_key(domain: u32, topic: &str, of: Type, distro: Distro) -> String {
    let topic = topic.trim_matches('/');
    format!("{domain}/{topic}/{}/{}", of.name, of.hash_in(distro))
}

/// Returns the key expression of a topic with publishers of any distribution.
pub fn any_topic_key(domain: u32, topic: &str, of: Type) -> String {
    let topic = topic.trim_matches('/');
    format!("{domain}/{topic}/{}/*", of.name)
}

/// Whether a name is a fully qualified topic name: `/` before each part, which consists of letters, digits
/// and underscores.
pub fn is_topic(name: &str) -> bool {
    let good = |part: &str| {
        let mut characters = part.chars();
        characters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut parts = name.split('/');
    name.len() <= 255 && parts.next() == Some("") && name.len() > 1 && parts.all(good)
}

/// A ROS 2 node without a namespace, in a zenoh session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphNode {
    /// ROS domain ID.
    pub domain: u32,
    /// ID of the session.
    pub session: String,
    /// Name of the node.
    pub name: &'static str,
    /// The distribution of the other nodes.
    pub distro: Distro,
}

/// The role of an endpoint for its topic or service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It publishes.
    Publisher,
    /// It subscribes.
    Subscription,
    /// It answers requests.
    Service,
}

impl GraphNode {
    /// The node's liveliness token.
    pub fn token(&self) -> String {
        let Self {
            domain,
            session,
            name,
            ..
        } = self;
        format!("@ros2_lv/{domain}/{session}/0/0/NN/%/%/{name}")
    }

    /// The liveliness token of endpoint `id`.
    pub fn endpoint_token(
        &self,
        id: u32,
        role: Role,
        (topic, of): (&str, Type),
        qos: Qos,
    ) -> String {
        let Self {
            domain,
            session,
            name,
            distro,
        } = self;
        let role = match role {
            Role::Publisher => "MP",
            Role::Subscription => "MS",
            Role::Service => "SS",
        };
        // Slashes are separators in keys.
        let topic = topic.replace('/', "%");
        format!(
            "@ros2_lv/{domain}/{session}/0/{id}/{role}/%/%/{name}/{topic}/{}/{}/{qos}",
            of.name,
            of.hash_in(*distro)
        )
    }
}

/// Length of the ID of a publisher, in bytes.
const GID: usize = 16;

/// The attachment that `rmw_zenoh` sends with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// Number of the message; increases by one.
    pub sequence: i64,
    /// Time of sending, in nanoseconds since 1970-01-01 UTC.
    pub sent_ns: i64,
    /// ID of its publisher.
    pub publisher: [u8; GID],
}

impl Attachment {
    /// Its length in bytes.
    pub const BYTES: usize = 17 + GID;

    /// Encodes it in zenoh's serialization.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.sequence.to_le_bytes());
        out[8..16].copy_from_slice(&self.sent_ns.to_le_bytes());
        out[16] = GID as u8;
        out[17..].copy_from_slice(&self.publisher);
        out
    }

    /// Decodes an attachment; `None` if `bytes` is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk()?;
        let (sent_ns, rest) = rest.split_first_chunk()?;
        let (length, publisher) = rest.split_first()?;
        Some(Self {
            sequence: i64::from_le_bytes(*sequence),
            sent_ns: i64::from_le_bytes(*sent_ns),
            publisher: publisher
                .try_into()
                .ok()
                .filter(|_| usize::from(*length) == GID)?,
        })
    }
}

#[cfg(test)]
mod tests;
