#!/usr/bin/env python3
"""Talks to loftup-node through a router of zenoh as ROS 2 nodes do, with libraries of others: messages by
rosbags, sessions by eclipse-zenoh. ROS 2 is not needed.

    pip install eclipse-zenoh rosbags numpy pillow
    cargo build --workspace --features loftup-node/zenoh --bins --examples
    tools/check_ros2.py [--target DIR] [--bundle BUNDLE] [--heads CLASSES DEPTH] [--seconds 20]

Publishes images in every encoding, from Humble and from later distributions, to the node's source
(`examples/ros2_source.rs`), restarts the router in between, and measures the latency from publishing to the
source at 640x480 and 30 Hz. With a bundle, runs the node on such images, decodes everything that it publishes
and calls its services. Prints one line for each encoding and topic; the exit status is 1
if anything is wrong.
"""
import argparse
import collections
import io
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zenoh
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

DOMAIN = 11
STORE = get_typestore(Stores.LATEST)
ROS = Path(__file__).resolve().parent.parent / "firmware/node/src/ros"
types = get_types_from_msg((ROS / "Detection2DArray.msg").read_text(), "vision_msgs/msg/Detection2DArray")
types |= get_types_from_msg("uint16 class_id\nstring class_name\n", "vision_msgs/msg/VisionClass")
types |= get_types_from_msg("std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
                            "vision_msgs/msg/LabelInfo")
STORE.register({name: fields for name, fields in types.items() if name.startswith("vision_msgs/")})


# Services, with the hashes of ROS 2's own type descriptions.
for name, text in [("std_srvs/msg/SetBool_Request", "bool data"),
                   ("std_srvs/msg/SetBool_Response", "bool success\nstring message"),
                   ("rcl_interfaces/msg/GetParameters_Request", "string[] names"),
                   ("rcl_interfaces/msg/GetParameters_Response", "rcl_interfaces/ParameterValue[] values"),
                   ("rcl_interfaces/msg/SetParameters_Request", "rcl_interfaces/Parameter[] parameters"),
                   ("rcl_interfaces/msg/SetParameters_Response", "rcl_interfaces/SetParametersResult[] results")]:
    STORE.register(get_types_from_msg(text + "\n", name))
SERVICES = {
    "std_srvs/SetBool": "RIHS01_abe9e4bb6b41b40e6789712c00ec8871923e089af3f667a79992a428cff2da0a",
    "rcl_interfaces/GetParameters": "RIHS01_bf9803d5c74cf989a5de3e0c2e99444599a627c7ff75f97b8c05b01003675cbc",
    "rcl_interfaces/SetParameters": "RIHS01_56eed9a67e169f9cb6c1f987bc88f868c14a8fc9f743a263bc734c154015d7e0",
}


def key(topic, kind, humble):
    """The key of rmw_zenoh."""
    name = kind.replace("/", "::").replace("::msg::", "::msg::dds_::") + "_"
    return f"{DOMAIN}{topic}/{name}/" + ("TypeHashNotSupported" if humble else STORE.hash_rihs01(kind))


def make(name, /, **fields):
    return STORE.types[name](**fields)


def header(stamp, frame):
    time_ = make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return make("std_msgs/msg/Header", stamp=time_, frame_id=frame)


