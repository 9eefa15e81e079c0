"""RPC in: the three services that the router answers for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.embedding.v1 import embedding_service_pb2_grpc as embedding_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.router.v1 import router_service_pb2 as router_pb
from zeta.router.v1 import router_service_pb2_grpc as router_grpc

from router_svc import wire
from router_svc.client import Embedders, Upstreams, model_infos
from router_svc.embedding import EmbedDispatch
from router_svc.relay import Siblings
from router_svc.router import ZetaDynamicRouter
from router_svc.tickets import Tickets
from router_svc.verifiers import verify
from services.kit.config import FleetConfig
from services.kit.errors import NotBuiltError, invalid
from services.kit.rpc import Context, check_deadline, deadline_s, named_by_caller, outgoing

_MAX_ID: Final = 200


class InferenceServicer(inference_grpc.InferenceServiceServicer):
    """The router as a model."""

    def __init__(
        self,
        router: ZetaDynamicRouter,
        upstreams: Upstreams,
        config: FleetConfig,
        siblings: Siblings,
    ) -> None:
        self._router, self._siblings = router, siblings
        self._upstreams = upstreams
        self._config = config

    def Generate(  # noqa: N802 - named by the contract
        self, request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[inference_pb.GenerateResponse, None]:
        """Choose who answers, and stream the answer through."""
        check_deadline(context)
        request.model = self._meant(request.model)
        if request.HasField("resume"):
            earlier, tenant = request.resume, request.tenant
            if not earlier.decision_id:
                raise invalid("resume.decision_id", "must name the answer to go on with")
            if self._siblings.has(earlier.decision_id):
                return self._siblings.resume(request, context)
            return self._router.resume(
                earlier.decision_id,
                earlier.after_seq,
                tenant=tenant,
                deadline_s=deadline_s(context),
            )
        ask = wire.ask_of(request, deadline_s(context), named_by_caller(context))
        metadata = outgoing(context)
        return self._router.generate(
            ask,
            lambda features: self._upstreams.sender(request, features, metadata),
            self._upstreams.scores(request, metadata),
        )

    async def CountTokens(  # noqa: N802 - named by the contract
        self, request: inference_pb.CountTokensRequest, context: Context
    ) -> inference_pb.CountTokensResponse:
        """Have the model count."""
        check_deadline(context)
        request.model = self._router.known(self._meant(request.model))
        return await self._upstreams.count(request, deadline_s(context), outgoing(context))

    async def ListModels(  # noqa: N802 - named by the contract
        self, request: inference_pb.ListModelsRequest, context: Context
    ) -> inference_pb.ListModelsResponse:
        """List the fleet's models."""
        del request, context
        infos = model_infos(self._router.fleet, self._config)
        return inference_pb.ListModelsResponse(models=[infos[name] for name in sorted(infos)])

    async def Score(  # noqa: N802 - named by the contract
        self, request: inference_pb.ScoreRequest, context: Context
    ) -> inference_pb.ScoreResponse:
        """Have the model score."""
        check_deadline(context)
        request.model = self._router.known(self._meant(request.model))
        return await self._upstreams.score(request, deadline_s(context), outgoing(context))

    def _meant(self, model: str) -> str:
        """Return *model*; nothing for the fleet's own name, by which a router before us asks."""
        own = model == self._config.fleet.name and model not in self._router.fleet.models
        return "" if own else model


