"""Tasks with one checkable answer: what the pocket fleet is trained, tested and shown on."""

from zeta_client.tasks.check import final_text, is_correct
from zeta_client.tasks.generate import DEFAULT_WEIGHTS, FAMILIES, generate, stream
from zeta_client.tasks.task import Kind, Split, Task, split_of

__all__ = [
    "DEFAULT_WEIGHTS",
    "FAMILIES",
    "Kind",
    "Split",
    "Task",
    "final_text",
    "generate",
    "is_correct",
    "split_of",
    "stream",
]
