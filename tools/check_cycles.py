#!/usr/bin/env python3
"""Reports import cycles between the modules of each crate, and dependency cycles between crates.

    tools/check_cycles.py [--strict] [--edges] [CRATE ...]

Module A depends on module B if code of A outside tests names a path into B: in a `use` declaration
(nested lists, `self`, `super`, renames and globs included) or inline, as in `crate::b::item`. A
path through a re-export counts as a dependency on the module that defines the item: `use
crate::Item` depends on the module behind `pub use`.

A dependency between a module and its own submodule, in either direction, is ignored: that is how a
file is split up, as with `use super::*`. --strict counts these as well.

Between crates, dev-dependencies count. A crate's dev-dependency on itself, which turns on a feature
for its own tests, does not.

Prints the strongly connected components of more than one module with the edges inside them, each
with the first line that causes it. The exit status is 1 if there are any.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
IDENT = r"(?:r#)?[A-Za-z_][A-Za-z0-9_]*"
TOKEN = re.compile(rf"{IDENT}|::|->|=>|\.\.=?|.", re.S)


def strip_comments_and_strings(text):
    """Source text with comments, strings and character literals blanked."""
    out, i = [], 0
    pattern = re.compile(
        r'//[^\n]*|/\*|b?r(#*)"|b?"(?:\\.|[^"\\])*"|b?\'(?:\\(?:u\{[^}]*\}|x[0-9a-fA-F]{2}|.)|[^\\\'\n])\'',
        re.S,
    )
    while match := pattern.search(text, i):
        # `r"` at the end of an identifier does not start a raw string.
        if match.group(1) is not None and match.start() and re.match(r"\w", text[match.start() - 1]):
            out.append(text[i : match.start() + 1])
            i = match.start() + 1
            continue
        out.append(text[i : match.start()])
        end = match.end()
        if match.group() == "/*":
            depth = 1
            while depth and (mark := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if mark.group() == "/*" else -1
                end = mark.end()
            if depth:
                end = len(text)
        elif match.group(1) is not None:
            close = text.find('"' + match.group(1), end)
            end = len(text) if close < 0 else close + 1 + len(match.group(1))
        out.append(re.sub(r"[^\n]", " ", text[match.start() : end]))
        i = end
    out.append(text[i:])
    return "".join(out)


class Module:
    def __init__(self, path, file):
        self.path = path  # tuple of names, () for the crate root
        self.file = file
        self.items = set()  # names defined here
        self.children = set()
        self.exports = {}  # name -> path, from all `use` declarations
        self.globs = []  # paths of modules imported by glob
        self.uses = []  # (path, line, whether it is a `pub use`)


def tokens_of(text):
    line, found = 1, []
    for match in TOKEN.finditer(text):
        token = match.group()
        if token == "\n":
            line += 1
        elif not token.isspace():
            found.append((token, line))
    return found


def skip_group(tokens, i):
    """Index after the bracketed group that starts at i."""
    close = {"(": ")", "[": "]", "{": "}"}
    stack = [close[tokens[i][0]]]
    i += 1
    while stack and i < len(tokens):
        token = tokens[i][0]
        if token in close:
            stack.append(close[token])
        elif token == stack[-1]:
            stack.pop()
        i += 1
    return i


def is_test_attribute(words):
    """Whether an attribute keeps its item out of normal builds: `test`, `cfg(test)`, `bench`."""
    if words[:1] in (["test"], ["bench"]):
        return True
    if words[:2] != ["cfg", "("]:
        return False
    inner = words[2:-1]
    if inner == ["test"]:
        return True
    # all(test, ..) never builds without test either.
    return inner[:2] == ["all", "("] and "test" in inner and "not" not in inner and "any" not in inner


def parse_use_tree(tokens, i, prefix):
    """Leaves of a use tree as (path, name or None for a glob); returns (leaves, next index)."""
    path, leaves = list(prefix), []
    while i < len(tokens):
        token = tokens[i][0]
        if token == "{":
            i += 1
            while i < len(tokens) and tokens[i][0] != "}":
                found, i = parse_use_tree(tokens, i, path)
                leaves += found
                if i < len(tokens) and tokens[i][0] == ",":
                    i += 1
            return leaves, i + 1
        if token == "*":
            return leaves + [(tuple(path), None)], i + 1
        if token == "::":
            i += 1
            continue
        if re.fullmatch(IDENT, token):
            if token == "as":
                name = tokens[i + 1][0]
                return leaves + [(tuple(path), name)], i + 2
            if token == "self" and path and path != ["self"]:
                pass
            else:
                path.append(token)
            i += 1
            if i < len(tokens) and tokens[i][0] in ("::", "as"):
                continue
            return leaves + [(tuple(path), path[-1] if path else None)], i
        break
    return leaves + ([(tuple(path), path[-1])] if len(path) > len(prefix) else []), i


class Crate:
    def __init__(self, root):
        self.modules = {}
        self.root = root
        self.load((), root, root.parent)

    def load(self, path, file, directory):
        text = file.read_text(encoding="utf-8")
        module = self.modules[path] = Module(path, file)
        self.scan(module, tokens_of(strip_comments_and_strings(text)), directory, text.splitlines())

    def scan(self, module, tokens, directory, raw):
        i, skip, custom = 0, False, None
        while i < len(tokens):
            token, line = tokens[i]
            if token == "#":
                j = i + 1
                inner = j < len(tokens) and tokens[j][0] == "!"
                j += inner
                if j < len(tokens) and tokens[j][0] == "[":
                    end = skip_group(tokens, j)
                    words = [t for t, _ in tokens[j + 1 : end - 1]]
                    if is_test_attribute(words) and not inner:
                        skip = True
                    if words[:1] == ["path"]:
                        found = re.search(r'path\s*=\s*"([^"]+)"', raw[line - 1])
                        custom = found.group(1) if found else None
                    i = end
                    continue
            if skip:
                # The item that the attribute belongs to.
                skip = False
                while i < len(tokens) and tokens[i][0] == "#":
                    i = skip_group(tokens, i + 1)
                start = i
                if start < len(tokens) and tokens[start][0] == "pub":
                    start += 1
                    if start < len(tokens) and tokens[start][0] == "(":
                        start = skip_group(tokens, start)
                is_use = start < len(tokens) and tokens[start][0] == "use"
                while i < len(tokens) and tokens[i][0] not in ("{", ";"):
                    if tokens[i][0] in ("(", "["):
                        i = skip_group(tokens, i)
                    elif tokens[i][0] == "," and not is_use:
                        break  # a field, variant or argument
                    elif tokens[i][0] in ("}", ")"):
                        break
                    else:
                        i += 1
                if i < len(tokens) and tokens[i][0] == "{":
                    i = skip_group(tokens, i)
                    if is_use:
                        i += 1
                elif i < len(tokens) and tokens[i][0] in (";", ","):
                    i += 1
                custom = None
                continue
            if token == "mod" and i + 2 < len(tokens) and re.fullmatch(IDENT, tokens[i + 1][0]):
                name = tokens[i + 1][0]
                if tokens[i + 2][0] == ";":
                    self.child(module, name, directory, custom)
                    custom = None
                    i += 3
                    continue
                if tokens[i + 2][0] == "{":
                    end = skip_group(tokens, i + 2)
                    path = module.path + (name,)
                    inline = self.modules[path] = Module(path, module.file)
                    module.children.add(name)
                    self.scan(inline, tokens[i + 3 : end - 1], directory / name, raw)
                    i = end
                    continue
            if token == "use":
                public = i and (tokens[i - 1][0] == "pub" or tokens[i - 1][0] == ")")
                leaves, end = parse_use_tree(tokens, i + 1, ())
                for leaf, name in leaves:
                    target = self.absolute(module, leaf)
                    if target is None:
                        continue
                    if name is None:
                        module.globs.append(target)
                    elif name != "_":
                        module.exports.setdefault(name, target)
                    # A re-export is not a dependency: its users depend on the target.
                    module.uses.append((target, line, bool(public)))
                i = end
                continue
            if token in ("crate", "super", "self") and i + 2 < len(tokens) and tokens[i + 1][0] == "::":
                if i == 0 or tokens[i - 1][0] != "::":
                    path, j = [token], i + 1
                    while j + 1 < len(tokens) and tokens[j][0] == "::" and re.fullmatch(IDENT, tokens[j + 1][0]):
                        path.append(tokens[j + 1][0])
                        j += 2
                    target = self.absolute(module, tuple(path))
                    if target is not None:
                        module.uses.append((target, line, False))
                    i = j
                    continue
            if (
                re.fullmatch(IDENT, token)
                and i + 1 < len(tokens)
                and tokens[i + 1][0] == "::"
                and (i == 0 or tokens[i - 1][0] not in ("::", "."))
            ):
                # Inline path from a name in scope: resolved after all modules are loaded.
                path, j = [token], i + 1
                while j + 1 < len(tokens) and tokens[j][0] == "::" and re.fullmatch(IDENT, tokens[j + 1][0]):
                    path.append(tokens[j + 1][0])
                    j += 2
                module.uses.append((("?", *path), line, False))
                i = j
                continue
            if token in ("struct", "enum", "trait", "type", "fn", "const", "static", "union", "macro_rules"):
                at = i + 1
                if at < len(tokens) and tokens[at][0] in ("!", "mut", "fn", "unsafe"):
                    at += 1
                if at < len(tokens) and re.fullmatch(IDENT, tokens[at][0]):
                    module.items.add(tokens[at][0])
            i += 1

    def child(self, module, name, directory, custom):
        path = module.path + (name,)
        plain = name.removeprefix("r#")
        if custom:
            candidates = [(module.file.parent / custom, (module.file.parent / custom).parent)]
        else:
            candidates = [
                (directory / f"{plain}.rs", directory / plain),
                (directory / plain / "mod.rs", directory / plain),
            ]
        for file, below in candidates:
            if file.is_file():
                module.children.add(name)
                self.load(path, file, below)
                return
        print(f"warning: {module.file}: no file for mod {name}", file=sys.stderr)

    def absolute(self, module, path):
        """Path from the crate root, or ("?", ..) if it starts with a name in scope."""
        if not path:
            return None
        if path[0] == "crate":
            return path[1:]
        if path[0] in ("self", "super"):
            base, rest = list(module.path), list(path)
            if rest[0] == "self":
                rest.pop(0)
            while rest and rest[0] == "super":
                if not base:
                    return None
                base.pop()
                rest.pop(0)
            return tuple(base) + tuple(rest)
        return ("?", *path)

    def resolve(self, module, path, seen=()):
        """The module that defines what an absolute path names, or None for another crate."""
        if path[:1] == ("?",):
            name, rest = path[1], path[2:]
            if name in module.children:
                path = module.path + (name, *rest)
            elif name in module.exports and module.exports[name] != path:
                key = (module.path, name)
                if key in seen:
                    return None
                return self.resolve(module, module.exports[name] + rest, seen + (key,))
            else:
                return None
        at = self.modules[()]
        for index, name in enumerate(path):
            if name in at.children:
                at = self.modules[at.path + (name,)]
                continue
            rest = path[index:]
            key = (at.path, name)
            if name in at.items or key in seen:
                return at.path
            if name in at.exports:
                return self.resolve(at, at.exports[name] + tuple(rest[1:]), seen + (key,)) or None
            for glob in at.globs:
                target = self.resolve(at, glob, seen + (key,))
                if target is not None and self.defines(target, name):
                    return self.resolve(self.modules[target], target + tuple(rest), seen + (key,))
            return at.path
        return at.path

    def defines(self, path, name):
        module = self.modules[path]
        return name in module.items or name in module.children or name in module.exports

    def edges(self):
        """Module -> module -> first line."""
        graph = collections.defaultdict(dict)
        for module in self.modules.values():
            for path, line, public in module.uses:
                target = self.resolve(module, path)
                if target is None or target == module.path:
                    continue
                # A parent that re-exports an item of its child does not depend on it.
                if public and target[: len(module.path)] == module.path:
                    continue
                graph[module.path].setdefault(target, (module.file, line))
        return graph


def components(nodes, graph):
    """Strongly connected components (Tarjan, iterative)."""
    index, low, stack, on, found = {}, {}, [], set(), []
    for start in nodes:
        if start in index:
            continue
        work = [(start, iter(sorted(graph.get(start, {}))))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on.add(start)
        while work:
            node, rest = work[-1]
            for next_node in rest:
                if next_node not in index:
                    index[next_node] = low[next_node] = len(index)
                    stack.append(next_node)
                    on.add(next_node)
                    work.append((next_node, iter(sorted(graph.get(next_node, {})))))
                    break
                if next_node in on:
                    low[node] = min(low[node], index[next_node])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = set()
                    while True:
                        last = stack.pop()
                        on.remove(last)
                        part.add(last)
                        if last == node:
                            break
                    found.append(part)
    return found


def show(path):
    return "::".join(path) or "crate"


def packages():
    text = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    return json.loads(text)["packages"]


def crate_cycles():
    """Cycles between the crates of the workspace."""
    names = {package["name"] for package in packages()}
    graph = {
        package["name"]: {d["name"]: None for d in package["dependencies"] if d["name"] in names - {package["name"]}}
        for package in packages()
    }
    return [sorted(part) for part in components(sorted(names), graph) if len(part) > 1]


def workspace():
    """(crate name, kind, root file) of every library and binary."""
    for package in packages():
        for target in package["targets"]:
            if {"lib", "cdylib", "bin", "proc-macro"} & set(target["kind"]):
                kind = "bin" if "bin" in target["kind"] else "lib"
                yield package["name"], kind, pathlib.Path(target["src_path"])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--strict", action="store_true", help="count dependencies between a module and its submodules as well")
    arguments.add_argument("--edges", action="store_true", help="print the whole graph")
    arguments.add_argument("crates", nargs="*", metavar="CRATE", help="packages; all if none is given")
    arguments = arguments.parse_args()
    cycles = 0
    for name, kind, root in workspace():
        if arguments.crates and name not in arguments.crates:
            continue
        crate = Crate(root)
        graph = crate.edges()
        if arguments.edges:
            for source in sorted(graph):
                for target, (file, line) in sorted(graph[source].items()):
                    print(f"{name}: {show(source)} -> {show(target)}  {file.relative_to(ROOT)}:{line}")
        if not arguments.strict:
            # An edge between a module and an ancestor of it is part of how the module is split.
            for source in graph:
                for target in list(graph[source]):
                    if target[: len(source)] == source or source[: len(target)] == target:
                        del graph[source][target]
        parts = [part for part in components(sorted(crate.modules), graph) if len(part) > 1]
        cycles += len(parts)
        label = f"{name} ({kind}, {len(crate.modules)} modules)"
        print(f"{label}: {len(parts) or 'no'} cycle{'' if len(parts) == 1 else 's'}")
        for part in parts:
            print(f"  {', '.join(show(path) for path in sorted(part))}")
            for source in sorted(part):
                for target in sorted(part & graph.get(source, {}).keys()):
                    file, line = graph[source][target]
                    print(f"    {show(source)} -> {show(target)}  {file.relative_to(ROOT)}:{line}")
    between = [] if arguments.crates else crate_cycles()
    cycles += len(between)
    if not arguments.crates:
        print(f"between crates: {len(between) or 'no'} cycle{'' if len(between) == 1 else 's'}")
    for part in between:
        print(f"  {', '.join(part)}")
    return 1 if cycles else 0


if __name__ == "__main__":
    sys.exit(main())
