use super::*;

const HEADER: Header<'_> = Header {
    stamp_ns: 1_700_000_000_000_000_007,
    frame_id: "camera",
};

#[test]
fn images_are_encoded_byte_by_byte() {
    let image = Image {
        header: HEADER,
        width: 3,
        height: 2,
        pixels: Pixels::Mono8(&[1, 2, 3, 4, 5, 255]),
    };
    // Previous contents are replaced.
    let mut out = vec![9; 200];
    image.encode(&mut out);
    #[rustfmt::skip]
    let expected = [
        0, 1, 0, 0, // little-endian CDR
        0x00, 0xF1, 0x53, 0x65, // 1 700 000 000 s
        7, 0, 0, 0, // 7 ns
        7, 0, 0, 0, b'c', b'a', b'm', b'e', b'r', b'a', 0,
        0, // to a multiple of 4
        2, 0, 0, 0, // height
        3, 0, 0, 0, // width
        6, 0, 0, 0, b'm', b'o', b'n', b'o', b'8', 0,
        0, // is_bigendian
        0, // to a multiple of 4
        3, 0, 0, 0, // step
        6, 0, 0, 0, 1, 2, 3, 4, 5, 255,
    ];
    assert_eq!(out, expected);
}

/// Messages that another encoder has written (`tools/make_ros_fixtures.py`).
#[test]
fn messages_are_those_of_another_encoder() {
    use crate::objects::named;
    use loftup_wire::message::Rect;

    let object = |object, name, confidence, [x, y, width, height]: [u16; 4]| TrackedObject {
        object,
        name: named(name),
        bounds: Rect {
            x,
            y,
            width,
            height,
        },
        pixels: u32::from(width),
        confidence,
    };
    let objects = [
        object(7, "mug", 204, [5, 300, 640, 7]),
        object(9, "hidden", 0, [0; 4]),
        object(12, "Straße", 255, [0, 0, 1, 1]),
        object(3, "", 0, [1, 2, 3, 4]),
    ];
    let mut out = Vec::new();
    detections(HEADER, &objects, &mut out);
    assert_eq!(
        out,
        include_bytes!("../../../tests/data/ros/detections.cdr")
    );
    detections(HEADER, &objects[1..2], &mut out);
    assert_eq!(
        out,
        include_bytes!("../../../tests/data/ros/no_detections.cdr")
    );
    let image = Image {
        header: HEADER,
        width: 3,
        height: 2,
        pixels: Pixels::Depth(&[0, 1, 1234, 65535, 256, 7]),
    };
    image.encode(&mut out);
    assert_eq!(out, include_bytes!("../../../tests/data/ros/depth.cdr"));
}

#[test]
fn labels_are_encoded_byte_by_byte() {
    let names = ["road".to_owned(), "go".to_owned(), "sky".to_owned()];
    let header = Header {
        stamp_ns: 5_000_000_001,
        frame_id: "",
    };
    let mut out = Vec::new();
    label_info(header, &names, &mut out);
    #[rustfmt::skip]
    let expected = [
        0, 1, 0, 0, // little-endian CDR
        5, 0, 0, 0, 1, 0, 0, 0, // 5.000000001 s
        1, 0, 0, 0, 0, // an empty name: its zero
        0, 0, 0, // to a multiple of 4
        3, 0, 0, 0, // entries
        0, 0, // class
        0, 0, // to a multiple of 4
        5, 0, 0, 0, b'r', b'o', b'a', b'd', 0,
        0, // to a multiple of 2
        1, 0, // class; its name begins at a multiple of 4
        3, 0, 0, 0, b'g', b'o', 0,
        0, // to a multiple of 2
        2, 0, // class
        0, 0, // to a multiple of 4
        4, 0, 0, 0, b's', b'k', b'y', 0,
        0, 0, 0, 0, // threshold
    ];
    assert_eq!(out, expected);
}

#[test]
fn points_and_diagnostics_are_those_of_another_encoder() {
    let at = [Point { x: 3, y: 4 }, Point { x: 639, y: 0 }];
    let values = [0.5, -1.0, 2.0, 1e-3, 7.0, -0.25];
    let mut out = vec![1; 7];
    points(HEADER, &at, (&values, 3), &mut out);
    assert_eq!(out, include_bytes!("../../../tests/data/ros/points.cdr"));
    // Nothing to divide by.
    points(HEADER, &[], (&[], 0), &mut out);

    let values = [("rate", "9.5".to_owned()), ("", "x".to_owned())];
    let status = Status {
        level: Level::Warn,
        name: "loftup_node: pipeline",
        message: "degraded: late",
        values: &values,
    };
    diagnostics(HEADER.stamp_ns, &status, &mut out);
    let expected = include_bytes!("../../../tests/data/ros/diagnostics.cdr");
    assert_eq!(out, expected);
}
