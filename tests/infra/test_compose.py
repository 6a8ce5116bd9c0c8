"""infra/compose.yaml: parsed as YAML, since the compose plugin is not everywhere; checked by it where it is."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

INFRA = Path(__file__).parents[2] / "infra"
TEXT = (INFRA / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = YAML(typ="safe").load(TEXT)
EXAMPLE = {line.split("=")[0]: line for line in (INFRA / "compose.example.env").read_text().splitlines() if "=" in line}


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
def test_compose_accepts_it(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("".join(f"{name}=some-value\n" for name in EXAMPLE))
    command = [
        "docker",
        "compose",
        "--env-file",
        str(tmp_path / "env"),
        "--file",
        str(INFRA / "compose.yaml"),
        "config",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_names_every_setting_and_holds_no_value() -> None:
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT)) == set(EXAMPLE)
    assert all(line.endswith("=") for line in EXAMPLE.values())


def test_every_service_is_confined() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name


def test_ports_are_open_on_this_machine_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_named_exists() -> None:
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(volumes)
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert re.search(r":(?!latest)\S+$", service["image"])
