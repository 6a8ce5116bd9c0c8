"""Write the code dependencies of the stages in `dvc.yaml`: the modules that each stage imports.

`python infra/dvc_deps.py` writes them, `--check` only compares, with exit status 1 where there is a difference. A
module that takes a table of import paths from `dagnn_core.config` imports what is in the table.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import grimp
from ruamel.yaml import YAML

from dagnn_core.registry import IMPORT_PATH

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("components", "dagnn_core", "examples", "pipeline")
DVC = ROOT / "dvc.yaml"


def import_graph() -> grimp.ImportGraph:
    """Imports of all modules, those by way of a table of import paths included."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    trees = {module: ast.parse(file_of(module).read_text(encoding="utf-8")) for module in graph.modules}
    tables = {
        (module, target.id): _import_paths(node)
        for module, tree in trees.items()
        if module.startswith("dagnn_core.config.")
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    for imported in tables.get((node.module, alias.name), set()) & graph.modules:
                        graph.add_import(importer=module, imported=imported)
    return graph


def dependencies(graph: grimp.ImportGraph, module: str) -> list[str]:
    """Files that a module needs, relative to the root; a package that is needed whole stands for its files."""
    files = {file_of(name) for name in graph.find_upstream_modules(module) | {module}}
    files = {file for file in files if _has_code(file)}
    for folder in sorted({file.parent for file in files}, key=lambda path: len(path.parts)):
        below = set(folder.rglob("*.py"))
        substance = {file for file in below if _has_code(file)}
        if len(substance) > 1 and substance <= files:
            files = files - below | {folder}
    return sorted(str(file.relative_to(ROOT)) for file in files)


def file_of(module: str) -> Path:
    """The file of a module."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _has_code(file: Path) -> bool:
    return len(ast.parse(file.read_text(encoding="utf-8")).body) > 1  # more than a docstring


def _import_paths(node: ast.AST) -> set[str]:
    texts = (
        entry.value for entry in ast.walk(node) if isinstance(entry, ast.Constant) and isinstance(entry.value, str)
    )
    return {text.partition(":")[0] for text in texts if IMPORT_PATH.fullmatch(text)}


def main() -> int:
    """Write, or compare."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(DVC.read_text(encoding="utf-8"))
    graph = import_graph()
    different = []
    for name, stage in content["stages"].items():
        module = stage["cmd"].split()[2]
        others = [dep for dep in stage["deps"] if dep.partition("/")[0] not in PACKAGES]
        wanted = others + dependencies(graph, module)
        if list(stage["deps"]) != wanted:
            different.append(name)
            stage["deps"][:] = wanted
    if "--check" in sys.argv[1:]:
        for name in different:
            print(f"dvc.yaml: the deps of the stage {name} are not what it imports; run `make dvc-deps`")
        return 1 if different else 0
    if different:
        with DVC.open("w", encoding="utf-8") as stream:
            yaml.dump(content, stream)
    print(f"dvc.yaml: {'wrote the deps of ' + ', '.join(different) if different else 'nothing to write'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
