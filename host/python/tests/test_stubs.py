"""The type stubs have the names and the parameters of the module."""

import ast
import inspect
from pathlib import Path

import loftup
from loftup import _loftup

STUBS = ast.parse((Path(loftup.__file__).parent / "_loftup.pyi").read_text())
TYPES = {"Health", "Converted"}


def parameters(function):
    """Names and whether they can be left out, `*` before those that need a name."""
    arguments = function.args
    names = [a.arg for a in arguments.args if a.arg not in ("self", "cls")]
    needed = len(names) - len(arguments.defaults)
    result = [(name, i >= needed) for i, name in enumerate(names)]
    if arguments.kwonlyargs:
        result.append(("*", True))
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults)
    return result + [(a.arg, default is not None) for a, default in pairs]


def expected(function):
    result, star = [], False
    for p in inspect.signature(function).parameters.values():
        if p.name in ("self", "cls"):
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            result.append(("*", True))
            star = True
        result.append((p.name, p.default is not p.empty))
    return result


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_stubs_match():
    definitions = {n.name: n for n in STUBS.body if hasattr(n, "name")}
    assert public(definitions) - TYPES == public(dir(_loftup)) - {"NO_CLASS"}
    assert set(loftup.__all__) == public(dir(_loftup)) | {"__version__"}
    for name, node in definitions.items():
        if isinstance(node, ast.FunctionDef):
            assert parameters(node) == expected(getattr(_loftup, name)), name
        elif name not in TYPES | {"LoftupError"}:
            kind = getattr(_loftup, name)
            methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
            assert public(methods) == public(dir(kind)), name
            for method, stub in methods.items():
                found = kind if method == "__new__" else getattr(kind, method)
                if any(getattr(d, "id", "") == "property" for d in stub.decorator_list):
                    assert inspect.isdatadescriptor(found) and found.__doc__, (name, method)
                elif method != "__call__":  # A slot, whose parameters Python does not tell.
                    assert parameters(stub) == expected(found), (name, method)


def test_everything_is_documented():
    for name in loftup.__all__:
        assert name in ("NO_CLASS", "__version__") or getattr(loftup, name).__doc__, name
