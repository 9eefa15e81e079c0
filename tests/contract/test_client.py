"""The client against scripted servers in this process."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from zeta.embedding.v1 import embedding_service_pb2 as embedding
from zeta.embedding.v1.embedding_service_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from zeta.inference.v1 import decision_pb2 as decisions
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1.inference_service_pb2_grpc import (
    InferenceServiceServicer,
    add_InferenceServiceServicer_to_server,
)
from zeta.router.v1 import router_service_pb2 as router
from zeta.router.v1.router_service_pb2_grpc import (
    RouterServiceServicer,
    add_RouterServiceServicer_to_server,
)

from services.kit.config import Server, Tls
from services.kit.errors import (
    DeadlinePassedError,
    InvalidRequestError,
    OverloadedError,
    StaleEtagError,
    StreamBrokenError,
    UnavailableError,
    UnknownDecisionError,
    invalid,
)
from services.kit.rpc import Context, Scoped
from services.kit.security import server_credentials
from tests.clients import Kind, both_clients
from zeta_client import Client, g_zeta_embed_text
from zeta_client.wire import question

STARTED = inference.Started(
    decision_id="d1", plan="single(small)", model="small", replica="small-0", prompt_tokens=3
)
FINISHED = inference.Finished(
    reason=inference.FINISH_REASON_STOP,
    usage=inference.Usage(prompt_tokens=3, completion_tokens=2),
    model="small",
)


@dataclass
class Scripted(InferenceServiceServicer):
    """Echoes the question word by word; some questions are cues."""

    seen: list[inference.GenerateRequest] = field(default_factory=list)
    scored: list[inference.ScoreRequest] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a caller went away in the middle of an answer."""

    async def Generate(  # noqa: N802 - the name is the wire's
        self, request: inference.GenerateRequest, context: Context
    ) -> AsyncIterator[inference.GenerateResponse]:
        """Answer."""
        del context
        self.seen.append(request)
        prompt = request.messages.messages[0].content
        if prompt == "too much":
            raise OverloadedError("the queue is full", retry_after_s=1.5)
        if not prompt:
            raise invalid("messages.messages[0].content", "must not be empty")
        try:
            yield inference.GenerateResponse(started=STARTED)
            for i, word in enumerate(prompt.split()):
                delta = inference.Delta(seq=i + 1, text=f"{word} ")
                yield inference.GenerateResponse(delta=delta)
            if prompt == "never ends":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise
        for i in range(1, request.samples):
            delta = inference.Delta(seq=i + 9, text=f"other {i}", sample=i)
            yield inference.GenerateResponse(delta=delta)
        if request.samples > 1:
            finished = inference.Finished()
            finished.CopyFrom(FINISHED)
            finished.samples.add(reason=inference.FINISH_REASON_STOP, completion_tokens=2)
            for _ in range(1, request.samples):
                finished.samples.add(reason=inference.FINISH_REASON_LENGTH, mean_logprob=-0.5)
            yield inference.GenerateResponse(finished=finished)
        elif prompt != "cut short":
            yield inference.GenerateResponse(finished=FINISHED)

    async def CountTokens(  # noqa: N802 - the name is the wire's
        self, request: inference.CountTokensRequest, context: Context
    ) -> inference.CountTokensResponse:
        """Count words."""
        del context
        words = request.messages.messages[0].content.split()
        return inference.CountTokensResponse(tokens=len(words), model=request.model)

    async def ListModels(  # noqa: N802 - the name is the wire's
        self, request: inference.ListModelsRequest, context: Context
    ) -> inference.ListModelsResponse:
        """Name one model."""
        del request, context
        return inference.ListModelsResponse(models=[inference.ModelInfo(name="small")])

    async def Score(  # noqa: N802 - the name is the wire's
        self, request: inference.ScoreRequest, context: Context
    ) -> inference.ScoreResponse:
        """Prefer short continuations."""
        del context
        self.scored.append(request)
        scores = [
            inference.ContinuationScore(logprob=-len(text), tokens=1)
            for text in request.continuations
        ]
        return inference.ScoreResponse(scores=scores)


