"""Raw data that a run begins with: which version, and where its tasks find it."""

import logging
import os
from pathlib import Path

from components.git import try_git
from dagnn_core.errors import InputError
from dagnn_core.redaction import without_credentials
from pipeline.graph import RawDataVersion
from pipeline.target import Target, is_loopback

log = logging.getLogger(__name__)


def find_raw_data(
    data: str, *, target: Target, revision: str, repository: str = ".", check_pushed: bool = False
) -> RawDataVersion:
    """Where the tasks find raw data: by digest in a DVC remote, or in a folder in S3 as it is.

    The endpoint that DVC's configuration or the environment names serves the check from here. Tasks get the target's;
    where the target names none, they get this one, too.

    Args:
        data: a path under DVC in the repository; or `s3://bucket/prefix`, which no repository knows.
        target: the cluster.
        revision: branch, tag or commit.
        repository: a local path or a git URL.
        check_pushed: check that the remote, or the folder, has the data.

    Raises:
        InputError: repository, revision or path do not exist, the data is not under DVC or was never pushed, or the
            remote is not S3; the folder is empty or its bucket does not exist; the only endpoint that is known is a
            loopback address.
        BackendError: repository or store cannot be reached.
    """
    from components.services.data_versions import s3_remote as dvc_store
    from components.services.data_versions.repository import resolve
    from components.services.storage.s3 import Storage

    if data.startswith("s3://"):
        endpoint_url = _endpoint_of_tasks(target, "")
        if check_pushed and not Storage().names_below(data):
            raise InputError(f"{data} has no files, expected raw data", "check bucket and prefix")
        return RawDataVersion(uri=data, endpoint_url=endpoint_url)
    found = resolve(repository, revision, data)
    lineage = found.lineage
    if not lineage.remote.startswith("s3://"):
        raise InputError(
            f"the DVC remote of {data!r} at {revision} is {lineage.remote or 'not set'}, expected s3://bucket/prefix, "
            "from which tasks fetch without git or DVC",
            "set it with `dvc remote add --default`, and commit .dvc/config",
        )
    endpoint_url = _endpoint_of_tasks(target, found.endpoint_url)
    if check_pushed:
        lineage = dvc_store.check_pushed(Storage(endpoint_url=found.endpoint_url), lineage)
        log.info("%s has %s: %d files, %.1f MB", lineage.remote, lineage.md5, lineage.num_files, lineage.size / 1e6)
    return RawDataVersion(
        md5=lineage.md5,
        remote=lineage.remote,
        endpoint_url=endpoint_url,
        repository=_origin(lineage.repository),
        revision=lineage.commit,
        path=lineage.path,
    )


def _endpoint_of_tasks(target: Target, endpoint_here: str) -> str:
    """The store as tasks reach it.

    Args:
        target: the cluster.
        endpoint_here: what DVC's configuration names; empty: the environment decides.
    """
    here = endpoint_here or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    url = without_credentials(target.data_endpoint_url or target.s3_endpoint_url or here)
    if is_loopback(url):
        raise InputError(
            f"the store of the raw data is {url} on this machine, which tasks on a cluster cannot reach",
            "set s3_endpoint_url of the target, or data_endpoint_url where the data has a store of its own",
        )
    return url


def _origin(repository: str) -> str:
    """Where a local repository was cloned from, if anywhere: its path means nothing on a cluster."""
    if not Path(repository).is_dir():
        return repository
    return without_credentials(try_git(Path(repository), "remote", "get-url", "origin") or repository)
