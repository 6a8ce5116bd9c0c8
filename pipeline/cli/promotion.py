"""`dagnn promote --target`: the promotion on a Kubeflow cluster."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.section import section_json
from dagnn_core.errors import CheckFailedError
from dagnn_core.redaction import redact
from dagnn_core.text import cell
from pipeline.cli.cluster import follow_run

if TYPE_CHECKING:
    from pipeline.kubeflow.client import Kubeflow
    from pipeline.target import Target


class PromotionPlace(NamedTuple):
    """Where a promotion runs, and in what."""

    server: "Kubeflow"
    target: "Target"
    image: str | None
    """For all tasks; None: those in `infra/images.json`."""
    service_account: str | None
    """Of the tasks' pods; None: Kubeflow's."""
    any_commit: bool
    """Accept images of another commit than the checkout's."""


def promote_there(
    config: RegisterConfig,
    place: PromotionPlace,
    *,
    name: str,
    version: str | None,
    reason: str,
    adopt: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit the promotion; with `wait`, follow it and say what the gate decided.

    Args:
        config: the section `register`.
        place: where it runs.
        name: name of the registered model.
        version: the version; None for the one with alias `challenger`.
        reason: the user's own words, for the record.
        adopt: accept an alias that somebody has moved by hand.
        wait: follow the run.
        as_json: print one JSON object.

    Raises:
        CheckFailedError: the run failed, or the gate refused the version.
        InputError: no such version, it does not say where its data set is, or something else is wrong.
        BackendError: a server failed.
    """
    from components.services.lineage.provenance import git_state
    from components.services.tracking.mlflow import Tracking
    from pipeline.cluster import require_named
    from pipeline.images import Images, check_commit, read_images
    from pipeline.placeholders import refuse_placeholders
    from pipeline.promotion import DESCRIPTION, PIPELINE, find_stored_dataset, read_verdict, write_promotion
    from pipeline.submit import Job, connect, submit, version_name
    from pipeline.target import plugins_input

    refuse_placeholders({"NAME": name, "--reason": reason, "--image": place.image})
    images = Images(tasks=place.image, train=place.image) if place.image else read_images()
    git = git_state()
    if not place.image and not place.any_commit:
        check_commit(git["commit"])
    tracking = Tracking.from_environment()
    number, uri = find_stored_dataset(tracking, name=name, version=version)
    require_named(place.server.namespace, place.target)
    server = connect(place.server)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "promotion.yaml"
        write_promotion(package, images=images, target=place.target)
        job = Job(
            package=package,
            pipeline=PIPELINE,
            description=DESCRIPTION,
            version=version_name(package, git),
            experiment="dagnn",
            run=f"promote {name} {number} {datetime.now(tz=UTC):%Y-%m-%d %H:%M:%S}",
            arguments={
                "name": name,
                "version": number,
                "dataset_uri": uri,
                "register": section_json(config),
                "reason": redact(reason),
                "adopt": "yes" if adopt else "",
            },
            service_account=place.service_account,
            pipeline_root=place.target.pipeline_root,
            plugins_input=plugins_input(place.target),
        )
        run_id = submit(server, job).run_id
    facts = {"model": name, "version": number, "dataset": uri, "run": job.run, "run_id": run_id}
    facts["page"] = server.page(f"runs/details/{run_id}") or None
    if not as_json:
        typer.echo("\n".join(f"{key:8} {cell(value)}" for key, value in facts.items() if value))
    decision = None
    if wait and run_id:
        follow_run(server, run_id)
        decision = read_verdict(tracking, name=name, version=number, run_id=run_id)
    if as_json:
        typer.echo(json.dumps(facts | (decision._asdict() if decision else {})))
    elif decision and decision.accepted:
        typer.echo(f"champion: version {number} ({decision.reason})")
    if decision and not decision.accepted:
        raise CheckFailedError(f"{name} version {number} is not promoted: {decision.reason}")