class Letters(EmbeddingServiceServicer):
    """Embeds a text as its length; a target model doubles it."""

    async def Embed(  # noqa: N802 - the name is the wire's
        self, request: embedding.EmbedRequest, context: Context
    ) -> embedding.EmbedResponse:
        """Embed."""
        del context
        factor = 2.0 if request.target_model else 1.0
        found = [embedding.Embedding(values=[len(t) * factor, 0.0]) for t in request.texts]
        adapted = bool(request.target_model)
        return embedding.EmbedResponse(embeddings=found, encoder="e", adapted=adapted)

    async def Profile(  # noqa: N802 - the name is the wire's
        self, request: embedding.ProfileRequest, context: Context
    ) -> embedding.ProfileResponse:
        """Profile."""
        del context
        found = [embedding.Profile(difficulty=0.5) for _ in request.texts]
        return embedding.ProfileResponse(profiles=found)


class Judge(RouterServiceServicer):
    """Knows the decision "d1", which counts once, and the etag "1"."""

    def __init__(self) -> None:
        self.verdicts: dict[str, router.SubmitFeedbackRequest] = {}
        self.reported: list[router.ReportOutcomeRequest] = []

    async def Route(  # noqa: N802 - the name is the wire's
        self, request: router.RouteRequest, context: Context
    ) -> router.RouteResponse:
        """Choose the model asked for."""
        del context
        plan = decisions.PlanSpec(single=decisions.SinglePlan(model=request.generate.model))
        return router.RouteResponse(decision=decisions.Decision(id="d2", plan=plan))

    async def SubmitFeedback(  # noqa: N802 - the name is the wire's
        self, request: router.SubmitFeedbackRequest, context: Context
    ) -> router.SubmitFeedbackResponse:
        """Take a verdict."""
        del context
        if request.decision_id != "d1":
            raise UnknownDecisionError(f"no decision {request.decision_id!r}")
        new = request.decision_id not in self.verdicts
        self.verdicts.setdefault(request.decision_id, request)
        right = request.verification.answer == request.verification.reference
        return router.SubmitFeedbackResponse(counted=new, score=float(right))

    async def ForgetTexts(  # noqa: N802 - the name is the wire's
        self, request: router.ForgetTextsRequest, context: Context
    ) -> router.ForgetTextsResponse:
        """Know the texts of one decision."""
        del context
        return router.ForgetTextsResponse(forgotten=request.decision_id == "d1")

    async def WatchDecisions(  # noqa: N802 - the name is the wire's
        self, request: router.WatchDecisionsRequest, context: Context
    ) -> AsyncIterator[router.WatchDecisionsResponse]:
        """Stream one decision."""
        del context
        one = decisions.Decision(id=request.model)
        yield router.WatchDecisionsResponse(decision=one)

    async def GetPolicy(  # noqa: N802 - the name is the wire's
        self, request: router.GetPolicyRequest, context: Context
    ) -> router.GetPolicyResponse:
        """Name one policy."""
        del request, context
        return router.GetPolicyResponse(policies=[router.Policy(name="fast")], etag="1")

    async def ReportOutcome(  # noqa: N802 - the name is the wire's
        self, request: router.ReportOutcomeRequest, context: Context
    ) -> router.ReportOutcomeResponse:
        """Write it down."""
        del context
        self.reported.append(request)
        return router.ReportOutcomeResponse(counted=True)

    async def UpdatePolicy(  # noqa: N802 - the name is the wire's
        self, request: router.UpdatePolicyRequest, context: Context
    ) -> router.UpdatePolicyResponse:
        """Store it."""
        del context
        if request.etag not in ("", "1"):
            raise StaleEtagError("read again")
        return router.UpdatePolicyResponse(policy=request.policy, etag="2")


