"""`inference.GRPCInferenceService` in front of a server's own `Generate`, in every server alike."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from importlib.metadata import version
from typing import Final, Protocol

from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.kserve.v2 import grpc_inference_service_pb2 as pb
from zeta.kserve.v2 import grpc_inference_service_pb2_grpc as pb_grpc

from services.kit.aio import all_of
from services.kit.errors import StreamBrokenError, UnknownModelError, invalid
from services.kit.kserve import responses
from services.kit.kserve.exchange import Exchange
from services.kit.kserve.part import Part
from services.kit.kserve.pieces import OUTPUTS, Answer, Piece
from services.kit.kserve.requests import (
    ANY,
    INPUTS,
    VERSION,
    Call,
    Prompt,
    asked,
    check_version,
    read,
)
from services.kit.rpc import Context, check_deadline

KSERVE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "parameters", "sequence")
_CONFIGURED: Final = {"BYTES": pb.TYPE_STRING}


class Answers(Protocol):
    """The two calls of `zeta.inference.v1.InferenceService` that all is made of."""

    def Generate(  # noqa: N802 - the contract's name
        self, request: inference.GenerateRequest, context: Context
    ) -> AsyncGenerator[inference.GenerateResponse, None]:
        """Stream an answer."""

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: inference.ListModelsRequest, context: Context
    ) -> inference.ListModelsResponse:
        """List the models."""


class KserveServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Translates; *answers* does the work. *ready* says of a model, or of "", whether it serves."""

    def __init__(self, answers: Answers, ready: Callable[[str], bool]) -> None:
        self._answers, self._ready = answers, ready

    async def ServerLive(  # noqa: N802 - the contract's name
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Say that the process runs."""
        del request, context
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802 - the contract's name
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Say whether anybody answers."""
        del request, context
        return pb.ServerReadyResponse(ready=self._ready(""))

    async def ModelReady(  # noqa: N802 - the contract's name
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Say whether the model answers; one that is not known does not."""
        check_version(request.version)
        known = request.name in await self._models(context)
        return pb.ModelReadyResponse(ready=known and self._ready(asked(request.name)))

    async def ServerMetadata(  # noqa: N802 - the contract's name
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Say what this is."""
        del request, context
        return pb.ServerMetadataResponse(
            name="zeta", version=version("zeta"), extensions=_EXTENSIONS
        )

    async def ModelMetadata(  # noqa: N802 - the contract's name
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe the tensors."""
        info = await self._model(request, context)
        made = pb.ModelMetadataResponse(name=info.name, versions=[VERSION], platform=info.runtime)
        for name, datatype in INPUTS.items():
            made.inputs.add(name=name, datatype=datatype, shape=[-1])
        for name, (datatype, _) in OUTPUTS.items():
            made.outputs.add(name=name, datatype=datatype, shape=[-1])
        return made

    async def ModelConfig(  # noqa: N802 - the contract's name
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Describe the model as a configuration file."""
        info = await self._model(request, context)
        config = pb.ModelConfig(name=info.name, platform=info.runtime, backend="zeta")
        config.model_transaction_policy.decoupled = True
        for name, datatype in INPUTS.items():
            optional = name != "text_input"
            config.input.add(name=name, data_type=_type(datatype), dims=[-1], optional=optional)
        for name, (datatype, _) in OUTPUTS.items():
            config.output.add(name=name, data_type=_type(datatype), dims=[-1])
        return pb.ModelConfigResponse(config=config)

    async def RepositoryIndex(  # noqa: N802 - the contract's name
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the models, the name that leaves the choice to the server among them."""
        if request.repository_name:
            raise invalid("repository_name", "must be empty: there is one repository")
        made = pb.RepositoryIndexResponse()
        for name in sorted((await self._models(context)).keys() - {""}):
            ready = self._ready(asked(name))
            if ready or not request.ready:
                state, reason = ("READY", "") if ready else ("UNAVAILABLE", "nobody serves it now")
                made.models.add(name=name, version=VERSION, state=state, reason=reason)
        return made

    async def ModelInfer(  # noqa: N802 - the contract's name
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Answer every prompt, in order, once all are answered."""
        check_deadline(context)
        call = read(request)
        if call.stream:
            raise invalid(
                "stream", "ModelInfer answers once: use ModelStreamInfer, or leave it out"
            )
        return responses.response(call, await self._wholes(call, context))

    async def ModelStreamInfer(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Answer the stream's requests side by side."""
        exchange = Exchange(lambda request: self._responses(request, context), context)
        async with aclosing(exchange.responses(request_iterator)) as found:
            async for response in found:
                yield response

    async def _responses(
        self, request: pb.ModelInferRequest, context: Context
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Answer one request of a stream."""
        call = read(request)
        if not call.stream:
            yield responses.streamed(call, await self._wholes(call, context))
            return
        async with aclosing(self._pieces(call, call.prompts[0], context)) as pieces:
            async for piece in pieces:
                yield responses.streamed(call, [piece])

    async def _wholes(self, call: Call, context: Context) -> list[Piece]:
        return await all_of(*(self._whole(call, prompt, context) for prompt in call.prompts))

    async def _whole(self, call: Call, prompt: Prompt, context: Context) -> Piece:
        answer = Answer(prompt.text if prompt.echo else "")
        async with aclosing(self._events(call, prompt, context)) as events:
            async for event in events:
                answer.feed(event)
        return _ended(answer.take())

    async def _pieces(
        self, call: Call, prompt: Prompt, context: Context
    ) -> AsyncGenerator[Piece, None]:
        answer, piece = Answer(), None
        async with aclosing(self._events(call, prompt, context)) as events:
            async for event in events:
                if answer.feed(event):
                    piece = answer.take()
                    yield piece
        _ended(piece or answer.take())

    async def _events(
        self, call: Call, prompt: Prompt, context: Context
    ) -> AsyncGenerator[inference.GenerateResponse, None]:
        """Have one prompt answered; whoever stops reading stops the work."""
        part = Part(context, call.timeout_s)
        try:
            async with aclosing(self._answers.Generate(prompt.request, part.context)) as events:
                async for event in events:
                    yield event
        finally:
            part.end()

    async def _models(self, context: Context) -> Mapping[str, inference.ModelInfo]:
        """Describe every model, by the names under which it can be asked for."""
        listed = await self._answers.ListModels(inference.ListModelsRequest(), context)
        chosen = inference.ModelInfo(name=ANY, runtime="zeta")
        return {"": chosen, ANY: chosen, **{info.name: info for info in listed.models}}

    async def _model(
        self, request: pb.ModelMetadataRequest | pb.ModelConfigRequest, context: Context
    ) -> inference.ModelInfo:
        check_version(request.version)
        models = await self._models(context)
        if request.name not in models:
            known = ", ".join(sorted(models.keys() - {""}))
            raise UnknownModelError(f"no model {request.name[:80]!r}; there are: {known}")
        return models[request.name]


def _ended(piece: Piece) -> Piece:
    """Return *piece*, which must be an answer's last."""
    if not piece.last:
        raise StreamBrokenError("the answer ended before its end")
    return piece


def _type(datatype: str) -> pb.DataType.ValueType:
    return _CONFIGURED.get(datatype) or pb.DataType.Value(f"TYPE_{datatype}")
