"""The program behind `triton.Triton`: tritonclient does as it is told, in a process of its own.

A command per line comes from stdin, an answer per line goes to stdout, both JSON.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from tritonclient import grpc
from tritonclient.grpc import aio, model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

JsonDict = dict[str, Any]


def main() -> None:
    """Answer commands until stdin ends."""
    commands: dict[str, Callable[..., object]] = {
        "describe": describe, "state": state, "infer": infer, "infer_aio": infer_aio,
        "stream": stream, "stream_aio": stream_aio, "leave": leave, "leave_stream": leave_stream,
    }  # fmt: skip
    for line in sys.stdin:
        command = json.loads(line)
        reply(commands[command.pop("what")](**command))


def reply(answer: object) -> None:
    """Answer the test."""
    print(json.dumps(answer), flush=True)  # noqa: T201 - stdout is the way back


def describe(at: str) -> object:
    """Return tritonclient's own descriptors, in hexadecimal."""
    del at
    return [m.DESCRIPTOR.serialized_pb.hex() for m in (model_config_pb2, service_pb2)]


def state(at: str, model: str) -> object:
    """Ask everything but inference."""
    with grpc.InferenceServerClient(at) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(model, "1"),
            "server": client.get_server_metadata(as_json=True),
            "index": client.get_model_repository_index(as_json=True),
            "metadata": attempt(lambda: client.get_model_metadata(model, as_json=True)),
            "config": attempt(lambda: client.get_model_config(model, as_json=True)),
        }


def attempt(call: Callable[[], Any]) -> Any:
    """Return what *call* returns, or its error as JSON."""
    try:
        return call()
    except InferenceServerException as failed:
        return refused(failed)


def refused(failed: Any) -> JsonDict:
    """Return an error as JSON."""
    return {"error": failed.message(), "status": failed.status()}


def infer(at: str, **request: Any) -> object:
    """Answer one request, with the sync client."""
    with grpc.InferenceServerClient(at) as client:
        return attempt(lambda: shown(client.infer(**arguments(request))))


def infer_aio(at: str, **request: Any) -> object:
    """Answer one request, with the asyncio client."""

    async def run() -> object:
        async with aio.InferenceServerClient(at) as client:
            try:
                return shown(await client.infer(**arguments(request)))
            except InferenceServerException as failed:
                return refused(failed)

    return asyncio.run(run())


def stream(at: str, requests: list[JsonDict], headers: dict[str, str] | None = None) -> object:
    """Send *requests* down one stream, with the sync client; return all that came."""
    found: list[JsonDict] = []
    with grpc.InferenceServerClient(at) as client:
        client.start_stream(
            lambda result, error: found.append(refused(error) if error else shown(result)),
            headers=headers,
        )
        for request in requests:
            client.async_stream_infer(**arguments(request))
        client.stop_stream()
    return found


def stream_aio(at: str, requests: list[JsonDict]) -> object:
    """Send *requests* down one stream, with the asyncio client; return all that came."""

    async def each() -> AsyncIterator[JsonDict]:
        for request in requests:
            given = arguments(request)
            # This client has no argument for it, and takes the parameter under its own name only.
            given.pop("enable_empty_final_response", None)
            yield given

    async def run() -> object:
        async with aio.InferenceServerClient(at) as client:
            return [
                refused(error) if error else shown(result)
                async for result, error in client.stream_infer(each())
            ]

    return asyncio.run(run())


def leave(at: str, **request: Any) -> object:
    """Begin a request, and cancel it when told to."""
    with grpc.InferenceServerClient(at) as client:
        call = client.async_infer(callback=lambda **_: None, **arguments(request))
        reply("begun")
        sys.stdin.readline()
        call.cancel()
    return "left"


def leave_stream(at: str, requests: list[JsonDict]) -> object:
    """Begin the requests of one stream, and cancel it when told to."""
    with grpc.InferenceServerClient(at) as client:
        client.start_stream(lambda **_: None)
        for request in requests:
            client.async_stream_infer(**arguments(request))
        reply("begun")
        sys.stdin.readline()
        client.stop_stream(cancel_requests=True)
    return "left"


def arguments(request: JsonDict) -> JsonDict:
    """Turn a request's JSON into the client's arguments: *inputs* are [name, datatype, values]."""
    inputs = []
    for name, datatype, values in request["inputs"]:
        array = np.array(values, triton_to_np_dtype(datatype))
        inputs.append(grpc.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array)
    outputs = [grpc.InferRequestedOutput(name) for name in request.get("outputs", ())]
    return {**request, "inputs": inputs, "outputs": outputs or None}


def shown(result: Any) -> JsonDict:
    """Return a response as JSON: each output as nested lists, texts decoded."""
    made = result.get_response()
    outputs = {o.name: plain(result.as_numpy(o.name).tolist()) for o in made.outputs}
    final = made.parameters["triton_final_response"]
    return {
        "id": made.id,
        "model": made.model_name,
        "outputs": outputs,
        "final": final.bool_param if final.HasField("bool_param") else None,
    }


def plain(value: Any) -> Any:
    """Decode the texts in nested lists."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
