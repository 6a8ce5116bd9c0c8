"""The modules of this library that serving a model imports: they, and no others, are stored with it."""

import ast
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec, resolve_name
from pathlib import Path

import dagnn_core

PYFUNC_MODEL = Path(__file__).with_name("pyfunc_model.py")
"""The file that MLflow runs to load a version."""
_LIBRARY = dagnn_core.__name__


def copy_served_code(parts: Iterable[str], folder: Path) -> Path:
    """Copy the modules of this library that serving a model imports into a folder; return the package there.

    Args:
        parts: import paths of the model's encoders and network, the user's own among them.
        folder: where the package goes.
    """
    source = Path(dagnn_core.__file__).parent
    for file in served_files(parts):
        target = folder / file.relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder / source.name


def served_files(parts: Iterable[str]) -> set[Path]:
    """The files of this library that `PYFUNC_MODEL` and these parts import, and that their imports import in turn."""
    modules = {part.partition(":")[0] for part in parts}
    followed = {name: _folder_of(name) for name in {_LIBRARY, *(module.partition(".")[0] for module in modules)}}
    waiting, found = [*modules, *_imports("", PYFUNC_MODEL)], dict[str, Path]()
    while waiting:
        name = waiting.pop()
        file = _file_of(name, followed)
        if file and name not in found:
            found[name] = file
            waiting += [*_packages_above(name), *_imports(name, file)]
    return {file for name, file in found.items() if name.partition(".")[0] == _LIBRARY}


def _folder_of(top: str) -> Path | None:
    """The folder that holds a module or package; None where it has no file."""
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]


def _file_of(name: str, followed: Mapping[str, Path | None]) -> Path | None:
    """The file of a module; None where it is not followed, or the name is no module's."""
    folder = followed.get(name.partition(".")[0])
    if folder is None:
        return None
    path = folder.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _packages_above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _imports(name: str, file: Path) -> Iterator[str]:
    """Names that a module imports anywhere, functions included; `from a import b` gives both `a` and `a.b`."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in _run_nodes(ast.parse(file.read_bytes())):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield alias.name
                    if alias.name == _LIBRARY:  # any of its public names may follow
                        yield from map(_home_of, dagnn_core.__all__)
            case ast.ImportFrom(module=module, names=names, level=level):
                source = resolve_name("." * level + (module or ""), package)
                yield source
                for alias in names:
                    is_public = source == _LIBRARY and alias.name in dagnn_core.__all__
                    yield _home_of(alias.name) if is_public else f"{source}.{alias.name}"


def _home_of(public: str) -> str:
    """The module that defines a public name of this library."""
    return str(getattr(dagnn_core, public).__module__)


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _run_nodes(child)
