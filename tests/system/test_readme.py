"""The README's configuration of one's own models is a fleet that runs."""

import re
from pathlib import Path

from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit import config
from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import ROOT, running

POCKET = ROOT / "services" / "model" / "pocket"
STANDS_FOR = {"small": POCKET / "pocket-general", "large": POCKET / "pocket-coder"}


def readme_s(folder: Path) -> config.FleetConfig:
    """Read the README's configuration as a newcomer has it, with models beside it."""
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file = folder / "fleet-of-my-own.toml"
    file.write_text(block)
    (folder / "models").mkdir()
    for name, directory in STANDS_FOR.items():
        (folder / "models" / name).symlink_to(directory)
    return config.load(file)


async def test_a_newcomer_s_fleet_answers(tmp_path: Path) -> None:
    """Every model that the README configures answers through the router, and one is chosen."""
    own = readme_s(tmp_path)
    with running(tmp_path, lambda _: own) as fleet:
        async with fleet.channel(fleet.router) as channel:
            stub = InferenceServiceStub(channel)
            for model in own.models:
                named = await answer(stub.Generate(question(model=model.name), timeout=TIMEOUT_S))
                assert named.finished.model == model.name
            chosen = await answer(stub.Generate(question(), timeout=TIMEOUT_S))

    assert {model.name for model in own.models} == set(STANDS_FOR)
    assert chosen.finished.model in STANDS_FOR
