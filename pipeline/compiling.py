"""The pipeline as a file that a cluster takes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from dagnn_core.errors import InputError
from pipeline.graph import RawData, Shape, build_pipeline
from pipeline.images import Images, pullable
from pipeline.target import Target


def find_raw_data(data: str, revision: str) -> RawData:
    """Where the tasks find raw data.

    Args:
        data: a path under DVC in the repository of the current folder, or `s3://bucket/prefix` of a folder.
        revision: branch, tag or commit, of data under DVC.

    Raises:
        InputError: the revision has no such data, or its remote is no S3 store.
        SurroundingsError: the repository cannot be read.
    """
    from components.services.versioning import resolve

    if data.startswith("s3://"):
        return RawData(uri=data)
    version = resolve(".", revision, data)
    found = version.lineage
    if not version.is_plain_s3:
        raise InputError(
            f"the DVC remote of {data} is {found.remote or 'not set'}, expected s3://..., configured by url and "
            "endpointurl alone, so that tasks can fetch from it; run `dvc remote add -d storage s3://BUCKET/dvc`"
        )
    return RawData(
        md5=found.md5,
        remote=found.remote,
        endpoint_url=version.endpoint_url,
        repository=found.repository,
        revision=found.commit,
        path=found.path,
    )


def write_pipeline(
    out: Path,
    *,
    images: Images,
    params: Mapping[str, object],
    target: Target,
    shape: Shape = Shape(),  # noqa: B008  # frozen
    kubernetes_native: bool = False,
) -> None:
    """Compile the pipeline; equal arguments give equal bytes.

    Args:
        out: the YAML file.
        images: references by digest.
        params: the sections of `params.yaml`.
        target: the cluster.
        shape: what else the graph has.
        kubernetes_native: write the custom resources `Pipeline` and `PipelineVersion`, for `kubectl apply`.

    Raises:
        InputError: an image without digest, or `out` is no YAML file. Nothing is written then.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"{out}: a compiled pipeline is a YAML file, expected a name that ends in .yaml")
    pipeline = build_pipeline(images=pullable(images), params=params, target=target, shape=shape)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.partial.yaml")  # kfp looks at the ending
    Compiler().compile(pipeline, package_path=str(partial))
    if kubernetes_native:
        # a version never changes, so each content has a name of its own
        name = f"{pipeline.name}-{hashlib.sha256(partial.read_bytes()).hexdigest()[:12]}"
        options = KubernetesManifestOptions(pipeline_version_name=name, include_pipeline_manifest=True)
        Compiler().compile(
            pipeline,
            package_path=str(partial),
            kubernetes_manifest_format=True,
            kubernetes_manifest_options=options,
        )
    partial.replace(out)
