#!/usr/bin/env python3
"""Reads an MCAP file of loftup-node with the libraries of others, and holds its schemas against
those that Foxglove publishes.

    pip install mcap mcap-protobuf-support foxglove-schemas-protobuf
    tools/check_mcap.py out.mcap

Messages are decoded by the schemas in the file. With `rerun` (pip install rerun-sdk) on the path,
Rerun's importer has to make pictures of them too.
"""
import collections
import shutil
import subprocess
import sys
import tempfile

from foxglove_schemas_protobuf import Log_pb2, RawImage_pb2
from google.protobuf import descriptor_pb2
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory

PUBLISHED = {"foxglove.RawImage": RawImage_pb2, "foxglove.Log": Log_pb2}


def main(path):
    counts = collections.Counter()
    schemas = {}
    with open(path, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for schema in reader.get_summary().schemas.values():
            schemas[schema.name] = schema
        for name, module in PUBLISHED.items():
            if name not in schemas:
                continue
            found = descriptor_pb2.FileDescriptorSet.FromString(schemas[name].data).file[-1]
            wanted = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(wanted)
            assert found == wanted, f"{name} is not what Foxglove publishes:\n{found}\n{wanted}"
            print(f"{name}: as published")
        file.seek(0)
        protobuf = [c.topic for c in reader.get_summary().channels.values() if c.message_encoding == "protobuf"]
        for schema, channel, _, message in reader.iter_decoded_messages(topics=protobuf):
            if schema.name == "foxglove.RawImage":
                assert len(message.data) == message.step * message.height, channel.topic
            counts[channel.topic] += 1
    assert counts, "no message"
    for topic, count in sorted(counts.items()):
        print(f"{topic}: {count} messages decoded")
    rerun = shutil.which("rerun")
    if rerun is None:
        print("rerun is not on the path: not asked")
        return
    with tempfile.TemporaryDirectory() as folder:
        rrd = f"{folder}/out.rrd"
        subprocess.run([rerun, "mcap", "convert", path, "-o", rrd], check=True, capture_output=True)
        stats = subprocess.run([rerun, "rrd", "stats", rrd], check=True, capture_output=True, text=True)
        for what in ["Image:buffer", "TextLog:text"]:
            assert what in stats.stdout, f"Rerun made no {what} of it:\n{stats.stdout}"
            print(f"rerun: {what}")


main(sys.argv[1])
