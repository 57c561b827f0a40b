#!/usr/bin/env python3
"""Reads an MCAP file of loftup-node with other libraries, and compares its schemas with
those that Foxglove and ROS publish.

    pip install mcap mcap-protobuf-support mcap-ros2-support foxglove-schemas-protobuf numpy
    tools/check_mcap.py out.mcap

Messages are decoded by the schemas in the file. An unfinished file is read up to its last
whole chunk. With `rerun` (pip install rerun-sdk) on the path,
Rerun must be able to import the images as well.
"""
import collections
import json
import shutil
import struct
import subprocess
import sys
import tempfile

from foxglove_schemas_protobuf import Log_pb2, RawImage_pb2
from google.protobuf import descriptor_pb2
from mcap.exceptions import EndOfFile, InvalidMagic
from mcap.reader import NonSeekingReader
from mcap_protobuf.decoder import DecoderFactory
from mcap_ros2.decoder import DecoderFactory as RosDecoderFactory
import numpy as np

PUBLISHED = {"foxglove.RawImage": RawImage_pb2, "foxglove.Log": Log_pb2}


PIXEL = {"rgb8": 3, "mono8": 1, "16UC1": 2}


class Tracks:
    """The detections of a frame, which must be the objects of its mask."""

    def __init__(self):
        self.found = {}
        self.objects = set()
        self.matched = 0

    def add(self, channel, time, message):
        slot = channel.topic.rsplit("/", 1)[0]
        if channel.topic.endswith("/tracks"):
            boxes = {}
            for detection in message.detections:
                [result] = detection.results
                name, score = result.hypothesis.class_id, result.hypothesis.score
                assert name and 0 <= score <= 1, (name, score)
                assert detection.header.frame_id == message.header.frame_id == "camera"
                stamp = message.header.stamp
                assert stamp.sec * 10**9 + stamp.nanosec == time, channel.topic
                assert detection.bbox.size_x > 0 and detection.bbox.size_y > 0, detection
                assert detection.id not in boxes, detection.id
                boxes[detection.id] = detection.bbox
                self.objects.add((detection.id, name))
            self.found[slot, time] = boxes
        elif channel.topic.endswith("/mask"):
            mask = np.frombuffer(message.data, np.uint8)
            numbers = {str(n) for n in np.unique(mask) if n}
            assert numbers == set(self.found.pop((slot, time))), f"{channel.topic}: the objects are others"
            self.matched += 1


class Decoders(DecoderFactory):
    """Decodes Protocol Buffers, CDR and JSON."""

    def decoder_for(self, encoding, schema):
        if encoding == "cdr":
            return ROS.decoder_for(encoding, schema)
        return json.loads if encoding == "json" else super().decoder_for(encoding, schema)


ROS = RosDecoderFactory()


def compare(schema):
    found = descriptor_pb2.FileDescriptorSet.FromString(schema.data).file[-1]
    wanted = descriptor_pb2.FileDescriptorProto()
    PUBLISHED[schema.name].DESCRIPTOR.CopyToProto(wanted)
    assert found == wanted, f"{schema.name} differs from the schema published by Foxglove:\n{found}\n{wanted}"
    print(f"{schema.name}: as published")


def main(path):
    counts = collections.Counter()
    tracks = Tracks()
    schemas = set()
    with open(path, "rb") as file:
        # From front to back, which needs neither footer nor summary.
        reader = NonSeekingReader(file, validate_crcs=True, decoder_factories=[Decoders()])
        try:
            for schema, channel, record, message in reader.iter_decoded_messages(log_time_order=False):
                if schema.name in PUBLISHED and schema.name not in schemas:
                    compare(schema)
                schemas.add(schema.name)
                if schema.name == "foxglove.RawImage":
                    assert len(message.data) == message.step * message.height, channel.topic
                    assert message.step == PIXEL[message.encoding] * message.width, channel.topic
                tracks.add(channel, record.log_time, message)
                counts[channel.topic] += 1
        except (EndOfFile, InvalidMagic, struct.error):
            print("the file is unfinished: read up to its last complete chunk")
    assert counts, "no message"
    for topic, count in sorted(counts.items()):
        print(f"{topic}: {count} messages decoded")
    if tracks.matched:
        names = ", ".join(f"{number} ({name})" for number, name in sorted(tracks.objects))
        print(f"{tracks.matched} frames with the same objects in tracks and mask: {names}")
    rerun = shutil.which("rerun")
    if rerun is None:
        print("rerun is not installed: skipped")
        return
    with tempfile.TemporaryDirectory() as folder:
        rrd = f"{folder}/out.rrd"
        subprocess.run([rerun, "mcap", "convert", path, "-o", rrd], check=True, capture_output=True)
        stats = subprocess.run([rerun, "rrd", "stats", rrd], check=True, capture_output=True, text=True)
        for what in ["Image:buffer", "TextLog:text"]:
            assert what in stats.stdout, f"Rerun imported no {what}:\n{stats.stdout}"
            print(f"rerun: {what}")


main(sys.argv[1])
