"""A stand-in for Modal's control plane on this machine: enough for the real `modal run`, without account or network.

    python modal_stand_in.py FOLDER        serves on a free port of the loopback, which it prints, until SIGTERM

It speaks the protocol of modal 1.6.4, through private parts of the package, so it goes with that version alone. A call
of a function runs in a process of its own, a container: forked, with the working directory FOLDER/<environment>/
containers/<id>, which plays /root. Volumes are folders FOLDER/<environment>/volumes/<name>. A container sees a copy of
them at its mounts as they were when it started; others see what it writes there after a commit, and it sees what others
have committed after a reload, no sooner. A container that has written to a mount for reading fails. Calls are retried
as often as the function says, without a delay. `with_options` replaces what it names, all resources together. Files are
downloaded over HTTP, in blocks, as from Modal's stores.

Not imitated: that Modal also commits volumes by itself, every few seconds and at the end of a container; that it takes
one container for several calls; time limits; pre-emption, with a signal and time to save; that an app which is not
detached ends with its client, and its calls with it; that a detached one goes on; that entries of a Dict expire; GPUs,
prices, and what secrets hold; limits on how often one may ask; logs.

FOLDER/<environment>/calls.jsonl records what was asked for, in order. These files there play tricks:

    kill.json   such as {"train": {"commit": 2, "times": 1}}: the first container of `train` is killed when it asks for
                its second commit
    hold        while it is there, no container starts
    gap         until the time in it (s since 1970), nobody is told how a call is doing
    secrets     the names of those that there are, one a line
"""

import asyncio
import base64
import contextlib
import errno
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import time
import traceback
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path, PurePosixPath

import grpclib
import grpclib.server
from aiohttp import web
from google.protobuf.empty_pb2 import Empty
from modal._serialization import deserialize_data_format, serialize_data_format
from modal._utils.blob_utils import BLOCK_SIZE
from modal._utils.grpc_testing import patch_mock_servicer
from modal_proto import api_grpc, api_pb2

VERSION = "1.6.4"
CONTAINERS_AT_A_TIME = 2  # of a core or more
HOME = PurePosixPath("/root")
PRELOADED = ["__main__", "modal_preload"]  # by the process that containers are forked from
SUCCESS, FAILURE = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, api_pb2.GenericResult.GENERIC_STATUS_FAILURE


def run_container(module: str, function: str, arguments: bytes, home: Path, environment: dict[str, str]) -> None:
    """The body of a container's process: what the function returns or raises goes to `outcome`, its output to `log`."""
    os.chdir(home)
    os.environ.update(environment)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    args, kwargs = pickle.loads(arguments)
    try:
        outcome = (True, getattr(import_module(module), function).local(*args, **kwargs), "")
    except Exception as error:
        outcome = (False, error, traceback.format_exc())
    Path("outcome").write_bytes(pickle.dumps(outcome))


