#!/usr/bin/env python3
"""Checks that every relative link in the Markdown files points to an existing file and heading."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """The text without code, where brackets are not links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(path: pathlib.Path) -> set[str]:
    """Anchors of the headings: lower case, punctuation dropped, spaces as hyphens."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    names: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.M):
        heading = LINK.sub(lambda link: link.group(0)[1 : link.group(0).index("]")], heading)
        base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        name, again = base, 0
        while name in names:
            again += 1
            name = f"{base}-{again}"
        names.add(name)
    return names


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True,
    )
    files = [ROOT / name for name in listed.stdout.split("\n") if name]
    if not files:  # an archive without git
        files = [path for path in ROOT.rglob("*.md") if "target" not in path.parts]
    broken = 0
    for path in files:
        if not path.exists():
            continue
        for link in LINK.findall(prose(path.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists():
                problem = "no such file"
            elif anchor and anchor not in anchors(target):
                problem = f"no heading '{anchor}' in {target.name}"
            else:
                continue
            broken += 1
            print(f"{path.relative_to(ROOT)}: {link}: {problem}", file=sys.stderr)
    print(f"{len(files)} documents, {broken} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
