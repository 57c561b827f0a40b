//! Two Foxglove messages as Protocol Buffers, with the descriptors that viewers need to read them.
//!
//! Names and field numbers are those of Foxglove's `RawImage.proto` and `Log.proto`.

use prost::Message;

/// `google.protobuf.Timestamp`
#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// Converts nanoseconds since 1970-01-01 UTC.
    pub fn new(ns: u64) -> Self {
        Self {
            seconds: (ns / 1_000_000_000) as i64,
            nanos: (ns % 1_000_000_000) as i32,
        }
    }
}

/// `foxglove.RawImage`
#[derive(Clone, PartialEq, Message)]
pub struct RawImage {
    /// Capture time.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// Columns.
    #[prost(fixed32, tag = "2")]
    pub width: u32,
    /// Rows.
    #[prost(fixed32, tag = "3")]
    pub height: u32,
    /// `rgb8`, `mono8` or `16UC1`.
    #[prost(string, tag = "4")]
    pub encoding: String,
    /// Bytes per row.
    #[prost(fixed32, tag = "5")]
    pub step: u32,
    /// Pixels, row by row.
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
    /// Frame of reference.
    #[prost(string, tag = "7")]
    pub frame_id: String,
}

/// `foxglove.Log`
#[derive(Clone, PartialEq, Message)]
pub struct Log {
    /// Time.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// `foxglove.Log.Level`, from 0 unknown and 1 debug to 5 fatal.
    #[prost(int32, tag = "2")]
    pub level: i32,
    /// Message.
    #[prost(string, tag = "3")]
    pub message: String,
    /// Name of the program.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Source file.
    #[prost(string, tag = "5")]
    pub file: String,
    /// Line in the source file.
    #[prost(fixed32, tag = "6")]
    pub line: u32,
}

/// The parts of `google/protobuf/descriptor.proto` that these messages need.
pub mod description {
    use prost::Message;

    /// `FileDescriptorSet`
    #[derive(Clone, PartialEq, Message)]
    pub struct Set {
        /// Files, after their dependencies.
        #[prost(message, repeated, tag = "1")]
        pub files: Vec<File>,
    }

    /// `FileDescriptorProto`
    #[derive(Clone, PartialEq, Message)]
    pub struct File {
        /// Its path.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Package.
        #[prost(string, tag = "2")]
        pub package: String,
        /// Dependencies.
        #[prost(string, repeated, tag = "3")]
        pub dependencies: Vec<String>,
        /// Messages.
        #[prost(message, repeated, tag = "4")]
        pub messages: Vec<Definition>,
        /// `proto3`
        #[prost(string, tag = "12")]
        pub syntax: String,
    }

    /// `DescriptorProto`
    #[derive(Clone, PartialEq, Message)]
    pub struct Definition {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its fields.
        #[prost(message, repeated, tag = "2")]
        pub fields: Vec<Field>,
        /// Nested enumerations.
        #[prost(message, repeated, tag = "4")]
        pub enums: Vec<Enum>,
    }

    /// `FieldDescriptorProto`
    #[derive(Clone, PartialEq, Message)]
    pub struct Field {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its number.
        #[prost(int32, tag = "3")]
        pub number: i32,
        /// 1: optional.
        #[prost(int32, tag = "4")]
        pub label: i32,
        /// One of [`super::kinds`].
        #[prost(int32, tag = "5")]
        pub kind: i32,
        /// Type of a message or enumeration field.
        #[prost(string, optional, tag = "6")]
        pub type_name: Option<String>,
    }

    /// `EnumDescriptorProto`
    #[derive(Clone, PartialEq, Message)]
    pub struct Enum {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its values.
        #[prost(message, repeated, tag = "2")]
        pub values: Vec<Value>,
    }

    /// `EnumValueDescriptorProto`
    #[derive(Clone, PartialEq, Message)]
    pub struct Value {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its number.
        #[prost(int32, optional, tag = "2")]
        pub number: Option<i32>,
    }
}

/// Values of `FieldDescriptorProto.Type`.
pub mod kinds {
    #![allow(missing_docs, reason = "the names are those of descriptor.proto")]
    pub const INT64: i32 = 3;
    pub const INT32: i32 = 5;
    pub const FIXED32: i32 = 7;
    pub const STRING: i32 = 9;
    pub const MESSAGE: i32 = 11;
    pub const BYTES: i32 = 12;
    pub const ENUM: i32 = 14;
}

/// Names of the levels of [`Log`], from 0.
pub const LEVELS: [&str; 6] = ["UNKNOWN", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL"];

const TIME: &str = ".google.protobuf.Timestamp";
const TIME_FILE: &str = "google/protobuf/timestamp.proto";

fn field(name: &str, number: i32, kind: i32, type_name: Option<&str>) -> description::Field {
    description::Field {
        name: name.into(),
        number,
        label: 1,
        kind,
        type_name: type_name.map(Into::into),
    }
}

fn file(
    name: &str,
    package: &str,
    message: &str,
    fields: Vec<description::Field>,
    enums: Vec<description::Enum>,
) -> description::File {
    let uses_time = fields.iter().any(|f| f.type_name.as_deref() == Some(TIME));
    description::File {
        name: name.into(),
        package: package.into(),
        dependencies: uses_time.then(|| TIME_FILE.into()).into_iter().collect(),
        messages: vec![description::Definition {
            name: message.into(),
            fields,
            enums,
        }],
        syntax: "proto3".into(),
    }
}

/// The encoded `FileDescriptorSet` of `foxglove.RawImage` or `foxglove.Log`.
pub fn describe(message: &str) -> Option<Vec<u8>> {
    use kinds::{BYTES, ENUM, FIXED32, INT32, INT64, MESSAGE, STRING};
    let time = file(
        TIME_FILE,
        "google.protobuf",
        "Timestamp",
        vec![
            field("seconds", 1, INT64, None),
            field("nanos", 2, INT32, None),
        ],
        Vec::new(),
    );
    let described = match message {
        "foxglove.RawImage" => file(
            "foxglove/RawImage.proto",
            "foxglove",
            "RawImage",
            vec![
                field("timestamp", 1, MESSAGE, Some(TIME)),
                field("frame_id", 7, STRING, None),
                field("width", 2, FIXED32, None),
                field("height", 3, FIXED32, None),
                field("encoding", 4, STRING, None),
                field("step", 5, FIXED32, None),
                field("data", 6, BYTES, None),
            ],
            Vec::new(),
        ),
        "foxglove.Log" => file(
            "foxglove/Log.proto",
            "foxglove",
            "Log",
            vec![
                field("timestamp", 1, MESSAGE, Some(TIME)),
                field("level", 2, ENUM, Some(".foxglove.Log.Level")),
                field("message", 3, STRING, None),
                field("name", 4, STRING, None),
                field("file", 5, STRING, None),
                field("line", 6, FIXED32, None),
            ],
            vec![description::Enum {
                name: "Level".into(),
                values: LEVELS
                    .iter()
                    .zip(0..)
                    .map(|(name, number)| description::Value {
                        name: (*name).into(),
                        number: Some(number),
                    })
                    .collect(),
            }],
        ),
        _ => return None,
    };
    let set = description::Set {
        files: vec![time, described],
    };
    Some(set.encode_to_vec())
}
