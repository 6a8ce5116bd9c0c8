"""Output of other programs is read alike whatever the locale: as UTF-8, and never refused."""

import ast

import pytest

from tests.fixtures.locations import ROOT

PACKAGES = ("dagnn_core", "components", "pipeline", "infra", "docs", "examples")
STARTS = {"run", "Popen", "call", "check_call", "check_output"}


def faults(source: str) -> list[str]:
    """Starts of programs whose text depends on the locale, with their line."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        module, name = ast.unparse(call.func.value), call.func.attr
        given = {keyword.arg for keyword in call.keywords}
        if (module, name) in {("os", "popen"), ("os", "system"), ("subprocess", "getoutput")}:
            found.append(f"line {call.lineno}: {module}.{name} reads by the locale")
        elif module == "subprocess" and name in STARTS:
            if given & {"text", "universal_newlines"}:
                found.append(f"line {call.lineno}: text=True reads by the locale; write encoding and errors")
            if "encoding" in given and "errors" not in given:
                found.append(f"line {call.lineno}: encoding without errors fails at the first odd byte")
    return found


def test_every_program_is_read_as_utf8() -> None:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert sum("subprocess." in path.read_text(encoding="utf-8") for path in files) >= 4
    assert [f"{path}: {fault}" for path in files for fault in faults(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(c, text=True)",
        "subprocess.Popen(c, universal_newlines=True)",
        "subprocess.check_output(c, encoding='utf-8')",
        "os.popen(c)",
    ],
)
def test_what_depends_on_the_locale_is_found(source: str) -> None:
    assert len(faults(source)) == 1
    assert faults("subprocess.run(c, encoding='utf-8', errors='replace')\nsubprocess.run(c)") == []
