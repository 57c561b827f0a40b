#!/usr/bin/env python3
"""Reads RTSP streams of GStreamer's RTSP server with `loftup run` and loftup-node.

    apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad,ugly} ffmpeg
    cargo build --workspace --bins
    tools/check_rtsp.py [--target DIR]

H.264, H.265 and JPEG, decoded by ffmpeg and by GStreamer. The node reads a stream with each of its two sources for
streams while the server is stopped and started again. Prints a line for each; the exit status is 1 if anything is wrong.
"""
import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

STREAMS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph265pay name=pay0 pt=96",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0",
}
RATE = 10


def serve(port):
    """Serves the streams until it is killed."""
    import gi
    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    for name, elements in STREAMS.items():
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(f"( videotestsrc is-live=true pattern=ball"
                           f" ! video/x-raw,format=I420,width=320,height=240,framerate={RATE}/1 ! {elements} )")
        factory.set_shared(True)
        server.get_mount_points().add_factory(f"/{name}", factory)
    server.attach(None)
    GLib.MainLoop().run()


class Server:
    def __init__(self):
        self.port = free_port()
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, __file__, "--serve", str(self.port)])
        wait(self.answers, "RTSP server")

    def answers(self):
        assert self.process.poll() is None, "the server ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.kill()
        self.process.wait()

    def url(self, name):
        return f"rtsp://127.0.0.1:{self.port}/{name}"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"error: no {what} within {seconds} s")
        time.sleep(0.1)


def frames(loftup, bundle, server, folder):
    """Five frames of every stream with each decoder."""
    only = folder / "bin"
    only.mkdir()
    (only / "gst-launch-1.0").symlink_to(shutil.which("gst-launch-1.0"))
    for decoder, path in [("ffmpeg", os.environ["PATH"]), ("GStreamer", str(only))]:
        for name in STREAMS:
            out = folder / f"{decoder}-{name}"
            start = time.monotonic()
            subprocess.run([loftup, "run", bundle, "--video", server.url(name), "--frames", "5", "--size", "28x28",
                            "--out", out], check=True, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL,
                           timeout=120)
            count = len(list(out.glob("*.npy")))
            assert count == 5, f"{name} with {decoder}: {count} frames"
            print(f"{name} with {decoder}: 5 frames in {time.monotonic() - start:.1f} s", flush=True)


def published(port):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("loftup_outputs_published_total"))


def node(program, bundle, server, folder, source):
    """Outputs before and after a restart of the server."""
    port = free_port()
    config = folder / "node.toml"
    config.write_text(f"""
[model]
bundle = "{bundle}"
head = "classes"
backend = "tract"
size = [28, 28]
[source]
{source}
[pipeline]
deadline_ms = 20000
max_age_ms = 40000
[[query]]
slot = 0
want = "features-f16"
points = [[3, 5]]
[[sink]]
kind = "recording"
path = "{folder}/recording"
[metrics]
listen = "127.0.0.1:{port}"
""")
    log = (folder / "node.log").open("w+")
    running = subprocess.Popen([program, config], stderr=log)
    try:
        wait(lambda: published(port) >= 5, "outputs")
        server.stop()
        time.sleep(4)
        before = published(port)
        time.sleep(2)
        assert published(port) == before, "outputs without a server"
        start = time.monotonic()
        server.start()
        wait(lambda: published(port) >= before + 5, "outputs after the server was started again")
        print(f"node, {source.splitlines()[0]}: outputs again {time.monotonic() - start:.1f} s after the server was"
              " started", flush=True)
    except SystemExit:
        log.seek(0)
        print(log.read()[-4000:])
        raise
    finally:
        running.terminate()
        status = running.wait(30)
        log.close()
    assert status == 0, f"loftup-node: exit status {status}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="target/debug", type=Path, help="directory of the programs")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    loftup, program = arguments.target / "loftup", arguments.target / "loftup-node"
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            bundle = folder / "robot.loftup"
            for command in [[arguments.target / "loftup-scenes", "--out", folder / "scenes", "--train", "4", "--val", "2"],
                            [loftup, "convert", "--builtin=scenes", "--out", folder / "plain.loftup"],
                            [loftup, "head", "classes", folder / "plain.loftup", "--data", folder / "scenes",
                             "--epochs", "1", "--out", bundle]]:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            frames(loftup, bundle, server, folder)
            node(program, bundle, server, folder, f'kind = "video"\npath = "{server.url("h264")}"')
            elements = (f"rtspsrc location={server.url('jpeg')} protocols=tcp latency=100 ! rtpjpegdepay ! jpegdec")
            node(program, bundle, server, folder, f'kind = "gstreamer"\npipeline = "{elements}"\nsize = [160, 120]\nrepeat = true')
    finally:
        server.stop()
    print("passed")


main()