class Router:
    """A router on a free port, which can be restarted."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"tcp/127.0.0.1:{free.getsockname()[1]}"
        self.start()

    def start(self):
        self.session = open_session("router", listen=self.endpoint)
        self.tokens = set()
        self.watch = self.session.liveliness().declare_subscriber(
            f"@ros2_lv/{DOMAIN}/**", lambda sample: self.tokens.add(str(sample.key_expr)), history=True)

    def wait_for(self, *parts):
        wait(lambda: any(all(part in token for part in parts) for token in list(self.tokens)), f"a token {parts}")

    def stop(self):
        self.session.close()


def open_session(mode, listen=None, connect=None):
    config = zenoh.Config()
    config.insert_json5("mode", f'"{mode}"')
    config.insert_json5("scouting/multicast/enabled", "false")
    for what, endpoint in [("listen", listen), ("connect", connect)]:
        if endpoint:
            config.insert_json5(f"{what}/endpoints", f'["{endpoint}"]')
    return zenoh.open(config)


def wait(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"error: no {what} within {seconds} s")
        time.sleep(0.02)


class Publisher:
    """A publisher of rmw_zenoh."""

    def __init__(self, session, topic, kind, humble=False):
        self.kind, self.sequence = kind, 0
        self.publisher = session.declare_publisher(key(topic, kind, humble))

    def put(self, message):
        body = bytes(STORE.serialize_cdr(message, self.kind))
        self.sequence += 1
        numbers = self.sequence.to_bytes(8, "little") + time.time_ns().to_bytes(8, "little")
        self.publisher.put(body, attachment=numbers + bytes([16]) + bytes(range(16)))


class Source:
    """The example `ros2_source`."""

    def __init__(self, program, router, topic, pixels=False):
        self.process = subprocess.Popen(
            [program, router.endpoint, str(DOMAIN), topic] + ["pixels"] * pixels,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.token = topic.replace("/", "%")

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())

    def next(self, kind="frame", seconds=30):
        """The next line of a kind; others are skipped."""
        while True:
            try:
                line = self.lines.get(timeout=seconds)
            except queue.Empty:
                raise SystemExit(f"error: no {kind} within {seconds} s") from None
            if line[0] == kind:
                return line

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def bt601(y, u, v):
    y, u, v = (y - 16.0) / 219, (u - 128.0) / 224, (v - 128.0) / 224
    red, blue = y + 2 * (1 - 0.299) * v, y + 2 * (1 - 0.114) * u
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.rint(255 * np.stack([red, green, blue], -1)), 0, 255).astype(np.uint8)


def encodings(random, height, width):
    """Encoding, rows of the message, RGB, tolerance."""
    rgb = random.integers(0, 256, (height, width, 3), np.uint8)
    alpha = random.integers(0, 256, (height, width, 1), np.uint8)
    yield "rgb8", rgb, rgb, 0
    yield "bgr8", rgb[..., ::-1], rgb, 0
    yield "rgba8", np.concatenate([rgb, alpha], 2), rgb, 0
    yield "bgra8", np.concatenate([rgb[..., ::-1], alpha], 2), rgb, 0
    yield "mono8", rgb[..., 0], np.repeat(rgb[..., :1], 3, 2), 0
    y = random.integers(0, 256, (height, width), np.uint8)
    u, v = random.integers(0, 256, (2, height, width // 2), np.uint8)
    pairs = bt601(y, np.repeat(u, 2, 1), np.repeat(v, 2, 1))
    for name in ["yuv422", "uyvy"]:
        yield name, np.stack([u, y[:, ::2], v, y[:, 1::2]], -1), pairs, 1
    for name in ["yuv422_yuy2", "yuyv"]:
        yield name, np.stack([y[:, ::2], u, y[:, 1::2], v], -1), pairs, 1
    u, v = u[::2], v[::2]
    up = [np.repeat(np.repeat(c, 2, 0), 2, 1) for c in (u, v)]
    yield "nv12", np.concatenate([y, np.stack([u, v], -1).reshape(height // 2, width)]), bt601(y, *up), 1


def image(stamp, encoding, rows, height, width, gap=0, frame="front"):
    rows = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    rows = np.pad(rows, ((0, 0), (0, gap)))
    return make("sensor_msgs/msg/Image", header=header(stamp, frame), height=height, width=width, encoding=encoding,
                is_bigendian=0, step=rows.shape[1], data=rows.reshape(-1))


def check(program, router):
    """Every encoding in both directions of sizes, from both kinds of keys."""
    random = np.random.default_rng(3)
    raw = Source(program, router, "/camera/image", pixels=True)
    packed = Source(program, router, "/camera/image/compressed", pixels=True)
    for source in (raw, packed):
        router.wait_for("/MS/", source.token + "/", "/2:2:1,1:,:,:,,")
    sent = 0
    for humble in (True, False):
        talker = open_session("client", connect=router.endpoint)
        publisher = Publisher(talker, "/camera/image", "sensor_msgs/msg/Image", humble)
        files = Publisher(talker, "/camera/image/compressed", "sensor_msgs/msg/CompressedImage", humble)
        keys = "Humble" if humble else "since Iron"
        for height, width, gap in [(48, 64, 0), (30, 62, 6)]:
            for name, rows, rgb, tolerance in encodings(random, height, width):
                sent += 1
                publisher.put(image(10**18 + sent, name, rows, height, width, gap))
                compare(raw.next(), sent, rgb, tolerance, f"{name}, {keys}, {width}x{height}, padding {gap}")
            smooth = np.linspace(0, 255, 3 * width * height).astype(np.uint8).reshape(height, width, 3)
            for kind, tolerance in [("jpeg", 2), ("png", 0)]:
                sent += 1
                file = io.BytesIO()
                # Decoders differ in how they interpolate subsampled colors.
                Image.fromarray(smooth).save(file, kind, **({"subsampling": 0} if kind == "jpeg" else {}))
                rgb = np.asarray(Image.open(file))
                files.put(make("sensor_msgs/msg/CompressedImage", header=header(10**18 + sent, "front"), format=kind,
                               data=np.frombuffer(file.getvalue(), np.uint8)))
                compare(packed.next(), sent, rgb, tolerance, f"{kind}, {keys}, {width}x{height}")
        if not humble:
            restart(router, raw, talker)
            break
        talker.close()
    raw.close()
    packed.close()


def restart(router, source, talker):
    """Images before and after a restart of the router. The talker connects again by itself, as ROS 2 nodes do."""
    talker.close()
    router.stop()
    time.sleep(1.5)
    start = time.monotonic()
    router.start()
    router.wait_for("/MS/", source.token + "/")
    found = time.monotonic() - start
    talker = open_session("client", connect=router.endpoint)
    publisher = Publisher(talker, "/camera/image", "sensor_msgs/msg/Image")
    rgb = np.full((8, 8, 3), 7, np.uint8)
    publisher.put(image(5, "rgb8", rgb, 8, 8))
    compare(source.next(), 5 - 10**18, rgb, 0, f"router restarted: subscribed again after {found:.1f} s")
    talker.close()


def compare(line, number, rgb, tolerance, what):
    _, _, stamp, _, width, height, frame, pixels = line
    assert int(stamp) == 10**18 + number, f"{what}: stamp {stamp}"
    assert frame == "front", f"{what}: frame {frame}"
    assert (int(height), int(width)) == rgb.shape[:2], f"{what}: {width}x{height}"
    found = np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(rgb.shape)
    apart = np.abs(found.astype(int) - rgb).max()
    assert apart <= tolerance, f"{what}: {apart} levels apart"
    print(f"{what}: {apart} levels apart")


def latency(program, router, seconds):
    """From publishing to the source, both with this machine's clock."""
    rgb = np.random.default_rng(4).integers(0, 256, (480, 640, 3), np.uint8)
    photo = Image.fromarray(rgb).resize((80, 60)).resize((640, 480))
    file = io.BytesIO()
    photo.save(file, "jpeg", quality=90)
    file = np.frombuffer(file.getvalue(), np.uint8)
    talker = open_session("client", connect=router.endpoint)
    for topic, kind, name, message in [
        ("/fast/rgb", "Image", "rgb8", lambda t: image(t, "rgb8", rgb, 480, 640)),
        ("/fast/nv12", "Image", "nv12", lambda t: image(t, "nv12", rgb.reshape(-1)[:460800].reshape(720, 640), 480, 640)),
        ("/fast/compressed", "CompressedImage", f"jpeg of {len(file) >> 10} KiB", lambda t: make(
            "sensor_msgs/msg/CompressedImage", header=header(t, "front"), format="jpeg", data=file)),
    ]:
        source = Source(program, router, topic)
        router.wait_for("/MS/", source.token + "/")
        publisher = Publisher(talker, topic, f"sensor_msgs/msg/{kind}")
        # Serialized before, and stamped at the last moment.
        body = bytearray(STORE.serialize_cdr(message(0), publisher.kind))
        count, due, found = int(30 * seconds), time.monotonic(), []
        for number in range(count):
            due += 1 / 30
            time.sleep(max(0, due - time.monotonic()))
            now = time.time_ns()
            body[4:12] = (now // 10**9).to_bytes(4, "little") + (now % 10**9).to_bytes(4, "little")
            numbers = (number + 1).to_bytes(8, "little") + now.to_bytes(8, "little")
            publisher.publisher.put(bytes(body), attachment=numbers + bytes([16]) + bytes(range(16)))
        time.sleep(1)
        while not source.lines.empty():
            line = source.lines.get()
            assert line[0] == "frame", line
            found.append((int(line[3]) - int(line[2])) / 1e6)
        assert len(found) > count // 2, f"{len(found)} of {count}"
        found = np.array(found)
        print(f"latency, {name}, 640x480, 30 Hz: median {np.median(found):.2f} ms, p99 {np.percentile(found, 99):.2f} ms, "
              f"{count - len(found)} of {count} messages replaced by newer ones")
        source.close()
    talker.close()


NODE = """
[model]
bundle = {bundle!r}
head = {classes!r}
depth = {depth!r}
backend = "tract"
size = [56, 56]
[source]
kind = "ros2"
topic = "/camera/image"
endpoint = {endpoint!r}
domain = {domain}
timeout_ms = 60000
[pipeline]
deadline_ms = 10000
max_age_ms = 20000
[track]
grid = [14, 14]
[[track.object]]
object = 3
name = "first"
region = [20, 20, 60, 60]
[[query]]
slot = 0
want = "classes"
[[query]]
slot = 1
want = "depth"
[[query]]
slot = 2
want = "objects"
[[query]]
slot = 3
want = "features-f16"
points = [[3, 5], [120, 60]]
[[sink]]
kind = "zenoh"
endpoint = {endpoint!r}
domain = {domain}
distro = {distro!r}
"""

TOPICS = {
    "/loftup/slot_0/classes": "sensor_msgs/msg/Image",
    "/loftup/slot_0/label_info": "vision_msgs/msg/LabelInfo",
    "/loftup/slot_1/depth": "sensor_msgs/msg/Image",
    "/loftup/slot_2/tracks": "vision_msgs/msg/Detection2DArray",
    "/loftup/slot_2/mask": "sensor_msgs/msg/Image",
    "/loftup/slot_3/features": "sensor_msgs/msg/PointCloud2",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}


def node(program, model, router, distro):
    """Images into the node, and everything that it publishes decoded again."""
    listener = open_session("client", connect=router.endpoint)
    got = collections.defaultdict(list)
    subscribers = [
        listener.declare_subscriber(key(topic, kind, distro == "humble"),
                                    lambda sample, topic=topic, kind=kind: got[topic].append((
                                        STORE.deserialize_cdr(bytes(sample.payload), kind), bytes(sample.attachment))))
        for topic, kind in TOPICS.items()]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "node.toml")
        text = NODE.format(endpoint=router.endpoint, domain=DOMAIN, distro=distro, **model)
        config.write_text(text)
        subprocess.run([program, config, "--check"], check=True, stdout=subprocess.DEVNULL)
        running = subprocess.Popen([program, config], stderr=subprocess.DEVNULL)
        try:
            router.wait_for("/MS/", "%camera%image/")
            publisher = Publisher(listener, "/camera/image", "sensor_msgs/msg/Image", distro == "humble")
            rgb = np.asarray(Image.linear_gradient("L").convert("RGB").resize((160, 120)))
            stamps, start = set(), time.monotonic()

            def publish():
                stamp = time.time_ns()
                stamps.add(stamp)
                publisher.put(image(stamp, "rgb8", rgb, 120, 160, frame="front_optical"))

            while any(len(got[topic]) < 3 for topic in TOPICS):
                assert time.monotonic() < start + 120, {topic: len(got[topic]) for topic in TOPICS}
                publish()
                time.sleep(0.2)
            services(listener, router, got, publish, distro)
            for topic, kind in TOPICS.items():
                inspect(topic, kind, got[topic], stamps, distro)
                router.wait_for("/MP/", topic.replace("/", "%") + "/")
        finally:
            running.terminate()
            status = running.wait(30)
        assert status == 0, f"loftup-node: exit status {status}"
    for subscriber in subscribers:
        subscriber.undeclare()
    listener.close()