@dataclass(frozen=True)
class Served:
    """The scripted servers, and where they are."""

    target: str
    model: Scripted
    judge: Judge


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Serve the script on a free port."""
    server = grpc.aio.server(interceptors=[Scoped()])
    model, judge = Scripted(), Judge()
    add_InferenceServiceServicer_to_server(model, server)
    add_EmbeddingServiceServicer_to_server(Letters(), server)
    add_RouterServiceServicer_to_server(judge, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Served(f"127.0.0.1:{port}", model, judge)
    await server.stop(grace=None)


@both_clients
async def test_asks(served: Served, kind: Kind) -> None:
    """The text arrives piece by piece, and what was left out is left to the server."""
    async with kind(served.target) as zeta:
        assert [text async for text in zeta.ask("a b", temperature=0.0)] == ["a ", "b "]

    (request,) = served.model.seen
    assert request.sampling.temperature == 0.0
    assert request.sampling.HasField("temperature")
    assert not request.HasField("max_tokens")


@both_clients
async def test_answers_are_whole(served: Served, kind: Kind) -> None:
    """Several samples come with a text and an end each; one sample is asked for as ever."""
    async with kind(served.target) as zeta:
        several = await zeta.answers("a b", samples=3, seed=5)
        single = await zeta.answers("a b")

    assert [s.text for s in several.samples] == ["a b ", "other 1", "other 2"]
    assert [s.finish_reason for s in several.samples] == ["stop", "length", "length"]
    assert [s.mean_logprob for s in several.samples] == [None, -0.5, -0.5]
    assert several.text == "a b "
    (only,) = single.samples
    assert (only.text, only.finish_reason, only.completion_tokens) == ("a b ", "stop", 2)
    first, second = served.model.seen
    assert (first.samples, first.sampling.seed) == (3, 5)
    assert not second.HasField("samples")


@both_clients
async def test_conversations_and_sessions(served: Served, kind: Kind) -> None:
    """Every message is sent with its role, the session and the consent."""
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]

    async with kind(served.target) as zeta:
        async for _ in zeta.ask(said, session_id="s1", consent_to_train=True):
            pass
        await zeta.answers(said, session_id="s1", consent_to_train=True)
        await zeta.answers("a")

    plain = served.model.seen.pop(2)
    assert (plain.session_id, plain.consent_to_train) == ("", False)
    assert len(served.model.seen) == 2
    for request in served.model.seen:
        assert (request.session_id, request.consent_to_train) == ("s1", True)
        turns = [(m.role, m.content) for m in request.messages.messages]
        assert turns == [
            (inference.ROLE_SYSTEM, "Be brief."),
            (inference.ROLE_USER, "a"),
            (inference.ROLE_ASSISTANT, "b"),
            (inference.ROLE_USER, "c"),
        ]


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        ({"role": "boss", "content": "a"}, "messages[1].role"),
        ({"role": "user", "text": "a"}, "messages[1]"),
        ({"role": "user", "content": ["a"]}, "messages[1].content"),
    ],
)
def test_a_wrong_message_is_refused_by_name(turn: dict[str, str], field: str) -> None:
    """Before anything is sent, with what was given."""
    with pytest.raises(InvalidRequestError) as refused:
        question([{"role": "user", "content": "a"}, turn])
    (wrong,) = refused.value.violations
    assert wrong.field == field
    assert "got " in wrong.description


@both_clients
async def test_streams_events(served: Served, kind: Kind) -> None:
    """All events are there, in order."""
    async with kind(served.target) as zeta:
        events = [e.WhichOneof("event") async for e in zeta.generate(question("a"))]

    assert events == ["started", "delta", "finished"]


@both_clients
async def test_names_wrong_fields(served: Served, kind: Kind) -> None:
    """A refusal arrives as the error that the server raised, with its violations."""
    async with kind(served.target) as zeta:
        with pytest.raises(InvalidRequestError) as refused:
            await anext(zeta.ask(""))

    assert [v.field for v in refused.value.violations] == ["messages.messages[0].content"]


@both_clients
async def test_says_when_to_retry(served: Served, kind: Kind) -> None:
    """An overloaded server's advice reaches the caller."""
    async with kind(served.target) as zeta:
        with pytest.raises(OverloadedError) as refused:
            await anext(zeta.ask("too much"))

    assert refused.value.retry_after_s == 1.5


