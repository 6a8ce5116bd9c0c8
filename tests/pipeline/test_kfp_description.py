"""The contract that the tests take from the installed package is the one of the official file."""

from typing import Any

import pytest

from tests.pipeline.kfp_description import (
    OFFICIAL_FILE,
    Agreement,
    Description,
    Json,
    Refusal,
    read_official_file,
    read_package,
)

NOT_COMPARED = ("title", "description", "format", "default", "readOnly")


def operations(spec: Json) -> dict[str, tuple[str, str, list[tuple[str, str]], Any]]:
    """Path, method, parameters and schema of the answer, by operation."""
    return {
        operation["operationId"]: (
            path,
            method,
            sorted((entry["name"], entry["in"]) for entry in operation.get("parameters", [])),
            comparable(operation["responses"]["200"]["schema"]),
        )
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    }


def comparable(schema: Any) -> Any:
    """Without texts, and where the package writes otherwise: names with a capital; any JSON and any object are one."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return schema["$ref"].lower()
    kept = {key: comparable(value) for key, value in schema.items() if key not in NOT_COMPARED}
    return {} if kept in ({"type": "object"}, {"type": "object", "properties": {}}) else kept


def fields(spec: Json) -> dict[tuple[str, str], Any]:
    """Schemas of all fields, by model and name; those of enumerations by the model alone."""
    return {
        (model.lower(), name): comparable(value)
        for model, schema in spec["definitions"].items()
        for name, value in schema.get("properties", {"": schema}).items()
    }


@pytest.mark.skipif(not OFFICIAL_FILE.is_file(), reason="the official OpenAPI file is not at ../shared/data/kfp_api")
def test_the_package_describes_what_the_official_file_does() -> None:
    package, official = read_package(), read_official_file()
    assert operations(package).keys() == operations(official).keys()
    differing = {name for name, entry in operations(official).items() if operations(package)[name] != entry}
    assert differing == {"UploadPipeline", "UploadPipelineVersion"}  # the newer file has `code_source_url`, too
    known = fields(package)
    assert {field: known.get(field) for field in fields(official)} == fields(official)


def test_a_description_knows_the_models_behind_references() -> None:
    judge = Description(read_package())
    body = {"trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}}, "mode": "ENABLE"}
    judge.judge(body, {"$ref": "#/definitions/V2beta1RecurringRun"})
    with pytest.raises(Refusal, match="trigger/cron_schedule: Additional properties are not allowed"):
        judge.judge({"trigger": {"cron_schedule": {"minute": 3}}}, {"$ref": "#/definitions/V2beta1RecurringRun"})


def test_what_two_descriptions_do_not_agree_on_is_refused() -> None:
    other = read_package()
    del other["definitions"]["V2beta1Run"]["properties"]["state"]
    judge = Agreement(Description(read_package()), Description(other))
    judge.judge_answer("RunService_GetRun", 200, {"run_id": "1"})
    with pytest.raises(Refusal, match=r"do not agree: None \| Refusal.*'state' was unexpected"):
        judge.judge_answer("RunService_GetRun", 200, {"state": "RUNNING"})
