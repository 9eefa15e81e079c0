"""Traces are read whole, or refused with the line that is wrong."""

from pathlib import Path

import pytest

from services.kit.errors import ConfigError
from zeta_client.load.trace import Line, read

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return where to write a trace."""
    return tmp_path / "trace.csv"


def test_dates_and_seconds_are_read_in_order_of_time(written: Path) -> None:
    """Seven decimals, none, a zone, plain seconds: all are times; columns may be more."""
    written.write_text(
        "Extra," + HEAD + "x,2023-11-16 18:17:04.9799600,48,10\n"
        "x,2023-11-16 18:17:03,31,8\nx,2023-11-16T19:17:05+01:00,5,6\n"
    )
    lines = read(written)

    assert [line.prompt_tokens for line in lines] == [31, 48, 5]
    assert lines[1].at_s - lines[0].at_s == pytest.approx(1.97996)
    written.write_text(HEAD + "12.5,1,2\n")
    assert read(written) == [Line(at_s=12.5, prompt_tokens=1, output_tokens=2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "no column TIMESTAMP"),
        (HEAD, "holds no request"),
        ("", "no column"),
        (HEAD + "1,2,3\nsoon,2,3\n", "line 3: TIMESTAMP must be .*'soon'"),
        (HEAD + "nan,2,3\n", "line 2: TIMESTAMP must be .*'nan'"),
        (HEAD + "1,2,many\n", "line 2: GeneratedTokens must be .*'many'"),
        (HEAD + "1,-2,3\n", "line 2: ContextTokens must be .*'-2'"),
        (HEAD + "1,2\n", "line 2: GeneratedTokens must be .*''"),
    ],
)
def test_what_is_no_trace_is_refused(written: Path, text: str, expected: str) -> None:
    """The error names the file, and where it can the line and the value."""
    written.write_text(text)

    with pytest.raises(ConfigError, match=expected) as refused:
        read(written)
    assert str(written) in str(refused.value)


def test_a_missing_or_binary_file_is_an_error_too(tmp_path: Path) -> None:
    """No traceback for either."""
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="not a CSV file in UTF-8"):
        read(tmp_path / "binary.csv")