@both_clients
async def test_notices_what_is_cut_short(served: Served, kind: Kind) -> None:
    """An answer without its last event is an error, after all that came of it."""
    texts = []

    async def listen() -> None:
        async with kind(served.target) as zeta:
            async for text in zeta.ask("cut short"):
                texts.append(text)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(StreamBrokenError):
        await listen()
    assert texts == ["cut ", "short "]


@both_clients
async def test_deadline_ends_an_answer(served: Served, kind: Kind) -> None:
    """A deadline that passes is an error of its own, and the server stops working."""

    async def listen() -> None:
        async with kind(served.target) as zeta:
            async for _ in zeta.ask("never ends", deadline_s=0.2):
                pass

    with pytest.raises(DeadlinePassedError):
        await listen()
    await asyncio.wait_for(served.model.left.wait(), 10)


@both_clients
async def test_leaving_stops_the_work(served: Served, kind: Kind) -> None:
    """A caller that leaves a stream cancels it."""
    async with kind(served.target) as zeta:
        stream = zeta.generate(question("never ends"))
        await anext(stream)
        await stream.aclose()

        await asyncio.wait_for(served.model.left.wait(), 10)


@both_clients
async def test_unreachable(tmp_path: Path, kind: Kind) -> None:
    """Where nobody listens, the error names the address."""
    async with kind(f"unix:{tmp_path}/nobody") as zeta:
        with pytest.raises(UnavailableError, match="nobody"):
            await zeta.list_models()


@both_clients
async def test_unary_calls(served: Served, kind: Kind) -> None:
    """Every unary call returns what the server said."""
    async with kind(served.target) as zeta:
        assert await zeta.count_tokens("a b c") == 3
        assert [m.name for m in await zeta.list_models()] == ["small"]
        assert [s.logprob for s in await zeta.score("q", ["yes", "no"])] == [-3, -2]
        assert (await zeta.profile(["a"]))[0].difficulty == 0.5
        assert (await zeta.route(question("q", model="big"))).plan.single.model == "big"
        assert [d.decision.id async for d in zeta.watch_decisions("small")] == ["small"]
        assert (await zeta.embed(["ab"], "big")).tolist() == [[4.0, 0.0]]
        assert [await zeta.forget_texts(name) for name in ("d1", "d2")] == [True, False]


@both_clients
async def test_feedback_counts_once(served: Served, kind: Kind) -> None:
    """A repeated verdict is not counted, an unknown decision refused."""
    async with kind(served.target) as zeta:
        assert await zeta.feedback("d1", 0.0)
        assert not await zeta.feedback("d1", 1.0)
        with pytest.raises(UnknownDecisionError):
            await zeta.feedback("d9", 1.0)

    assert served.judge.verdicts["d1"].WhichOneof("verdict") == "score"


@both_clients
async def test_a_model_judges(served: Served, kind: Kind) -> None:
    """It is shown question and answer, and says how much likelier "yes" is than "no"."""
    async with kind(served.target) as zeta:
        found = await zeta.judge("2 + 2?", "4", "big")

    assert found == pytest.approx(1.0 / (1.0 + np.e))  # "yes" is longer by one letter
    (asked,) = served.model.scored
    assert (asked.model, list(asked.continuations)) == ("big", ["yes", "no"])
    first, answer, _ = asked.messages.messages
    assert (first.content, answer.content) == ("2 + 2?", "4")
    assert answer.role == inference.ROLE_ASSISTANT


@both_clients
async def test_feedback_compares(served: Served, kind: Kind) -> None:
    """A preference names the other answer."""
    async with kind(served.target) as zeta:
        await zeta.feedback("d1", better_than="d0", preference=0.75)

    comparison = served.judge.verdicts["d1"].comparison
    assert (comparison.other_decision_id, comparison.preference) == ("d0", 0.75)


