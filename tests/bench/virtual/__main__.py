"""A minute of load in seconds: the whole router in virtual time, before simulated replicas.

    python -m tests.bench.virtual record OUT.json [--config FILE] [--prompts 4000] [--seed 0]
    python -m tests.bench.virtual run OUT.json [--config FILE] [--rate 8] [--mix reasoning=2,code=1]
        [--burst FACTOR,EVERY_S,FOR_S] [--trace [KIND=]FILE.csv] [--seeds 30,31] [--ways A,B,…]
        [--duration 24] [--deadline 4] [--returns 0] [--returning 1] [--warm-up 150] [--json]

`record` starts the fleet of the configuration and has each model answer prompts of the demo; that
takes real time. `run` learns on one half of them and asks the other half: every seed and way anew,
the same requests each way, at last without load. Of those who are refused a share of *returning*
comes back when told to, at most *returns* times. "Against idle" is the share of right answers less
what the router without load has right of the same requests. Steps take what `models.pace` says.
Models tell how sure they are of an answer at its end, not token by token, and prompts are profiled
by their text alone. The same arguments give the same figures.
"""

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

from services.kit import config as kit_config
from services.kit import log as kit_log
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError, ZetaError
from tests.bench.virtual import recorded, report
from tests.bench.virtual.run import Found, Load, run
from zeta_client.cli import shell
from zeta_client.load import options, ways
from zeta_client.load.figures import Objective

_CONFIG = Path("config/bench.toml")


def main() -> None:
    """Record, or run."""
    its = _arguments()
    kit_log.configure("virtual", "warning")
    try:
        config = kit_config.load(its.config)
        its.do(its, config)
    except ZetaError as error:
        sys.exit(f"error: {error}")


def _record(its: argparse.Namespace, config: FleetConfig) -> None:
    rows = asyncio.run(recorded.record(config, its.prompts, its.seed))
    recorded.write(its.file, rows)
    for model in config.models:
        right = sum(row.answers[model.name].right for row in rows)
        shell.say(f"{model.name:16} {right} of {len(rows)} right")


def _run(its: argparse.Namespace, config: FleetConfig) -> None:
    rows = recorded.read(its.file, config)
    names = [name for each in its.ways.split(",") if (name := each.strip())]
    chosen = ways.parse_all(names or [config.router.default_policy], config)
    found = [run(config, rows, chosen, _load(its, seed)) for seed in _seeds(its.seeds)]
    told = report.summary(found, Objective(total_s=its.deadline), its.duration)
    if its.json:
        shell.emit(_of(its, found, told))
        return
    count = sum(len(each.idle) for each in found)
    title = f"{count} requests in {len(found)} x {its.duration:g} s"
    shell.out().print(report.table(told, title))
    at_least, at_most = report.known_per_s(found, its.duration)
    shell.out().print(
        f"all known beforehand, each kind on its own model: {at_least:.2f} good/s found, "
        f"{at_most:.2f} at most"
    )


def _of(its: argparse.Namespace, found: list[Found], told: dict[str, Any]) -> dict[str, Any]:
    idle = [right for each in found for right in each.idle]
    slo = {"ttft_s": None, "total_s": its.deadline}
    at_least, at_most = report.known_per_s(found, its.duration)
    return {
        "duration_s": its.duration,
        "seeds": _seeds(its.seeds),
        "slo": slo,
        "idle_right_ratio": sum(idle) / len(idle),
        "known_good_per_s": {"found": at_least, "most": at_most},
        "runs": told,
    }


def _load(its: argparse.Namespace, seed: int) -> Load:
    return Load(
        arrivals=options.arrivals_of(its.rate, its.duration, its.burst, its.trace, seed),
        mix=options.weights("--mix", its.mix, options.KINDS),
        deadline_s=its.deadline,
        returns=its.returns,
        returning=its.returning,
        warm_up=its.warm_up,
        seed=seed,
    )


def _seeds(text: str) -> list[int]:
    try:
        return [_whole(part) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--seeds {text}: {error}") from None


def _whole(text: str, least: int = 0) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _share(text: str) -> float:
    if (value := _positive(text)) > 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in (0, 1]")
    return value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, do in (("record", _record), ("run", _run)):
        command = commands.add_parser(name)
        command.set_defaults(do=do)
        command.add_argument("file", type=Path, metavar="FILE.json")
        command.add_argument("--config", type=Path, default=_CONFIG, metavar="FILE")
        add = _recording if do is _record else _running
        add(command)
    return parser.parse_args()


def _recording(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompts", type=partial(_whole, least=1), default=4000, metavar="N")
    command.add_argument("--seed", type=_whole, default=0, help="of the prompts")


def _running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rate", type=_positive, default=20.0, help="mean requests per second")
    command.add_argument("--duration", type=_positive, default=24.0, metavar="S")
    command.add_argument("--ways", default="balanced,static:least_request", metavar="A,B,…")
    command.add_argument("--mix", default="code=1,reasoning=1,general=1", metavar="KIND=W,…")
    command.add_argument("--deadline", type=_positive, default=4.0, metavar="S")
    command.add_argument("--burst", default="", metavar="FACTOR,EVERY_S,FOR_S")
    command.add_argument("--trace", action="append", default=[], metavar="[KIND=]FILE.csv")
    command.add_argument("--returns", type=_whole, default=0, metavar="N")
    command.add_argument("--returning", type=_share, default=1.0, metavar="SHARE")
    command.add_argument("--warm-up", type=_whole, default=150, metavar="N")
    command.add_argument("--seeds", default="0", metavar="N,N,…")
    command.add_argument("--json", action="store_true")


if __name__ == "__main__":
    main()