def call(session, service, kind, humble, **fields):
    """Calls a service of the node, as a client of rmw_zenoh does."""
    package, short = kind.split("/")
    hash_ = "TypeHashNotSupported" if humble else SERVICES[kind]
    request = f"{package}/msg/{short}_Request"
    body = bytes(STORE.serialize_cdr(make(request, **fields), request))
    numbers = (42).to_bytes(8, "little") + time.time_ns().to_bytes(8, "little") + bytes([16]) + bytes(range(16))
    replies = list(session.get(
        f"{DOMAIN}/loftup_node/{service}/{package}::srv::dds_::{short}_/{hash_}", payload=body, attachment=numbers,
        target=zenoh.QueryTarget.ALL_COMPLETE, timeout=10))
    [reply] = replies
    assert reply.ok, f"{service}: {reply.err.payload.to_string()}"
    attachment = bytes(reply.ok.attachment)
    assert attachment[:8] == numbers[:8] and attachment[16:] == numbers[16:], f"{service}: attachment"
    return STORE.deserialize_cdr(bytes(reply.ok.payload), f"{package}/msg/{short}_Response")


def services(session, router, got, publish, distro):
    """The switch and the parameter of the node."""
    humble = distro == "humble"
    for service in ["enable", "list_parameters", "get_parameters", "set_parameters"]:
        router.wait_for("/SS/%/%/loftup_node/", f"%loftup_node%{service}/", "/1:2:1,10:,:,:,,")
    rates = dict(names=["rate_hz", "other"])
    values = call(session, "get_parameters", "rcl_interfaces/GetParameters", humble, **rates).values
    assert [(value.type, value.double_value) for value in values] == [(3, 0.0), (0, 0.0)]
    empty = dict(bool_value=False, integer_value=0, string_value="", byte_array_value=np.array([], np.uint8),
                 bool_array_value=np.array([], bool), integer_array_value=np.array([], np.int64),
                 double_array_value=np.array([]), string_array_value=[])
    rate = [make("rcl_interfaces/msg/Parameter", name="rate_hz", value=make(
        "rcl_interfaces/msg/ParameterValue", type=3, double_value=value, **empty)) for value in (40.0, -1.0)]
    results = call(session, "set_parameters", "rcl_interfaces/SetParameters", humble, parameters=rate).results
    assert [result.successful for result in results] == [True, False]
    values = call(session, "get_parameters", "rcl_interfaces/GetParameters", humble, **rates).values
    assert values[0].double_value == 40
    for enabled, text in [(False, "stopped"), (True, "running")]:
        answer = call(session, "enable", "std_srvs/SetBool", humble, data=enabled)
        assert answer.success and answer.message == text
        time.sleep(1)
        before = len(got["/loftup/slot_0/classes"])
        for _ in range(5):
            publish()
            time.sleep(0.2)
        time.sleep(0.5)
        assert (len(got["/loftup/slot_0/classes"]) > before) == enabled, f"enabled {enabled}"
    print(f"services ({distro}): rate_hz read and set, {results[1].reason!r}, stopped and started")


