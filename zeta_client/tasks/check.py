"""Whether a model's text answers a task: the one place that says what counts as right."""

import re
from typing import Final

from zeta_client.tasks.task import Task

THOUGHT: Final = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
NUMBER: Final = re.compile(r"[-+]?\d+(?:\.\d+)?")


def is_correct(task: Task, text: str) -> bool:
    """Say whether `text`, without its leading thought, states exactly the task's answer.

    Numbers compare as numbers, so that `7` equals `7.0`; all else must match but for spacing.
    An unfinished thought has no answer behind it and is wrong.
    """
    return _normalise(final_text(text)) == _normalise(task.answer)


def final_text(text: str) -> str:
    """Return what follows the leading `<think>…</think>` block, stripped."""
    return THOUGHT.sub("", text, count=1).strip()


def _normalise(text: str) -> str | float:
    stripped = " ".join(text.split())
    return float(stripped) if NUMBER.fullmatch(stripped) else stripped
