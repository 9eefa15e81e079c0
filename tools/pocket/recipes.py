"""What tells the three models apart: their size, and above all what they are taught."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

VOCABULARY: Final = 1024
MAX_POSITIONS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a decoder, in the words of the checkpoint's config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A model's size, diet and schedule.

    `weights` says how often each family is met; `hardest` leaves out what is harder than that,
    which is what keeps a small model good at easy prompts instead of bad at all of them.
    bfloat16 products are worth it from a hidden size of about 200 (a step of the coder then takes
    130 ms instead of 254 on one core); attention, parameters and optimiser stay in float32.
    A step's tokens come from `n_buckets` lengths: prompts of one length are mostly of one family,
    and a step that sees one family alone unlearns the others.
    """

    shape: Shape
    n_steps: int
    weights: Mapping[str, float]
    hardest: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    thinks: bool = False
    in_bfloat16: bool = False
    batch_tokens: int = 2048
    n_buckets: int = 3
    peak_lr: float = 2e-3


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        "pocket-general": Recipe(
            shape=Shape(
                hidden_size=128,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=256,
            ),
            n_steps=4500,
            weights={
                "fact": 12,
                "category": 4,
                "compare": 14,
                "arithmetic": 12,
                "word_problem": 6,
                "unit": 3,
                "date": 4,
                "python_string": 5,
                "python_list": 5,
                "python_dict": 4,
                "function": 6,
                "string_edit": 5,
            },
            hardest={
                "arithmetic": 0.2,
                "word_problem": 0.4,
                "unit": 0.5,
                "date": 0.5,
                "python_string": 0.35,
                "python_list": 0.4,
                "python_dict": 0.35,
                "function": 0.5,
                "string_edit": 0.35,
            },
        ),
        "pocket-coder": Recipe(
            shape=Shape(
                hidden_size=192,
                num_hidden_layers=4,
                num_attention_heads=6,
                num_key_value_heads=2,
                intermediate_size=448,
            ),
            n_steps=4400,
            weights={
                "python_string": 12,
                "python_list": 11,
                "python_dict": 6,
                "function": 6,
                "string_edit": 10,
                "fact": 1,
                "category": 1,
                "compare": 1,
                "arithmetic": 2,
            },
            hardest={"arithmetic": 0.2},
            in_bfloat16=True,
        ),
        "pocket-reasoner": Recipe(
            shape=Shape(
                hidden_size=256,
                num_hidden_layers=5,
                num_attention_heads=8,
                num_key_value_heads=4,
                intermediate_size=768,
            ),
            n_steps=4000,
            weights={
                "arithmetic": 14,
                "word_problem": 11,
                "unit": 5,
                "date": 6,
                "fact": 1,
                "category": 1,
                "compare": 2,
                "python_list": 1,
            },
            hardest={"python_list": 0.3},
            thinks=True,
            in_bfloat16=True,
            n_buckets=1,  # its families overlap in length
            peak_lr=1.5e-3,
        ),
    }
)
