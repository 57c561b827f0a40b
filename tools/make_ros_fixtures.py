#!/usr/bin/env python3
"""Writes ROS 2 messages in CDR, encoded by rosbags: those that the node's own encoder must reproduce, and
images that it must read. Writes the hashes of their types, too.

    pip install rosbags numpy pillow
    tools/make_ros_fixtures.py
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
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
# The definitions that the node writes to MCAP files.
DETECTIONS = "vision_msgs/msg/Detection2DArray"
POINTS = "sensor_msgs/msg/PointCloud2"
definition = (ROOT / "src/ros/Detection2DArray.msg").read_text()
types = get_types_from_msg(definition, DETECTIONS)
store.register({name: fields for name, fields in types.items() if name.startswith("vision_msgs/")})
types = get_types_from_msg((ROOT / "src/ros/PointCloud2.msg").read_text(), POINTS)
assert all(store.hash_rihs01(name) == get_typestore(Stores.LATEST).hash_rihs01(name) for name in types), "PointCloud2"


def make(name, /, **fields):
    return store.types[name](**fields)


def header(frame_id="camera"):
    seconds, nanoseconds = divmod(STAMP, 10**9)
    stamp = make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


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


def bytes_of(array):
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def bt601(y, u, v):
    """Video range, in 64 bit; the last axis is RGB."""
    y, u, v = (y - 16.0) / 219, (u - 128.0) / 224, (v - 128.0) / 224
    red, blue = y + 2 * (1 - 0.299) * v, y + 2 * (1 - 0.114) * u
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.rint(255 * np.stack([red, green, blue], -1)), 0, 255).astype(np.uint8)


def received(encoding, rows, height, width, rgb, gap):
    """An image with `gap` bytes of padding after each row, and the pixels that it has."""
    rows = np.asarray(rows, np.uint8).reshape(len(rows), -1)
    padded = np.pad(rows, ((0, 0), (0, gap)), constant_values=77)
    write(f"images/{encoding}.cdr", "sensor_msgs/msg/Image", make(
        "sensor_msgs/msg/Image", header=header("front_optical"), height=height, width=width, encoding=encoding,
        is_bigendian=0, step=padded.shape[1], data=bytes_of(padded)))
    (OUT / f"images/{encoding}.rgb").write_bytes(rgb.tobytes())


def compressed(name, file, format, rgb):
    write(f"images/{name}.cdr", "sensor_msgs/msg/CompressedImage", make(
        "sensor_msgs/msg/CompressedImage", header=header("front_optical"), format=format,
        data=np.frombuffer(file, np.uint8)))
    (OUT / f"images/{name}.rgb").write_bytes(rgb.tobytes())


(OUT / "images").mkdir(parents=True, exist_ok=True)
found = [detection(7, "mug", 204 / 255, 5, 300, 640, 7), detection(12, "Straße", 1.0, 0, 0, 1, 1),
         detection(3, "3", 0.0, 1, 2, 3, 4)]
write("detections.cdr", DETECTIONS, vision("Detection2DArray", header=header(), detections=found))
write("no_detections.cdr", DETECTIONS, vision("Detection2DArray", header=header(), detections=[]))
depth = np.array([0, 1, 1234, 65535, 256, 7], "<u2")
write("depth.cdr", "sensor_msgs/msg/Image", make(
    "sensor_msgs/msg/Image", header=header(), height=2, width=3, encoding="16UC1", is_bigendian=0, step=6,
    data=bytes_of(depth)))

# Two points with three values each.
cloud = np.array([[3, 4, 0, 0.5, -1, 2], [639, 0, 0, 1e-3, 7, -0.25]], "<f4")
fields = [make("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=7, count=count)
          for name, offset, count in [("x", 0, 1), ("y", 4, 1), ("z", 8, 1), ("descriptor", 12, 3)]]
write("points.cdr", POINTS, make(
    POINTS, header=header(), height=1, width=2, fields=fields, is_bigendian=False, point_step=24, row_step=48,
    data=bytes_of(cloud), is_dense=True))
values = [make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in [("rate", "9.5"), ("", "x")]]
status = make("diagnostic_msgs/msg/DiagnosticStatus", level=1, name="loftup_node: pipeline",
              message="degraded: late", hardware_id="", values=values)
write("diagnostics.cdr", "diagnostic_msgs/msg/DiagnosticArray",
      make("diagnostic_msgs/msg/DiagnosticArray", header=header(""), status=[status]))

# Images of odd sides.
random = np.random.default_rng(5)
H, W = 5, 7
rgb = random.integers(0, 256, (H, W, 3), np.uint8)
alpha = np.full((H, W, 1), 9, np.uint8)
received("rgb8", rgb, H, W, rgb, 3)
received("bgr8", rgb[..., ::-1], H, W, rgb, 0)
received("rgba8", np.concatenate([rgb, alpha], 2), H, W, rgb, 4)
received("bgra8", np.concatenate([rgb[..., ::-1], alpha], 2), H, W, rgb, 1)
received("mono8", rgb[..., 0], H, W, np.repeat(rgb[..., :1], 3, 2), 2)
y = random.integers(0, 256, (H, W + 1), np.uint8)
u, v = random.integers(0, 256, (2, H, (W + 1) // 2), np.uint8)
pairs = bt601(y[:, :W], np.repeat(u, 2, 1)[:, :W], np.repeat(v, 2, 1)[:, :W])
for names, order in [(("uyvy", "yuv422"), (u, y[:, ::2], v, y[:, 1::2])),
                     (("yuyv", "yuv422_yuy2"), (y[:, ::2], u, y[:, 1::2], v))]:
    for name in names:
        received(name, np.stack(order, -1), H, W, pairs, 2)
u, v = u[: (H + 1) // 2], v[: (H + 1) // 2]
up = [np.repeat(np.repeat(c, 2, 0), 2, 1)[:H, :W] for c in (u, v)]
chroma = np.stack([u, v], -1).reshape(len(u), -1)
received("nv12", np.concatenate([y, chroma]), H, W, bt601(y[:, :W], *up), 1)
big = np.kron(rgb, np.ones((8, 8, 1), np.uint8))
for name, kind, text in [("jpeg", "JPEG", "rgb8; jpeg compressed bgr8"), ("png", "PNG", "png")]:
    file = BytesIO()
    # Decoders differ in how they interpolate subsampled colors.
    Image.fromarray(big).save(file, kind, **({"subsampling": 0} if kind == "JPEG" else {}))
    compressed(name, file.getvalue(), text, np.asarray(Image.open(file)))

# Requests to the services of the node, and its answers.
SERVICES = {
    "std_srvs/SetBool": ("bool data", "bool success\nstring message"),
    "rcl_interfaces/ListParameters": ("string[] prefixes\nuint64 depth", "rcl_interfaces/ListParametersResult result"),
    "rcl_interfaces/GetParameters": ("string[] names", "rcl_interfaces/ParameterValue[] values"),
    "rcl_interfaces/GetParameterTypes": ("string[] names", "uint8[] types"),
    "rcl_interfaces/DescribeParameters": ("string[] names", "rcl_interfaces/ParameterDescriptor[] descriptors"),
    "rcl_interfaces/SetParameters": (
        "rcl_interfaces/Parameter[] parameters", "rcl_interfaces/SetParametersResult[] results"),
    "rcl_interfaces/SetParametersAtomically": (
        "rcl_interfaces/Parameter[] parameters", "rcl_interfaces/SetParametersResult result"),
}
srv = get_typestore(Stores.LATEST)
# rosbags knows only messages: services are renamed for their hashes.
srv.fielddefs.update(get_types_from_msg(
    "uint8 event_type\nbuiltin_interfaces/Time stamp\nuint8[16] client_gid\nint64 sequence_number\n",
    "service_msgs/msg/ServiceEventInfo"))


def renamed(fields, names):
    if isinstance(fields, str):
        return fields.replace("/msg/", "/srv/") if fields in names else fields
    return type(fields)(renamed(field, names) for field in fields) if isinstance(fields, (tuple, list)) else fields


def service_hash(name, request, response):
    package, short = name.split("/")
    one = f"{package}/{short}"
    parts = {
        f"{short}_Request": request, f"{short}_Response": response,
        f"{short}_Event": f"service_msgs/ServiceEventInfo info\n{one}_Request[<=1] request\n{one}_Response[<=1] response",
        short: f"{one}_Request request_message\n{one}_Response response_message\n{one}_Event event_message"}
    names = {f"{package}/msg/{part}" for part in parts}
    for part, text in parts.items():
        for kind, fields in get_types_from_msg(text + "\n", f"{package}/msg/{part}").items():
            srv.fielddefs[renamed(kind, names)] = renamed(fields, names)
    return srv.hash_rihs01(f"{package}/srv/{short}")


def parameter(name, kind, **value):
    return srv.types["rcl_interfaces/msg/Parameter"](name=name, value=parameter_value(kind, **value))


def parameter_value(kind, **value):
    empty = dict(bool_value=False, integer_value=0, double_value=0.0, string_value="", byte_array_value=np.array([], np.uint8),
                 bool_array_value=np.array([], bool), integer_array_value=np.array([], np.int64),
                 double_array_value=np.array([]), string_array_value=[])
    return srv.types["rcl_interfaces/msg/ParameterValue"](type=kind, **(empty | value))


def exchange(file, service, request, response):
    package, short = service.split("/")
    for part, text, fields in zip(["Request", "Response"], SERVICES[service], [request, response]):
        kind = f"{package}/msg/{short}_{part}"
        if kind not in srv.types:
            srv.register(get_types_from_msg(text + "\n", kind))
        message = srv.types[kind](**fields)
        (OUT / f"services/{file}_{part.lower()}.cdr").write_bytes(bytes(srv.serialize_cdr(message, kind)))


def result(reason=""):
    return srv.types["rcl_interfaces/msg/SetParametersResult"](successful=not reason, reason=reason)


def descriptor(name, kind, description, ranges):
    return srv.types["rcl_interfaces/msg/ParameterDescriptor"](
        name=name, type=kind, description=description, additional_constraints="", read_only=False,
        dynamic_typing=False, floating_point_range=ranges, integer_range=[])


(OUT / "services").mkdir(exist_ok=True)
unknown, range_ = "there is no such parameter; there is rate_hz", "rate_hz must be a number from 0 to 1000"
exchange("enable", "std_srvs/SetBool", dict(data=False), dict(success=True, message="stopped"))
listed = srv.types["rcl_interfaces/msg/ListParametersResult"]
exchange("list", "rcl_interfaces/ListParameters", dict(prefixes=[], depth=1),
         dict(result=listed(names=["rate_hz"], prefixes=[])))
exchange("list_other", "rcl_interfaces/ListParameters", dict(prefixes=["qos_overrides"], depth=0),
         dict(result=listed(names=[], prefixes=[])))
two = dict(names=["rate_hz", "use_sim_time"])
exchange("get", "rcl_interfaces/GetParameters", two,
         dict(values=[parameter_value(3, double_value=12.5), parameter_value(0)]))
exchange("types", "rcl_interfaces/GetParameterTypes", two, dict(types=np.array([3, 0], np.uint8)))
span = srv.types["rcl_interfaces/msg/FloatingPointRange"](from_value=0.0, to_value=1000.0, step=0.0)
exchange("describe", "rcl_interfaces/DescribeParameters", two, dict(descriptors=[
    descriptor("rate_hz", 3, "Maximum frame rate in Hz; 0 is no limit besides that of the configuration", [span]),
    descriptor("", 0, "", [])]))
lists = dict(byte_array_value=np.array([1, 2, 3], np.uint8), bool_array_value=np.array([True]), string_array_value=["x", "yz"],
             integer_array_value=np.array([1, 2]), double_array_value=np.array([0.5]), string_value="text")
exchange("set", "rcl_interfaces/SetParameters",
         dict(parameters=[parameter("rate_hz", 3, double_value=7.5), parameter("other", 9, **lists),
                          parameter("rate_hz", 3, double_value=float("nan")), parameter("rate_hz", 4, **lists)]),
         dict(results=[result(), result(unknown), result(range_), result(range_)]))
exchange("set_integer", "rcl_interfaces/SetParameters", dict(parameters=[parameter("rate_hz", 2, integer_value=5)]),
         dict(results=[result()]))
exchange("atomic", "rcl_interfaces/SetParametersAtomically",
         dict(parameters=[parameter("rate_hz", 3, double_value=7.5), parameter("rate_hz", 3, double_value=1001.0)]),
         dict(result=result(range_)))

# In the order of the node's table.
hashes = ""
for kind in ["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", POINTS, "vision_msgs/msg/LabelInfo",
             DETECTIONS, "diagnostic_msgs/msg/DiagnosticArray"]:
    hashes += f"{kind} {store.hash_rihs01(kind)}\n"
for name, texts in SERVICES.items():
    hashes += f"{name.replace('/', '/srv/')} {service_hash(name, *texts)}\n"
(OUT / "hashes.txt").write_text(hashes)
print(hashes, end="")
