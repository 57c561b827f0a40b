#!/usr/bin/env python3
"""Writes ROS 2 messages in CDR, encoded by rosbags, which the node's own encoder must reproduce, and prints
the hashes of their types.

    pip install rosbags
    tools/make_ros_fixtures.py
"""

from pathlib import Path

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROOT = Path(__file__).resolve().parent.parent / "firmware/node"
OUT = ROOT / "tests/data/ros"
STAMP = 1_700_000_000_000_000_007
LABEL_INFO = {
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    "vision_msgs/msg/LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
}

store = get_typestore(Stores.ROS2_HUMBLE)
for name, text in LABEL_INFO.items():
    store.register(get_types_from_msg(text, name))
# The definition that the node writes to MCAP files.
DETECTIONS = "vision_msgs/msg/Detection2DArray"
definition = (ROOT / "src/ros/Detection2DArray.msg").read_text()
types = get_types_from_msg(definition, DETECTIONS)
store.register({name: fields for name, fields in types.items() if name.startswith("vision_msgs/")})


def make(name, **fields):
    return store.types[name](**fields)


def header():
    seconds, nanoseconds = divmod(STAMP, 10**9)
    stamp = make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id="camera")


def vision(name, **fields):
    return make(f"vision_msgs/msg/{name}", **fields)


def geometry(name, **fields):
    return make(f"geometry_msgs/msg/{name}", **fields)


def detection(number, name, score, x, y, width, height):
    pose = geometry("PoseWithCovariance", covariance=np.zeros(36), pose=geometry(
        "Pose", position=geometry("Point", x=0.0, y=0.0, z=0.0),
        orientation=geometry("Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)))
    hypothesis = vision("ObjectHypothesisWithPose", pose=pose,
                        hypothesis=vision("ObjectHypothesis", class_id=name, score=score))
    center = vision("Pose2D", position=vision("Point2D", x=x + width / 2, y=y + height / 2), theta=0.0)
    bbox = vision("BoundingBox2D", center=center, size_x=float(width), size_y=float(height))
    return vision("Detection2D", header=header(), results=[hypothesis], bbox=bbox, id=str(number))


def write(name, kind, message):
    (OUT / name).write_bytes(bytes(store.serialize_cdr(message, kind)))


OUT.mkdir(parents=True, exist_ok=True)
found = [detection(7, "mug", 204 / 255, 5, 300, 640, 7), detection(12, "Straße", 1.0, 0, 0, 1, 1),
         detection(3, "3", 0.0, 1, 2, 3, 4)]
write("detections.cdr", DETECTIONS, vision("Detection2DArray", header=header(), detections=found))
write("no_detections.cdr", DETECTIONS, vision("Detection2DArray", header=header(), detections=[]))
depth = np.array([0, 1, 1234, 65535, 256, 7], "<u2")
write("depth.cdr", "sensor_msgs/msg/Image", make(
    "sensor_msgs/msg/Image", header=header(), height=2, width=3, encoding="16UC1", is_bigendian=0, step=6,
    data=np.frombuffer(depth.tobytes(), np.uint8)))
for kind in ["sensor_msgs/msg/Image", "vision_msgs/msg/LabelInfo", DETECTIONS]:
    print(kind, store.hash_rihs01(kind))
