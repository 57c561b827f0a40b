#!/usr/bin/env python3
"""Reads an MCAP file of loftup-node with other libraries, and compares its schemas with
those that Foxglove publishes.

    pip install mcap mcap-protobuf-support foxglove-schemas-protobuf
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

PUBLISHED = {"foxglove.RawImage": RawImage_pb2, "foxglove.Log": Log_pb2}


class Decoders(DecoderFactory):
    """Decodes Protocol Buffers and JSON."""

    def decoder_for(self, encoding, schema):
        return json.loads if encoding == "json" else super().decoder_for(encoding, schema)


def compare(schema):
    found = descriptor_pb2.FileDescriptorSet.FromString(schema.data).file[-1]
    wanted = descriptor_pb2.FileDescriptorProto()
    PUBLISHED[schema.name].DESCRIPTOR.CopyToProto(wanted)
    assert found == wanted, f"{schema.name} differs from the schema published by Foxglove:\n{found}\n{wanted}"
    print(f"{schema.name}: as published")


def main(path):
    counts = collections.Counter()
    schemas = set()
    with open(path, "rb") as file:
        # From front to back, which needs neither footer nor summary.
        reader = NonSeekingReader(file, validate_crcs=True, decoder_factories=[Decoders()])
        try:
            for schema, channel, _, message in reader.iter_decoded_messages(log_time_order=False):
                if schema.name in PUBLISHED and schema.name not in schemas:
                    compare(schema)
                schemas.add(schema.name)
                if schema.name == "foxglove.RawImage":
                    assert len(message.data) == message.step * message.height, channel.topic
                counts[channel.topic] += 1
        except (EndOfFile, InvalidMagic, struct.error):
            print("the file is unfinished: read up to its last complete chunk")
    assert counts, "no message"
    for topic, count in sorted(counts.items()):
        print(f"{topic}: {count} messages decoded")
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
