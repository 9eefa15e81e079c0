"""Pieces of answers → responses."""

from collections.abc import Sequence

from zeta.kserve.v2 import grpc_inference_service_pb2 as pb

from services.kit.errors import ZetaError
from services.kit.kserve import tensors
from services.kit.kserve.pieces import OUTPUTS, Piece
from services.kit.kserve.requests import VERSION, Call


def response(call: Call, pieces: Sequence[Piece]) -> pb.ModelInferResponse:
    """Write a piece of each of the call's answers."""
    made = pb.ModelInferResponse(model_name=call.model, model_version=VERSION, id=call.id)
    for name in call.outputs:
        datatype, value = OUTPUTS[name]
        values = [value(piece) for piece in pieces]
        tensors.add(made, name, datatype, call.shape, values, raw=call.raw)
    return made


def streamed(call: Call, pieces: Sequence[Piece]) -> pb.ModelStreamInferResponse:
    """Write a piece of each of the call's answers for a stream."""
    last = all(piece.last for piece in pieces)
    made = response(call, pieces)
    if last and call.stream and call.empty_final and call.outputs == ("text_output",):
        made.ClearField("outputs")
        made.ClearField("raw_output_contents")
    made.parameters["triton_final_response"].bool_param = last
    return pb.ModelStreamInferResponse(infer_response=made)


def failed(request: pb.ModelInferRequest, error: ZetaError) -> pb.ModelStreamInferResponse:
    """Write why one request of a stream failed."""
    made = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    made.parameters["triton_final_response"].bool_param = True
    message = f"{error.status.name} {error.reason}: {error}"
    return pb.ModelStreamInferResponse(error_message=message, infer_response=made)
