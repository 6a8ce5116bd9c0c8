"""Runs the pods of TrainJobs as processes of this machine: the commands of their containers, with their variables.

Each pod has a folder of its own as `/tmp`. All else is as Trainer 2.3 does it: the variables PET_... (but for the
address of the first node), a container after the other, all nodes again after one has failed, until their number of
restarts is used up.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.fixtures.locations import ROOT
from tests.fixtures.mlflow_server import free_port
from tests.pipeline.trainer_server import Json, Pod, TrainerServer

NODE = "pipeline.trainer.node"


class Kubelet:
    """The nodes of the jobs of a server.

    Args:
        server: the API; it is told what becomes of the pods.
        folder: holds a folder for each pod.
        secrets: name and key of a secret -> its value.
        variables: of all processes, beside those of their containers.
    """

    def __init__(
        self, server: TrainerServer, folder: Path, secrets: Mapping[tuple[str, str], str], variables: Mapping[str, str]
    ) -> None:
        self._server, self._folder, self._secrets, self._variables = server, folder, secrets, variables
        self._gone: set[str] = set()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        """By pod: of the container that runs."""
        self.program = NODE
        """What the nodes run in place of `NODE`."""
        self.attempts: list[list[Pod]] = []
        """The pods of each attempt."""
        server.on_job, server.on_gone = self._start, self._stop
        self._threads: list[threading.Thread] = []

    def join(self) -> None:
        """Wait until nothing runs any more."""
        for thread in self._threads:
            thread.join(timeout=120)
            assert not thread.is_alive()

    def kill(self, pod: Pod) -> None:
        """Lose the node of a pod; the processes of torchrun are in sessions of their own."""
        process = psutil.Process(self.processes[pod.name].pid)
        for each in (process, *process.children(recursive=True)):
            each.kill()

    def _start(self, job: Json) -> None:
        thread = threading.Thread(target=self._run, args=(job["metadata"]["name"],), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _stop(self, name: str) -> None:
        self._gone.add(name)
        self._end_processes()

    def _end_processes(self) -> None:
        for process in list(self.processes.values()):
            with suppress(ProcessLookupError):
                process.terminate()

    def _run(self, name: str) -> None:
        runtime = self._server.objects["trainingruntimes", name]["spec"]["template"]["spec"]
        (node,) = runtime["replicatedJobs"]
        assert node["name"] == "node" and node["template"]["spec"]["backoffLimit"] == 0
        template = node["template"]["spec"]["template"]
        for _ in range(1 + runtime["failurePolicy"]["maxRestarts"]):
            if self._attempt(name, template):
                self._end(name, "Complete")
                return
            if name in self._gone:
                return
        self._end(name, "Failed", "jobset failed due to reaching max number of restarts")

    def _end(self, name: str, condition: str, message: str = "") -> None:
        with self._server.lock:
            if name not in self._gone:
                self._server.set_condition(condition, message)

    def _attempt(self, name: str, template: Json) -> bool:
        with self._server.lock:
            if name in self._gone:
                return False
            self._server.pods.clear()
            pods = self._server.add_pods("Pending")
            self.attempts.append(pods)
        port = free_port()
        ends: dict[int, int] = {}
        threads = [
            threading.Thread(
                target=lambda i=i, pod=pod: ends.update({i: self._pod(pod, i, template, port)}), daemon=True
            )
            for i, pod in enumerate(pods)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if any(ends.values()):
                self._end_processes()
            time.sleep(0.05)
        return len(ends) == len(pods) and not any(ends.values())

    def _pod(self, pod: Pod, index: int, template: Json, port: int) -> int:
        folder = self._folder / pod.name
        folder.mkdir(parents=True)
        trainer = self._server.job["spec"]["trainer"]
        pet = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        assert template["spec"]["restartPolicy"] == "Never"
        for container in template["spec"]["initContainers"]:
            code = self._container(pod, container, folder, {})
            if code:
                return code
        (main,) = template["spec"]["containers"]
        pod.status["phase"] = "Running"
        return self._container(pod, main, folder, pet)

    def _container(self, pod: Pod, container: Json, folder: Path, pet: Mapping[str, str]) -> int:
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/dev/shm"} <= mounted and container["image"] == "registry.example/dagnn@sha256:1"
        env = {entry["name"]: self._value(entry) for entry in container["env"]}
        words = [self._literal(word, folder) for word in container["command"]]
        assert words[0] in ("python", "torchrun")
        words[0] = str(Path(sys.executable).with_name(words[0]))
        python = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            words,
            env={**python, **self._variables, "HOME": str(folder), "TMPDIR": str(folder), **env, **pet},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes[pod.name] = process
        assert process.stdout is not None
        pod.logs.setdefault(container["name"], [])
        with process:
            for line in process.stdout:
                pod.write(line.rstrip("\n"), container["name"])
        pod.end(process.returncode, container["name"])
        del self.processes[pod.name]
        return process.returncode

    def _value(self, entry: Json) -> str:
        if "value" in entry:
            value: str = entry["value"]
            return value.replace("$$", "$")
        reference: dict[str, Any] = entry["valueFrom"]["secretKeyRef"]
        return self._secrets[reference["name"], reference["key"]]

    def _literal(self, word: str, folder: Path) -> str:
        word = self.program if word == NODE else word
        return word.replace("$$", "$").replace("=/tmp/", f"={folder}/")