class RouterServicer(router_grpc.RouterServiceServicer):
    """The router's own face."""

    def __init__(self, router: ZetaDynamicRouter, tickets: Tickets | None) -> None:
        self._router, self._tickets = router, tickets

    async def Route(  # noqa: N802 - named by the contract
        self, request: router_pb.RouteRequest, context: Context
    ) -> router_pb.RouteResponse:
        """Decide without running, or have the caller run it."""
        check_deadline(context)
        ask = wire.ask_of(request.generate, deadline_s(context), named_by_caller(context))
        if not request.ticket:
            return router_pb.RouteResponse(decision=await self._router.route(ask))
        wire.no_resume(request.generate)
        made = await self._made().issue(ask, request.generate)
        ticket = wire.ticket_pb(made.address, made.replica, made.token, made.expires_s)
        return router_pb.RouteResponse(decision=made.decision, ticket=ticket)

    async def ReportOutcome(  # noqa: N802 - named by the contract
        self, request: router_pb.ReportOutcomeRequest, context: Context
    ) -> router_pb.ReportOutcomeResponse:
        """Learn from an answer that did not pass through here, once."""
        check_deadline(context)
        counted = await self._made().report(request.token, wire.outcome_of(request))
        return router_pb.ReportOutcomeResponse(counted=counted)

    async def SubmitFeedback(  # noqa: N802 - named by the contract
        self, request: router_pb.SubmitFeedbackRequest, context: Context
    ) -> router_pb.SubmitFeedbackResponse:
        """Learn from a verdict, once."""
        check_deadline(context)
        score, other_id = await _verdict(request)
        counted = await self._router.verdicts.feedback(
            request.decision_id,
            score,
            feedback_id=request.feedback_id,
            source=_source(request),
            other_id=other_id,
        )
        return router_pb.SubmitFeedbackResponse(counted=counted, score=score)

    async def ForgetTexts(  # noqa: N802 - named by the contract
        self, request: router_pb.ForgetTextsRequest, context: Context
    ) -> router_pb.ForgetTextsResponse:
        """Delete what was kept of an answer."""
        check_deadline(context)
        decision_id = _id(request.decision_id)
        forgotten = await self._router.verdicts.forget_texts(decision_id)
        return router_pb.ForgetTextsResponse(forgotten=forgotten)

    async def WatchDecisions(  # noqa: N802 - named by the contract
        self, request: router_pb.WatchDecisionsRequest, context: Context
    ) -> AsyncIterator[router_pb.WatchDecisionsResponse]:
        """Stream decisions."""
        if request.model:
            self._router.known(request.model)
        missed = 0
        with self._router.watchers.watching() as decisions:
            # The headers tell the watcher that from here on nothing escapes it.
            await context.send_initial_metadata(())
            async for decision, skipped in decisions:
                missed += skipped
                if not request.model or request.model in wire.models_in(decision.plan):
                    yield router_pb.WatchDecisionsResponse(decision=decision, skipped=missed)
                    missed = 0

    async def GetPolicy(  # noqa: N802 - named by the contract
        self, request: router_pb.GetPolicyRequest, context: Context
    ) -> router_pb.GetPolicyResponse:
        """Say what is in force and what was learned."""
        del request, context
        policies = self._router.policies
        self._router.learn()
        return router_pb.GetPolicyResponse(
            policies=[wire.policy_pb(policy) for policy in policies.all()],
            default_policy=policies.default,
            etag=policies.etag(),
            beliefs=[wire.belief_pb(*each) for each in self._router.learner.beliefs()],
            outlooks=[wire.outlook_pb(each) for each in self._router.ahead.outlooks()],
        )

    async def UpdatePolicy(  # noqa: N802 - named by the contract
        self, request: router_pb.UpdatePolicyRequest, context: Context
    ) -> router_pb.UpdatePolicyResponse:
        """Put a policy in force."""
        del context
        policy, policies = wire.policy_of(request.policy), self._router.policies
        policies.update(policy, etag=request.etag, make_default=request.make_default)
        return router_pb.UpdatePolicyResponse(policy=wire.policy_pb(policy), etag=policies.etag())

    def _made(self) -> Tickets:
        """Return what makes tickets. Raises NotBuiltError where nothing does."""
        if self._tickets is None:
            raise NotBuiltError("ticket: this router makes none; its operator can set tickets.keys")
        return self._tickets


class EmbeddingServicer(embedding_grpc.EmbeddingServiceServicer):
    """Embedding work, passed on to the least busy instance."""

    def __init__(
        self, router: ZetaDynamicRouter, embedders: Embedders, dispatch: EmbedDispatch
    ) -> None:
        self._router, self._embedders, self._dispatch = router, embedders, dispatch

    async def Embed(  # noqa: N802 - named by the contract
        self, request: embedding_pb.EmbedRequest, context: Context
    ) -> embedding_pb.EmbedResponse:
        """Pass it on."""
        check_deadline(context)
        self._router.known(request.target_model)
        answer = await self._dispatch.embed(request, deadline_s(context), outgoing(context))
        if request.target_model:
            learned, model = self._router.learner.adapters, request.target_model
            wire.adapt(answer, lambda rows: learned.adapt(rows, model, answer.encoder))
        return answer

    async def Profile(  # noqa: N802 - named by the contract
        self, request: embedding_pb.ProfileRequest, context: Context
    ) -> embedding_pb.ProfileResponse:
        """Pass it on."""
        check_deadline(context)
        return await self._embedders.profile(request, deadline_s(context), outgoing(context))


async def _verdict(request: router_pb.SubmitFeedbackRequest) -> tuple[float, str]:
    """Return the score of the answer, and the decision it was compared with, if any."""
    _id(request.decision_id)
    if len(request.feedback_id) > _MAX_ID:
        raise invalid("feedback_id", f"must have at most {_MAX_ID} characters")
    if len(request.source) > _MAX_ID:
        raise invalid("source", f"must have at most {_MAX_ID} characters")
    match request.WhichOneof("verdict"):
        case "score":
            return wire.ratio(request.score, "score"), ""
        case "comparison":
            other = request.comparison.other_decision_id
            if not other or other == request.decision_id:
                raise invalid("comparison.other_decision_id", "must name another decision")
            preference = wire.ratio(request.comparison.preference, "comparison.preference")
            return preference, other
        case "verification":
            asked = request.verification
            return await asyncio.to_thread(
                verify, asked.verifier, asked.answer, asked.reference
            ), ""
    raise invalid("verdict", "one of score, comparison, verification is required")


def _id(decision_id: str) -> str:
    if not 1 <= len(decision_id) <= _MAX_ID:
        raise invalid("decision_id", f"must have 1 to {_MAX_ID} characters")
    return decision_id


def _source(request: router_pb.SubmitFeedbackRequest) -> str:
    """Name who judged: nobody else can speak for a verifier that the router ran itself."""
    if request.WhichOneof("verdict") == "verification":
        return f"verifier:{request.verification.verifier}"
    return request.source
