"""The house's rules, read off the source: who may import whom, what the lower floors may do, how long things may be."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS: tuple[tuple[int, str], ...] = (
    (0, r"errors|version|parameters|robust|registry|priors(\..+)?"),
    (0, r"keypoints|keypoints\.(conventions(\..+)?|containers|face_mesh)"),
    (1, r"camera|body|scene|energy|problem|size|placement|chart|uncertainty|solvers(\..+)?"),
    (2, r"models(\..+)?|rendering(\..+)?|regression(\..+)?"),
    (3, r"(terms|initialisers)(\..+)?"),
    (4, r"fitting"),
    (5, r"recipe|results|training(\..+)?|viewers(\..+)?|distributed(\..+)?|configs(\..+)?"),
    (5, r"keypoints\..+"),
    (5, r"people|shared_focal|streaming|model_files|prior_files|regressor_files|files|result_files"),
    (5, r"output_folders|meshes|pictures|progress|paths"),
    (6, r"api|cli|train_commands|photo_run|fit_options|fit_photos|detect_photos|installed|__main__|"),
)
"""Floor of each module below `fitkit`, by the first pattern that fits its whole name; "" is `fitkit` itself."""

PURE_TORCH = {
    "solvers": {"errors", "registry", "solvers"},
    "priors": {"errors", "registry", "priors"},
}
"""Rooms that know torch (and roma, its rotations) alone, and the rooms of fitkit that they may import."""

TORCH_AND_ITS_LIKE = {"torch", "roma", "numpy", "jaxtyping"}

FORBIDDEN_BELOW_FLOOR_5 = {
    r"open|print|input": "open a file or talk to the user",
    r"(.+\.)?(read_text|read_bytes|write_text|write_bytes)": "read or write a file",
    r"(np|numpy)\.(load|save|savez|savez_compressed|loadtxt|savetxt|genfromtxt|fromfile|memmap)": "open a file",
    r"torch\.(load|save)|json\.(load|dump)|pickle\.(load|dump)|yaml\..*load.*": "open a file",
    r"os\.(environ|getenv|putenv)(\..*)?": "read the environment",
    r"sys\.(stdout|stderr|stdin|argv)(\..*)?": "talk to the user",
    r"cv2\.(imread|imwrite|imshow)|(PIL\.)?Image\.open": "open a file",
}
"""Names that floors 0 to 4 never use, and what that would be."""

FORBIDDEN_IMPORTS_BELOW_FLOOR_5 = {"matplotlib", "click", "rich", "tqdm", "argparse", "tempfile", "shutil"}

EXCEPTIONS = {
    ("rendering.opengl", "os.environ"): "PyOpenGL takes its platform from the environment and from nowhere else",
}
"""(module, start of the name) -> why it may."""

KEYWORDS_ACROSS_MODULES: dict[str, str] = {
    "cli.fit": "click calls it with one keyword per option, and they go on to a dataclass that checks them",
    "train_commands.initialiser": "the same",
}
"""module.function -> why it may take **kwargs."""

MANY_ARGUMENTS = {
    "api.fit": "what users call: one name for each choice they can make",
    "api.fit_stream": "what users call: one name for each choice they can make",
    "api.detect": "what users call: one name for each choice they can make",
}
"""module.function -> why it may take more than six arguments; commands take one per option."""

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
MOST_ARGUMENTS = 6


@dataclass(frozen=True)
class Module:
    """A source file of the package, parsed."""

    name: str
    """Dotted name below `fitkit`; "" for `fitkit` itself."""
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @cached_property
    def floor(self) -> int | None:
        return next((floor for floor, pattern in FLOORS if re.fullmatch(pattern, self.name)), None)

    def at(self, node: ast.AST | None = None) -> str:
        """Return "file:line", with the real file behind a link."""
        line = getattr(node, "lineno", 1)
        return f"{self.path.resolve().relative_to(ROOT)}:{line}"

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Yield each function and method with its name in the module."""
        yield from _functions(self.tree, "")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


