"""`zeta model`: a checkpoint in, answers and figures out."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest
from typer.testing import CliRunner

from services.model import solo
from tests.unit.services.model import tiny
from zeta_client.cli.app import app


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint."""
    return tiny.write(tmp_path / "hf", shards=2)


@pytest.fixture
def zeta() -> CliRunner:
    """Return what runs the program in this process."""
    return CliRunner()


def test_an_imported_model_answers_like_its_checkpoint(
    zeta: CliRunner, source: Path, tmp_path: Path
) -> None:
    """Import, then generate: the tokens are those of the checkpoint itself."""
    out = tmp_path / "out"
    made = zeta.invoke(app, ["model", "import", str(source), str(out), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["precision"] == "fp32"

    options = ["--greedy", "--max-tokens", "16", "--json"]
    shown = zeta.invoke(app, ["model", "generate", str(out), "Hello", *options])
    found = json.loads(shown.stdout)
    expected = solo.generate(source, solo.Asked(prompt="Hello", max_tokens=16, temperature=0.0))
    assert found["token_ids"] == expected.token_ids
    assert found["text"] == expected.text
    assert set(found) >= {"prompt_token_ids", "finish_reason", "tokens_per_s"}


def test_a_model_for_tensorrt_says_what_to_run(
    zeta: CliRunner, source: Path, tmp_path: Path
) -> None:
    """Imported for the other runtime, it is refused here with the command."""
    out = tmp_path / "out"
    options = ["--dialect", "trt", "--precision", "bf16", "--json"]
    made = zeta.invoke(app, ["model", "import", str(source), str(out), *options])
    assert (json.loads(made.stdout)["dialect"], made.exit_code) == ("trt", 0)
    shown = zeta.invoke(app, ["model", "generate", str(out), "Hello"])
    assert (shown.exit_code, shown.stdout) == (1, "")
    words = " ".join(shown.stderr.split())
    assert words.endswith("zeta model import HF_DIR OUT_DIR --dialect ort")


def test_figures_are_a_table_or_json(zeta: CliRunner, source: Path) -> None:
    """Five batch sizes either way."""
    shown = zeta.invoke(app, ["model", "bench", str(source), "--threads", "1", "--json"])
    speeds = json.loads(shown.stdout)["speeds"]
    assert [row["batch"] for row in speeds] == [1, 2, 4, 8, 16]
    assert "of memory limit" in zeta.invoke(app, ["model", "bench", str(source)]).stdout


def test_a_prompt_may_begin_with_a_dash(zeta: CliRunner, source: Path) -> None:
    """After "--", as everywhere."""
    options = ["--max-tokens", "2", "--json"]
    shown = zeta.invoke(app, ["model", "generate", *options, "--", str(source), "--raw"])
    assert len(json.loads(shown.stdout)["token_ids"]) in (1, 2)


def test_a_prompt_that_is_no_text_is_one_sentence(zeta: CliRunner, source: Path) -> None:
    """Bytes that are not UTF-8 reach a program as lone surrogates."""
    shown = zeta.invoke(app, ["model", "generate", str(source), "\udcff", "--raw", "--json"])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == "error: prompt: '\\udcff' is no Unicode text; give UTF-8\n"


@pytest.mark.parametrize("command", [["generate", "Hello"], ["bench"]])
def test_a_wrong_directory_is_one_sentence(
    zeta: CliRunner, tmp_path: Path, command: list[str]
) -> None:
    """And nothing on stdout."""
    name, *rest = command
    shown = zeta.invoke(app, ["model", name, str(tmp_path / "none"), *rest, "--json"])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith("error: ")
    assert "none: no such model directory" in shown.stderr


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose import takes a moment."""
    changes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6}
    return tiny.write(tmp_path_factory.mktemp("slow") / "hf", changes=changes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_leaves_nothing(
    tmp_path: Path, slow: Path, number: signal.Signals
) -> None:
    """Stopped while it writes, it tidies up, and nothing runs on."""
    program = "from zeta_client.cli import main; main()"
    options = ("--precision", "int4", "--threads", "1")
    arguments = ("model", "import", str(slow), str(tmp_path / "out"), *options)
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
        until_s = monotonic() + 20
        while not any(tmp_path.glob(".out.*.partial/model.onnx.data")):
            assert monotonic() < until_s
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(20) == 130
    assert not any(tmp_path.iterdir())


def test_a_plan_is_built_for_tensorrt_only(zeta: CliRunner) -> None:
    """The pocket fleet runs on ONNX Runtime: nothing to build, and no traceback."""
    config = Path(__file__).parents[4] / "config" / "pocket.toml"
    shown = zeta.invoke(app, ["model", "build", "general-4b", "--config", str(config)])
    assert shown.exit_code == 1
    assert "model 'general-4b' runs on onnxruntime: nothing to build" in shown.stderr


def test_a_changed_byte_is_found(zeta: CliRunner, source: Path, tmp_path: Path) -> None:
    """A start compares the size of the weights alone; this compares all of them."""
    out = tmp_path / "out"
    assert zeta.invoke(app, ["model", "import", str(source), str(out), "--json"]).exit_code == 0
    whole = zeta.invoke(app, ["model", "check", str(out), "--json"])
    assert json.loads(whole.stdout)["files"] > 3
    weights = out / "model.onnx.data"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    broken = zeta.invoke(app, ["model", "check", str(out), "--json"])
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "model.onnx.data is not what was written" in broken.stderr
