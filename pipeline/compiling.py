"""The pipeline as a file that a cluster takes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from pipeline.graph import PipelineOptions, build_pipeline
from pipeline.images import Images, pullable
from pipeline.target import Target
from pipeline.trainer.manifests import check_nodes


def write_pipeline(
    out: Path,
    *,
    images: Images,
    params: Mapping[str, object],
    target: Target,
    options: PipelineOptions = PipelineOptions(),  # noqa: B008  # frozen
    kubernetes_native: bool = False,
) -> None:
    """Compile the pipeline; equal arguments give equal bytes.

    Args:
        out: the YAML file.
        images: references by digest.
        params: the sections of `params.yaml`.
        target: the cluster.
        options: what else the graph has.
        kubernetes_native: write the custom resources `Pipeline` and `PipelineVersion`, for `kubectl apply`.

    Raises:
        InputError: an image without digest, `out` is no YAML file, or the target cannot train on as many nodes as it
            says. Nothing is written then.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"{out}: a compiled pipeline is a YAML file, expected a name that ends in .yaml")
    train = params["train"]
    assert isinstance(train, TrainConfig)
    check_nodes(target, train)
    pipeline = build_pipeline(images=pullable(images), params=params, target=target, options=options)
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