@lru_cache
def modules() -> tuple[Module, ...]:
    """Return all modules of the package, those behind links under their import names."""
    found = []
    for folder, folders, files in os.walk(ROOT / "fitkit", followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for file in sorted(files):
            if file.endswith(".py"):
                path = Path(folder, file)
                parts = path.relative_to(ROOT / "fitkit").with_suffix("").parts
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                found.append(Module(".".join(parts), path))
    return tuple(found)


@lru_cache
def names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield every import of a module, wherever in the file: its node and the dotted name of the *module* imported."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                is_module = longer.startswith("fitkit.") and longer.removeprefix("fitkit.") in names()
                yield node, longer if is_module else node.module


def own_imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield the imports of fitkit's own modules, by their names below `fitkit`."""
    for node, name in imports(module):
        if name == "fitkit" or name.startswith("fitkit."):
            yield node, name.removeprefix("fitkit").removeprefix(".")


def floor_of(name: str) -> int | None:
    return next((floor for floor, pattern in FLOORS if re.fullmatch(pattern, name)), None)


def dotted(node: ast.AST) -> str:
    """Return "a.b.c" of nested attributes, with "?" for anything that is not a name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def report(offences: list[str]) -> None:
    assert not offences, "\n" + "\n".join(offences)


def each_module(keep=lambda module: True):
    chosen = [module for module in modules() if keep(module)]
    return pytest.mark.parametrize("module", chosen, ids=[module.name or "fitkit" for module in chosen])


lower_floors = each_module(lambda module: module.floor is not None and module.floor <= 4)


@each_module()
def test_every_module_has_a_floor(module):
    assert module.floor is not None, f"{module.at()}: give fitkit.{module.name} a floor in {Path(__file__).name}"


@each_module()
def test_imports_go_downward(module):
    offences = []
    for node, name in own_imports(module):
        floor = floor_of(name)
        if floor is None or (module.floor is not None and floor > module.floor):
            offences.append(f"{module.at(node)}: floor {module.floor} imports fitkit.{name}, floor {floor}")
    report(offences)


@each_module(lambda module: module.name.split(".")[0] in PURE_TORCH)
def test_solvers_and_priors_know_torch_alone(module):
    allowed = PURE_TORCH[module.name.split(".")[0]]
    offences = []
    for node, name in imports(module):
        top, _, rest = name.partition(".")
        fine = rest.split(".")[0] in allowed if top == "fitkit" else top in TORCH_AND_ITS_LIKE | sys.stdlib_module_names
        if not fine:
            offences.append(f"{module.at(node)}: imports {name}; allowed: torch and fitkit's {sorted(allowed)}")
    report(offences)


def registries() -> dict[str, set[str]]:
    """Return, for each `Registry("kind", {...})` in the source, the modules that its entries name."""
    tables = {}
    for module in modules():
        for node in ast.walk(module.tree):
            is_table = isinstance(node, ast.Call) and dotted(node.func).endswith("Registry") and len(node.args) == 2
            if is_table and isinstance(node.args[0], ast.Constant) and isinstance(node.args[1], ast.Dict):
                targets = [value.value for value in node.args[1].values if isinstance(value, ast.Constant)]
                tables[f"{module.name}: {node.args[0].value}"] = {target.partition(":")[0] for target in targets}
    return tables


def test_no_plug_in_imports_its_sibling():
    by_name = {f"fitkit.{module.name}": module for module in modules()}
    offences = []
    for table, plug_ins in registries().items():
        for module in (by_name[name] for name in plug_ins if name in by_name):
            for node, name in own_imports(module):
                if f"fitkit.{name}" in plug_ins - {f"fitkit.{module.name}"}:
                    offences.append(f"{module.at(node)}: imports its sibling fitkit.{name} (both in {table})")
    report(offences)


def test_every_registry_names_modules_that_exist():
    known = {f"fitkit.{name}" for name in names()}
    offences = [
        f"{table}: {target} does not exist"
        for table, targets in registries().items()
        for target in sorted(targets)
        if target.startswith("fitkit.") and target not in known
    ]
    report(offences)


@lower_floors
def test_lower_floors_touch_no_file_terminal_or_environment(module):
    offences = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute | ast.Call):
            continue
        name = dotted(node.func if isinstance(node, ast.Call) else node)
        if any(module.name == where and name.startswith(start) for where, start in EXCEPTIONS):
            continue
        for pattern, deed in FORBIDDEN_BELOW_FLOOR_5.items():
            if re.fullmatch(pattern, name):
                offences.append(f"{module.at(node)}: {name}: floors 0 to 4 never {deed}")
    for node, name in imports(module):
        if name.split(".")[0] in FORBIDDEN_IMPORTS_BELOW_FLOOR_5:
            offences.append(f"{module.at(node)}: imports {name}: floors 0 to 4 never read, print or plot")
    report(sorted(set(offences)))


@each_module()
def test_imports_are_absolute_and_name_what_they_take(module):
    offences = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                offences.append(f"{module.at(node)}: relative import; write `from fitkit.x import y`")
            if any(alias.name == "*" for alias in node.names):
                offences.append(f"{module.at(node)}: star import")
            if node.module and node.module.split(".")[0] in {"priors", "keypoints", "configs"}:
                offences.append(f"{module.at(node)}: import it as fitkit.{node.module}")
    report(offences)


@each_module()
def test_modules_and_functions_are_short(module):
    offences = []
    lines = len(module.text.splitlines())
    if lines > LONGEST_MODULE:
        offences.append(f"{module.at()}: {lines} lines; split modules above {LONGEST_MODULE}")
    for name, function in module.functions():
        length = (function.end_lineno or function.lineno) - function.lineno + 1 - _docstring_lines(function)
        if length > LONGEST_FUNCTION:
            offences.append(f"{module.at(function)}: {name} has {length} lines; split above {LONGEST_FUNCTION}")
    report(offences)


def _docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0


@each_module()
def test_functions_say_what_they_take(module):
    offences = []
    for name, function in module.functions():
        arguments = function.args
        full_name = f"{module.name}.{name}"
        if arguments.kwarg and full_name not in KEYWORDS_ACROSS_MODULES:
            offences.append(f"{module.at(function)}: {name} takes **{arguments.kwarg.arg}; name the arguments")
        count = len([a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg != "self"])
        is_command = module.name in ("cli", "train_commands") and function.decorator_list
        if count > MOST_ARGUMENTS and full_name not in MANY_ARGUMENTS and not is_command:
            offences.append(f"{module.at(function)}: {name} takes {count} arguments; above six, a type is missing")
    report(offences)


@each_module()
def test_names_say_what_things_are(module):
    offences = []
    if re.fullmatch(r"utils?|helpers?|misc|common", module.path.stem):
        offences.append(f"{module.at()}: no {module.path.name}; name it after its one idea")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Utils")):
            offences.append(f"{module.at(node)}: class {node.name}; say what it is")
    report(offences)


@each_module()
def test_every_public_dataclass_field_has_a_docstring(module):
    offences = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or dotted(field.target).startswith("_"):
                continue
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not documented:
                offences.append(f"{module.at(field)}: {node.name}.{dotted(field.target)} has no docstring under it")
    report(offences)


def test_no_two_modules_import_each_other_at_the_top():
    graph = {
        module.name: {name for node, name in own_imports(module) if node in module.tree.body and name != module.name}
        for module in modules()
    }
    seen: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join((*trail[trail.index(name) :], name))
        if name not in seen:
            for other in sorted(graph.get(name, ())):
                walk(other, (*trail, name))
            seen.add(name)

    for name in sorted(graph):
        walk(name, ())


def test_every_folder_with_modules_is_a_package():
    offences = [
        f"{module.path.parent.relative_to(ROOT)}: has no __init__.py, so it would not be installed"
        for module in modules()
        if not (module.path.parent / "__init__.py").exists()
    ]
    report(sorted(set(offences)))


def test_a_forbidden_import_is_named_with_its_line(tmp_path, monkeypatch):
    """The rules bite: a module of floor 1 that imports the command line is found."""
    path = tmp_path / "camera.py"
    path.write_text("import math\n\nfrom fitkit.cli import main\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    with pytest.raises(AssertionError, match=r"camera\.py:3: floor 1 imports fitkit\.cli, floor 6"):
        test_imports_go_downward(Module("camera", path))


@each_module()
def test_protocols_can_be_checked_under_test(module):
    offences = [
        f"{module.at(node)}: {node.name} needs @runtime_checkable; shapes and types are checked in every test"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and any(dotted(base).endswith("Protocol") for base in node.bases)
        and "runtime_checkable" not in map(ast.unparse, node.decorator_list)
    ]
    report(offences)