def inspect(topic, kind, messages, stamps, distro):
    before = 0
    for message, attachment in messages:
        assert len(attachment) == 33 and attachment[16] == 16, topic
        sequence = int.from_bytes(attachment[:8], "little")
        assert sequence > before, topic
        before = sequence
        if topic != "/diagnostics":
            stamp = message.header.stamp
            assert stamp.sec * 10**9 + stamp.nanosec in stamps, f"{topic}: not a stamp of the camera"
            assert message.header.frame_id == "front_optical", topic
        if kind.endswith("/Image"):
            assert (message.width, message.height) == (56, 56), topic
            assert len(message.data) == message.step * message.height
    last = messages[-1][0]
    if kind.endswith("/LabelInfo"):
        what = f"{len(last.class_map)} names, the first is {last.class_map[0].class_name!r}"
    elif kind.endswith("/PointCloud2"):
        size = last.fields[3].count
        points = np.frombuffer(last.data, [(f.name, "<f4", (f.count,) if f.count > 1 else ()) for f in last.fields])
        assert points["x"].tolist() == [3, 120] and points["y"].tolist() == [5, 60] and last.is_dense
        assert np.isfinite(points["descriptor"]).all() and last.point_step == 12 + 4 * size
        what = f"{last.width} points with {size} values"
    elif kind.endswith("/Detection2DArray"):
        what = f"{len(last.detections)} detections"
    elif kind.endswith("/DiagnosticArray"):
        [status] = last.status
        what = f"{status.name!r} level {status.level}, {status.message!r}, {len(status.values)} values"
    else:
        what = f"{last.encoding} {last.width}x{last.height}"
    print(f"{topic} ({kind}, {distro}): {len(messages)} messages, {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="target/debug", help="directory of the programs")
    parser.add_argument("--bundle", help="a bundle with a class head and a depth head, such as that of `loftup demo`")
    parser.add_argument("--heads", nargs=2, default=["classes", "depth"], help="names of its heads")
    parser.add_argument("--seconds", type=float, default=20, help="duration of each latency measurement")
    arguments = parser.parse_args()
    target = Path(arguments.target)
    source, program = target / "examples/ros2_source", target / "loftup-node"
    if not source.exists():
        sys.exit(f"error: {source} is missing: cargo build --workspace --features loftup-node/zenoh --bins --examples")
    router = Router()
    check(source, router)
    if arguments.bundle:
        classes, depth = arguments.heads
        model = dict(bundle=str(Path(arguments.bundle).resolve()), classes=classes, depth=depth)
        for distro in ("humble", "jazzy"):
            node(program, model, router, distro)
    latency(source, router, arguments.seconds)
    router.stop()
    print("passed")


main()