@both_clients
async def test_a_verifier_judges(served: Served, kind: Kind) -> None:
    """The router is given name, answer and reference, and says the score."""
    async with kind(served.target) as client:
        assert await client.verify("d1", "exact", "4", "4") == 1.0

    asked = served.judge.verdicts["d1"].verification
    assert (asked.verifier, asked.answer, asked.reference) == ("exact", "4", "4")
    judged = ("feedback", "d1", "--verifier", "exact", "--answer", "5", "--reference", "4")
    code, out, _ = await zeta(*judged, "--json", "--target", served.target)
    assert code == 0
    assert json.loads(out) == {"decision_id": "d1", "verifier": "exact", "score": 0.0}


@both_clients
async def test_policy_updates_need_the_current_etag(served: Served, kind: Kind) -> None:
    """A stale etag is refused, the current one taken."""
    async with kind(served.target) as zeta:
        etag = (await zeta.policies()).etag
        assert (await zeta.update_policy(router.Policy(name="fast"), etag=etag)).etag == "2"
        with pytest.raises(StaleEtagError):
            await zeta.update_policy(router.Policy(name="fast"), etag="0")


async def test_embeds_for_a_model(served: Served) -> None:
    """One text is a vector, a list of texts is a matrix, and the model matters."""

    def work() -> None:
        with Client(served.target) as zeta:
            assert g_zeta_embed_text("abc", client=zeta).shape == (2,)
            rows = g_zeta_embed_text(["a", "bc"], "big", client=zeta)
        assert rows.dtype == np.float32
        assert rows.tolist() == [[2.0, 0.0], [4.0, 0.0]]

    await asyncio.to_thread(work)


@pytest.fixture(scope="module")
def mutual_tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Make a certificate that is its own authority, good for both sides."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=zeta", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", cert, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    return Tls(cert=cert, key=key, ca=cert, require_client_cert=True)


@both_clients
async def test_tls_from_the_configuration(mutual_tls: Tls, kind: Kind) -> None:
    """Clients show and check certificates as the configuration says; a plain one fails."""
    server = grpc.aio.server(interceptors=[Scoped()])
    add_InferenceServiceServicer_to_server(Scripted(), server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(mutual_tls))
    await server.start()
    target, settings = f"127.0.0.1:{port}", Server(tls=mutual_tls)

    async with kind(target, settings=settings) as zeta:
        assert await zeta.count_tokens("a b c") == 3
    async with kind(target) as plain:
        with pytest.raises(UnavailableError):
            await plain.count_tokens("a")
    await server.stop(grace=None)


async def zeta(*arguments: str) -> tuple[int, str, str]:
    """Run the program; return exit code, stdout and stderr."""
    program = "from zeta_client.cli import main; main()"
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=PIPE, stderr=PIPE
    )
    out, err = await running.communicate()
    assert running.returncode is not None
    return running.returncode, out.decode(), err.decode()


async def test_ask_prints_the_answer_alone(served: Served) -> None:
    """The answer is all there is on stdout; what it took is told on stderr."""
    code, out, err = await zeta("ask", "a b", "--target", served.target)

    assert (code, out) == (0, "a b \n")
    assert "single(small)" in err


async def test_ask_as_json_ends_with_the_whole(served: Served) -> None:
    """Every line is an object, and the last one has the promised keys."""
    code, out, _ = await zeta("ask", "a b", "--json", "--target", served.target)

    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["delta"]["text"] for line in lines[:-1]] == ["a ", "b "]
    assert lines[-1].keys() == {
        *("text", "model", "plan", "decision_id", "finish_reason", "usage"),
        *("ttft_s", "total_s", "handovers"),
    }
    assert lines[-1]["text"] == "a b "
    assert lines[-1]["finish_reason"] == "stop"


