"""Adds license texts to a wheel: wheel_licenses.py WHEEL FILE..."""
import base64
import hashlib
import sys
import zipfile
from pathlib import Path

wheel, *files = map(Path, sys.argv[1:])
with zipfile.ZipFile(wheel) as old:
    contents = [(entry, old.read(entry)) for entry in old.infolist()]
record = next(entry for entry, _ in contents if entry.filename.endswith(".dist-info/RECORD"))
folder = record.filename.removesuffix("RECORD") + "licenses/"
lines, names = b"", {entry.filename for entry, _ in contents}
new = zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED)
for file in files:
    name, data = folder + file.name, file.read_bytes()
    if name in names:
        continue
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    lines += f"{name},sha256={digest},{len(data)}\n".encode()
    entry = zipfile.ZipInfo(name, record.date_time)
    entry.external_attr = 0o644 << 16
    new.writestr(entry, data, zipfile.ZIP_DEFLATED)
for entry, data in contents:
    new.writestr(entry, lines + data if entry is record else data, zipfile.ZIP_DEFLATED)
new.close()
