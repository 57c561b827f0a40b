use super::*;
use crate::ros::Service;

#[test]
fn keys_tokens_and_attachments_match_rmw_zenoh() {
    let topic = "/loftup/slot_0/classes";
    assert_eq!(
        topic_key(2, topic, IMAGE, Distro::Jazzy),
        "2/loftup/slot_0/classes/sensor_msgs::msg::dds_::Image_/\
         RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"
    );
    assert_eq!(
        topic_key(2, topic, IMAGE, Distro::Humble),
        "2/loftup/slot_0/classes/sensor_msgs::msg::dds_::Image_/TypeHashNotSupported"
    );
    assert_eq!(
        any_topic_key(2, topic, IMAGE),
        "2/loftup/slot_0/classes/sensor_msgs::msg::dds_::Image_/*"
    );
    let mut node = GraphNode {
        domain: 0,
        session: "aac3178e146ba6f1fc6e6a4085e77f21".into(),
        name: "loftup",
        distro: Distro::Lyrical,
    };
    assert_eq!(
        node.token(),
        "@ros2_lv/0/aac3178e146ba6f1fc6e6a4085e77f21/0/0/NN/%/%/loftup"
    );
    node.session = "ab".into();
    let topic = ("/loftup/slot_0/label_info", LABEL_INFO);
    let latched = Qos {
        latched: true,
        ..Qos::PUBLISHED
    };
    assert_eq!(
        node.endpoint_token(3, Role::Publisher, topic, latched),
        "@ros2_lv/0/ab/0/3/MP/%/%/loftup/%loftup%slot_0%label_info/\
         vision_msgs::msg::dds_::LabelInfo_/\
         RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783/1:1:1,1:,:,:,,"
    );
    node.distro = Distro::Humble;
    let topic = ("/camera/image_raw", IMAGE);
    assert_eq!(
        node.endpoint_token(4, Role::Subscription, topic, Qos::sensor_data(5)),
        "@ros2_lv/0/ab/0/4/MS/%/%/loftup/%camera%image_raw/\
         sensor_msgs::msg::dds_::Image_/TypeHashNotSupported/2:2:1,5:,:,:,,"
    );
}

#[test]
fn attachments_are_written_and_read() {
    let attachment = Attachment {
        sequence: 0x0102,
        sent_ns: -1,
        publisher: [7; GID],
    };
    let bytes = attachment.to_bytes();
    assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[8..17], [255, 255, 255, 255, 255, 255, 255, 255, 16]);
    assert_eq!(bytes[17..], [7; GID]);
    assert_eq!(Attachment::from_bytes(&bytes), Some(attachment));
    for length in 0..bytes.len() {
        assert_eq!(Attachment::from_bytes(&bytes[..length]), None);
    }
    let mut other = bytes;
    other[16] = 15;
    assert_eq!(Attachment::from_bytes(&other), None);
}

/// Hashes that another implementation has computed (`tools/make_ros_fixtures.py`).
#[test]
fn hashes_are_those_of_another_implementation() {
    let text = include_str!("../../../tests/data/ros/hashes.txt");
    let messages = [
        IMAGE,
        COMPRESSED_IMAGE,
        POINTS,
        LABEL_INFO,
        DETECTIONS,
        DIAGNOSTICS,
    ];
    let types = messages.into_iter().chain(Service::ALL.map(Service::of));
    assert_eq!(text.lines().count(), types.clone().count());
    for (line, of) in text.lines().zip(types) {
        let (name, hash) = line.split_once(' ').unwrap();
        let (package, rest) = name.split_once('/').unwrap();
        let (kind, name) = rest.split_once('/').unwrap();
        let name = format!("{package}::{kind}::dds_::{name}_");
        assert_eq!((of.name, of.hash), (name.as_str(), hash));
    }
}

#[test]
fn names_of_topics_are_checked() {
    for name in ["/image", "/camera/image_raw", "/_a1/B2/compressed"] {
        assert!(is_topic(name), "{name}");
    }
    let long = "/a".repeat(200);
    for name in [
        "",
        "/",
        "image",
        "/a/",
        "//a",
        "/a//b",
        "/1a",
        "/a*",
        "/a/**",
        "/a b",
        "/{node}",
        "~/a",
        "/a?",
        "/a#",
        "/$*",
        "/bild/grün",
        &long,
    ] {
        assert!(!is_topic(name), "{name}");
    }
}