class Container:
    """One attempt at a call: its folder, its copies of the volumes, its process."""

    def __init__(self, name: str, root: Path, definition: api_pb2.Function, volumes: dict[str, Path]):
        """volumes: id -> committed content, of those that the function mounts."""
        self.name, self.definition, self.num_commits = name, definition, 0
        self.home = root / "containers" / name
        self.volumes = volumes
        self.mounts: dict[str, Path] = {}
        self.seen: dict[str, dict[str, int]] = {}  # of each volume: files with their times after the last look
        for mount in definition.volume_mounts:
            self.mounts[mount.volume_id] = self.home / PurePosixPath(mount.mount_path).relative_to(HOME)
            self.reload(mount.volume_id)

    def must_not_have_written(self) -> list[str]:
        """The mounts for reading in which something has changed."""
        mounts = [mount for mount in self.definition.volume_mounts if mount.read_only]
        return [m.mount_path for m in mounts if times_of(self.mounts[m.volume_id]) != self.seen[m.volume_id]]

    def commit(self, volume_id: str) -> list[str]:
        """Carry over what this container has written or removed since it last looked; those files."""
        mount, committed, before = self.mounts[volume_id], self.volumes[volume_id], self.seen[volume_id]
        now = times_of(mount)
        for file in before.keys() - now.keys():
            (committed / file).unlink(missing_ok=True)
        written = [file for file, when in now.items() if before.get(file) != when]
        for file in written:
            (committed / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(mount / file, committed / file)
        self.seen[volume_id] = now
        return sorted({*written, *(before.keys() - now.keys())})

    def reload(self, volume_id: str) -> None:
        """See what others have committed, and nothing else."""
        shutil.rmtree(self.mounts[volume_id], ignore_errors=True)
        shutil.copytree(self.volumes[volume_id], self.mounts[volume_id])
        self.seen[volume_id] = times_of(self.mounts[volume_id])


def times_of(folder: Path) -> dict[str, int]:
    """Every file below a folder, relative to it, with its time in ns."""
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@patch_mock_servicer
class StandIn(api_grpc.ModalClientBase):
    """The calls that `modal run` and a download make, and those of functions in containers."""

    def __init__(self, folder: Path, processes: multiprocessing.context.ForkServerContext):
        self.folder, self.processes, self.address, self.blocks_address = folder, processes, "", ""
        self.numbers = itertools.count(1)
        self.free = asyncio.Semaphore(CONTAINERS_AT_A_TIME)
        self.limits: dict[str, asyncio.Semaphore] = {}  # of each function
        self.environments: dict[str, str] = {}  # of each app
        self.stopped: dict[str, asyncio.Event] = {}  # of each app
        self.functions: dict[str, tuple[str, api_pb2.Function]] = {}  # environment and definition
        self.volumes: dict[str, Path] = {}
        self.running: dict[str, tuple[str, Container, multiprocessing.Process]] = {}  # by token id
        self.outputs: dict[str, tuple[str, asyncio.Future]] = {}  # of each call: environment and answer
        self.dicts: dict[str, dict[bytes, bytes]] = {}
        self.environment_of_dict: dict[str, str] = {}
        self.secrets: dict[str, str] = {}  # names
        self.tasks: set[asyncio.Task] = set()

    def new_id(self, kind: str) -> str:
        return f"{kind}-{next(self.numbers):08d}"

    def record(self, environment: str, event: str, **details) -> None:
        folder = self.folder / environment
        folder.mkdir(exist_ok=True)
        with (folder / "calls.jsonl").open("a") as file:
            print(json.dumps({"event": event, "time": time.monotonic()} | details), file=file)

    # --- who is asking ---

    async def ClientHello(self, stream):
        await stream.recv_message()
        await stream.send_message(api_pb2.ClientHelloResponse())

    async def AuthTokenGet(self, stream):
        await stream.recv_message()
        head, body = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in ({"alg": "none"}, {"exp": int(time.time()) + 3600})
        )
        await stream.send_message(api_pb2.AuthTokenGetResponse(token=f"{head}.{body}.x"))

    async def EnvironmentGetOrCreate(self, stream):
        request = await stream.recv_message()
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06", webhook_suffix="")
        metadata = api_pb2.EnvironmentMetadata(name=request.deployment_name, settings=settings)
        await stream.send_message(api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata))

    # --- the app and what it is made of ---

    async def AppCreate(self, stream):
        request = await stream.recv_message()
        app_id = self.new_id("ap")
        self.environments[app_id], self.stopped[app_id] = request.environment_name, asyncio.Event()
        detached = request.app_state == api_pb2.APP_STATE_DETACHED
        self.record(request.environment_name, "app", detached=detached)
        await stream.send_message(api_pb2.AppCreateResponse(app_id=app_id, app_page_url="none", app_logs_url="none"))

    async def AppHeartbeat(self, stream):
        await stream.recv_message()
        await stream.send_message(Empty())

    async def AppPublish(self, stream):
        await stream.recv_message()
        await stream.send_message(api_pb2.AppPublishResponse(url="none"))

    async def AppClientDisconnect(self, stream):
        request = await stream.recv_message()
        self.stopped[request.app_id].set()
        await stream.send_message(Empty())

    async def AppGetLogs(self, stream):
        request = await stream.recv_message()
        await self.stopped[request.app_id].wait()
        await stream.send_message(api_pb2.TaskLogsBatch(app_done=True, entry_id="1"))

    async def MountBatchedCheckExistence(self, stream):
        await stream.recv_message()
        await stream.send_message(api_pb2.MountBatchedCheckExistenceResponse())

    async def MountPutFile(self, stream):
        await stream.recv_message()
        await stream.send_message(api_pb2.MountPutFileResponse(exists=True))

    async def MountGetOrCreate(self, stream):
        request = await stream.recv_message()
        files = [file.filename for file in request.files]
        mount_id = self.new_id("mo")
        environment = request.environment_name or self.environments[request.app_id]
        self.record(environment, "mount", id=mount_id, files=files)
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex="00")
        await stream.send_message(api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata))

    async def ImageGetOrCreate(self, stream):
        request = await stream.recv_message()
        image_id, image = self.new_id("im"), request.image
        self.record(
            self.environments[request.app_id],
            "image",
            id=image_id,
            base=[base.image_id for base in image.base_images],
            commands=list(image.dockerfile_commands),
            context=image.context_mount_id,
            files={file.filename: file.data.decode() for file in image.context_files},
        )
        result = api_pb2.GenericResult(status=SUCCESS)
        await stream.send_message(api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=result))

    async def FunctionPrecreate(self, stream):
        request = await stream.recv_message()
        response = api_pb2.FunctionPrecreateResponse(
            function_id=self.new_id("fu"), handle_metadata=function_metadata(request.function_name)
        )
        await stream.send_message(response)

    async def FunctionCreate(self, stream):
        request = await stream.recv_message()
        function, function_id = request.function, request.existing_function_id or self.new_id("fu")
        environment = self.environments[request.app_id]
        self.functions[function_id] = environment, function
        self.record_function(environment, "function", function)
        data = api_pb2.FunctionData(
            module_name=function.module_name,
            function_name=function.function_name,
            timeout_secs=function.timeout_secs,
            ranked_functions=[api_pb2.FunctionData.RankedFunction(rank=0, function=function)],
        )
        metadata = function_metadata(function.function_name, "de-1")
        response = api_pb2.FunctionCreateResponse(
            function_id=function_id, function=function, function_data=data, handle_metadata=metadata
        )
        await stream.send_message(response)

    def record_function(self, environment: str, event: str, function: api_pb2.Function) -> None:
        self.record(
            environment,
            event,
            name=function.function_name,
            image=function.image_id,
            gpu=function.resources.gpu_config.gpu_type,
            milli_cpu=function.resources.milli_cpu,
            memory_mib=function.resources.memory_mb,
            timeout_s=function.timeout_secs,
            startup_timeout_s=function.startup_timeout_secs,
            retries=function.retry_policy.retries,
            mounts={mount.mount_path: mount.read_only for mount in function.volume_mounts},
            secrets=[self.secrets[secret_id] for secret_id in function.secret_ids],
        )

    async def FunctionBindParams(self, stream):
        request = await stream.recv_message()
        environment, base = self.functions[request.function_id]
        function, options, function_id = api_pb2.Function(), request.function_options, self.new_id("fu")
        function.CopyFrom(base)
        if options.resources.ByteSize():
            function.resources.CopyFrom(options.resources)
        if options.replace_secret_ids:
            function.secret_ids[:] = options.secret_ids
        self.functions[function_id] = environment, function
        self.record_function(environment, "variant", function)
        metadata = function_metadata(function.function_name, "de-1")
        response = api_pb2.FunctionBindParamsResponse(bound_function_id=function_id, handle_metadata=metadata)
        await stream.send_message(response)

    async def SecretGetOrCreate(self, stream):
        request = await stream.recv_message()
        names = self.folder / request.environment_name / "secrets"
        if request.deployment_name not in (names.read_text().split() if names.exists() else []):
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, f"Secret '{request.deployment_name}' not found")
        secret_id = self.new_id("st")
        self.secrets[secret_id] = request.deployment_name
        metadata = api_pb2.SecretMetadata(name=request.deployment_name)
        await stream.send_message(api_pb2.SecretGetOrCreateResponse(secret_id=secret_id, metadata=metadata))

    # --- dictionaries ---

    async def DictGetOrCreate(self, stream):
        request = await stream.recv_message()
        dict_id = f"di-{request.environment_name}-{request.deployment_name}"
        self.dicts.setdefault(dict_id, {})
        self.environment_of_dict[dict_id] = request.environment_name
        metadata = api_pb2.DictMetadata(name=request.deployment_name)
        await stream.send_message(api_pb2.DictGetOrCreateResponse(dict_id=dict_id, metadata=metadata))

    async def DictGet(self, stream):
        request = await stream.recv_message()
        value = self.dicts[request.dict_id].get(request.key)
        await stream.send_message(api_pb2.DictGetResponse(found=value is not None, value=value))

    async def DictUpdate(self, stream):
        request = await stream.recv_message()
        self.dicts[request.dict_id] |= {entry.key: entry.value for entry in request.updates}
        self.record(self.environment_of_dict[request.dict_id], "dict", num_entries=len(self.dicts[request.dict_id]))
        await stream.send_message(api_pb2.DictUpdateResponse(created=True))

    # --- calls ---

    async def FunctionMap(self, stream):
        request = await stream.recv_message()
        (item,) = request.pipelined_inputs  # .spawn and .remote; a map would send none here
        call_id, input_id = self.new_id("fc"), self.new_id("in")
        environment = self.functions[request.function_id][0]
        self.outputs[call_id] = environment, asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self.answer(call_id, request.function_id, item))
        self.tasks.add(task)
        response = api_pb2.FunctionMapResponse(
            function_call_id=call_id,
            function_call_jwt="none",
            retry_policy=self.functions[request.function_id][1].retry_policy,
            max_inputs_outstanding=1000,
            pipelined_inputs=[api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=input_id, input_jwt="none")],
        )
        await stream.send_message(response)

    async def answer(self, call_id: str, function_id: str, item: api_pb2.FunctionPutInputsItem) -> None:
        """Attempt a call until it succeeds or no retry is left."""
        environment, function = self.functions[function_id]
        self.record(environment, "call", function=function.function_name, call=call_id)
        arguments = deserialize_data_format(item.input.args, item.input.data_format or api_pb2.DATA_FORMAT_PICKLE, None)
        limit = asyncio.Semaphore(function.concurrency_limit or CONTAINERS_AT_A_TIME)
        free = self.free if function.resources.milli_cpu >= 1000 else contextlib.nullcontext()
        async with self.limits.setdefault(function_id, limit), free:
            while (self.folder / environment / "hold").exists():
                await asyncio.sleep(0.05)
            for attempt in range(1 + function.retry_policy.retries):
                is_done, value, trace = await self.attempt(environment, function, pickle.dumps(arguments), attempt)
                if is_done:
                    break
        data = serialize_data_format(value, api_pb2.DATA_FORMAT_PICKLE)
        result = api_pb2.GenericResult(status=SUCCESS if is_done else FAILURE, data=data)
        if not is_done:
            result.exception, result.traceback = repr(value), trace
        output = api_pb2.FunctionGetOutputsItem(
            idx=item.idx, input_id="in-1", result=result, data_format=api_pb2.DATA_FORMAT_PICKLE
        )
        self.outputs[call_id][1].set_result(output)

    async def attempt(self, environment: str, function: api_pb2.Function, arguments: bytes, attempt: int) -> tuple:
        """Whether one container succeeds, what it returns or raises, and the traceback."""
        token = self.new_id("ak")
        container = Container(token, self.folder / environment, function, self.volumes)
        variables = {"MODAL_SERVER_URL": self.address, "MODAL_ENVIRONMENT": environment}
        variables |= {"MODAL_TOKEN_ID": token, "MODAL_TOKEN_SECRET": "as-container"}  # tells containers apart
        names = function.module_name, function.function_name
        process = self.processes.Process(target=run_container, args=(*names, arguments, container.home, variables))
        self.record(environment, "start", function=names[1], container=token, attempt=attempt)
        await asyncio.get_running_loop().run_in_executor(None, process.start)
        self.running[token] = environment, container, process
        await asyncio.get_running_loop().run_in_executor(None, process.join)
        self.record(environment, "end", function=names[1], container=token, exit_code=process.exitcode)
        outcome = container.home / "outcome"
        if written := container.must_not_have_written():
            return False, OSError(errno.EROFS, os.strerror(errno.EROFS), written[0]), ""
        if not outcome.exists():
            return False, RuntimeError(f"the container ended with {process.exitcode}"), ""
        return pickle.loads(outcome.read_bytes())

    async def FunctionGetOutputs(self, stream):
        request = await stream.recv_message()
        if request.function_call_id not in self.outputs:
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, "no such call")
        environment, future = self.outputs[request.function_call_id]
        gap = self.folder / environment / "gap"
        if gap.exists() and time.time() < float(gap.read_text()):
            self.record(environment, "cut off")
            raise grpclib.GRPCError(grpclib.Status.UNAVAILABLE)
        await asyncio.wait([future], timeout=request.timeout)
        response = api_pb2.FunctionGetOutputsResponse(last_entry_id="1-0", num_unfinished_inputs=1)
        if future.done():
            response = api_pb2.FunctionGetOutputsResponse(outputs=[future.result()], idxs=[0], last_entry_id="1-0")
        else:
            self.record(environment, "not yet", call=request.function_call_id)
        await stream.send_message(response)

    # --- volumes ---

    async def VolumeGetOrCreate(self, stream):
        request = await stream.recv_message()
        path = self.folder / request.environment_name / "volumes" / request.deployment_name
        if not (path.exists() or request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING):
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, f"Volume '{request.deployment_name}' not found")
        path.mkdir(parents=True, exist_ok=True)
        volume_id = next((key for key, known in self.volumes.items() if known == path), None) or self.new_id("vo")
        self.volumes[volume_id] = path
        metadata = api_pb2.VolumeMetadata(name=request.deployment_name)
        await stream.send_message(api_pb2.VolumeGetOrCreateResponse(volume_id=volume_id, metadata=metadata))

    async def VolumeCommit(self, stream):
        request = await stream.recv_message()
        environment, container, process = self.running[stream.metadata["x-modal-token-id"]]
        container.num_commits += 1
        function = container.definition.function_name
        if self.must_die(environment, function, container.num_commits):
            self.record(environment, "kill", function=function, container=container.name)
            os.kill(process.pid, signal.SIGKILL)
            raise grpclib.GRPCError(grpclib.Status.UNAVAILABLE)
        files, volume = container.commit(request.volume_id), self.volumes[request.volume_id].name
        self.record(environment, "commit", function=function, container=container.name, volume=volume, files=files)
        await stream.send_message(api_pb2.VolumeCommitResponse(skip_reload=True))

    async def VolumeReload(self, stream):
        request = await stream.recv_message()
        _, container, _ = self.running[stream.metadata["x-modal-token-id"]]
        container.reload(request.volume_id)
        await stream.send_message(Empty())

    async def VolumeListFiles(self, stream):
        request = await stream.recv_message()
        root, kinds = self.volumes[request.volume_id], api_pb2.FileEntry.FileType
        entries = [
            api_pb2.FileEntry(
                path=path.relative_to(root).as_posix(),
                type=kinds.DIRECTORY if path.is_dir() else kinds.FILE,
                mtime=int(path.stat().st_mtime),
                size=path.stat().st_size,
            )
            for path in sorted((root / request.path.strip("/")).rglob("*"))
        ]
        await stream.send_message(api_pb2.VolumeListFilesResponse(entries=entries))

    async def VolumeGetFile2(self, stream):
        request = await stream.recv_message()
        size = (self.volumes[request.volume_id] / request.path).stat().st_size
        starts = range(0, size, BLOCK_SIZE)
        urls = [f"{self.blocks_address}/{request.volume_id}/{start}/{request.path}" for start in starts]
        await stream.send_message(api_pb2.VolumeGetFile2Response(get_urls=urls, size=size, start=0, len=size))

    async def block(self, request: web.Request) -> web.Response:
        """One block of a file, as VolumeGetFile2 addresses it."""
        path = self.volumes[request.match_info["volume_id"]] / request.match_info["path"]
        start = int(request.match_info["start"])
        return web.Response(body=path.read_bytes()[start : start + BLOCK_SIZE])

    def must_die(self, environment: str, function: str, num_commits: int) -> bool:
        """Whether kill.json asks for it; then it is asked for once less."""
        path = self.folder / environment / "kill.json"
        plans = json.loads(path.read_text()) if path.exists() else {}
        plan = plans.get(function, {"commit": 0, "times": 0})
        if plan["times"] == 0 or plan["commit"] != num_commits:
            return False
        plan["times"] -= 1
        path.write_text(json.dumps(plans))
        return True


def function_metadata(name: str, definition_id: str = "") -> api_pb2.FunctionHandleMetadata:
    return api_pb2.FunctionHandleMetadata(
        function_name=name,
        function_type=api_pb2.Function.FUNCTION_TYPE_FUNCTION,
        definition_id=definition_id,
        supported_input_formats=[api_pb2.DATA_FORMAT_PICKLE],
        supported_output_formats=[api_pb2.DATA_FORMAT_PICKLE],
    )


async def serve(folder: Path) -> None:
    """Serve until SIGTERM; bugs of the stand-in go to stderr."""
    logging.basicConfig(level=logging.ERROR)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
    stand_in = StandIn(folder, processes)
    server = grpclib.server.Server([stand_in])
    await server.start("127.0.0.1", 0)
    port = server._server.sockets[0].getsockname()[1]  # grpclib tells it nowhere else
    stand_in.address = f"http://127.0.0.1:{port}"
    blocks = web.Application()
    blocks.router.add_get("/{volume_id}/{start}/{path:.*}", stand_in.block)
    runner = web.AppRunner(blocks)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand_in.blocks_address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(port, flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    for *_, process in stand_in.running.values():
        process.kill()
    await runner.cleanup()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]).resolve()))