async def test_ask_goes_on_with_a_conversation(served: Served, tmp_path: Path) -> None:
    """The messages of the file come before the prompt; session and consent are the request's."""
    file = tmp_path / "said.json"
    file.write_text('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]')
    options = ("--session", "s1", "--consent-to-train", "--target", served.target)
    code, _, _ = await zeta("ask", "c", "--messages", str(file), *options)

    (request,) = served.model.seen
    assert code == 0
    assert [m.content for m in request.messages.messages] == ["a", "b", "c"]
    assert (request.session_id, request.consent_to_train) == ("s1", True)

    file.write_text('[{"role": "boss", "content": "a"}]')
    code, out, err = await zeta("ask", "c", "--messages", str(file), *options)
    assert (code, out) == (1, "")
    assert err.startswith("error: messages[0].role: must be one of system, user, assistant")


async def test_feedback_compares_on_the_command_line(served: Served) -> None:
    """A preference instead of a score; both or neither are refused."""
    compared = ("feedback", "d1", "--better-than", "d0", "--target", served.target)
    code, _, _ = await zeta(*compared, "--preference", "0.5")

    comparison = served.judge.verdicts["d1"].comparison
    assert code == 0
    assert (comparison.other_decision_id, comparison.preference) == ("d0", 0.5)
    for wrong in ((*compared, "--score", "1"), ("feedback", "d1", "--target", served.target)):
        code, _, err = await zeta(*wrong)
        assert code == 1
        assert err == "error: give one of --score S, --better-than ID and --verifier NAME\n"


async def test_ask_shows_samples_one_after_the_other(served: Served) -> None:
    """A line each on stdout; as JSON each with its end."""
    code, out, err = await zeta("ask", "a b", "--samples", "2", "--target", served.target)
    assert (code, out.splitlines()) == (0, ["a b ", "other 1"])
    assert "sample 1" in err

    code, out, _ = await zeta("ask", "a b", "--samples", "2", "--json", "--target", served.target)
    last = json.loads(out.splitlines()[-1])
    assert code == 0
    assert [s["text"] for s in last["samples"]] == ["a b ", "other 1"]
    end = last["samples"][1]
    assert (end["finish_reason"], end["mean_logprob"]) == ("length", -0.5)


async def test_errors_are_one_sentence(served: Served) -> None:
    """A refused question ends with exit code 1, a sentence and no traceback."""
    code, out, err = await zeta("ask", "too much", "--target", served.target)

    assert (code, out) == (1, "")
    assert err == "error: the queue is full; try again in 1.5 s\n"


async def test_ctrl_c_ends_an_answer(served: Served) -> None:
    """An interrupted question is cancelled at the server too."""
    program = "from zeta_client.cli import main; main()"
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "ask", "never ends", "--target", served.target),
        stdout=PIPE,
        stderr=PIPE,
    )
    assert asking.stdout is not None
    assert await asking.stdout.read(6) == b"never "

    asking.send_signal(signal.SIGINT)

    _, err = await asking.communicate()
    assert (asking.returncode, err) == (130, b"")
    await asyncio.wait_for(served.model.left.wait(), 10)


async def test_small_commands(served: Served) -> None:
    """Route, embed and feedback print what the servers said, as one object."""
    for command, key, value in (
        (["route", "q", "--model", "big"], "id", "d2"),
        (["embed", "abc"], "embeddings", [[3.0, 0.0]]),
        (["feedback", "d1", "--score", "1"], "counted", True),
        (["forget", "d1"], "forgotten", True),
    ):
        code, out, _ = await zeta(*command, "--json", "--target", served.target)
        assert code == 0
        assert json.loads(out)[key] == value


@pytest.mark.parametrize(("options", "adapted"), [([], False), (["--model", "big"], True)])
async def test_embed_says_whether_vectors_are_adapted(
    served: Served, *, options: list[str], adapted: bool
) -> None:
    """Who asks for a model's adapter is told whether there was one."""
    _, out, _ = await zeta("embed", "abc", *options, "--json", "--target", served.target)
    said = json.loads(out)
    assert (said["encoder"], said["adapted"]) == ("e", adapted)
    _, out, _ = await zeta("embed", "abc", *options, "--target", served.target)
    assert ("vectors of e, adapted to big" in out) is adapted
