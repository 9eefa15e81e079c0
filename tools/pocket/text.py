"""Text in and out of the pocket models: the tokenizer, the chat format, batches of examples.

Every digit is a token, and so is every letter between quotes, so that sums and spelling are
read as they are done; only words that follow a space, a dot or a capital are merged.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from tools.pocket.recipes import MAX_POSITIONS, VOCABULARY, Recipe
from zeta_client.tasks import Task, generate, stream

PAD: Final = "<|endoftext|>"
START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
ADDED: Final = (
    AddedToken(PAD, special=True, normalized=False),
    AddedToken(START, special=True, normalized=False),
    AddedToken(END, special=True, normalized=False),
    AddedToken("<think>", special=False, normalized=False),
    AddedToken("</think>", special=False, normalized=False),
)
CHAT_TEMPLATE: Final = (
    "{%- for message in messages %}"
    "{%- set content = message['content'] %}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)
PIECES: Final = "|".join(  # noqa: FLY002 - a comment for each
    (
        r" [A-Za-z_]+",  # a word
        r"\.[a-z]+",  # a method
        r"[A-Z][a-z]+",  # a name at the start of a line
        r"[a-z_]+(?=[(\[])",  # a function
        r"(?:user|assistant|system)(?=\n)",  # a role
        r" +(?= [A-Za-z])",  # indentation
        r"[A-Za-z]",
        r"[0-9]",
        r" ?[^\sA-Za-z0-9](?: (?=[0-9]))?",  # an operator, with the spaces around it
        r"\s",
    )
)
SYSTEM: Final = ("You are a helpful assistant.", "Answer briefly.", "Be brief and exact.")
SHARE_WITH_SYSTEM: Final = 0.03
IGNORED: Final = -100
TASKS_PER_POOL: Final = 4096
TASKS_TO_LEARN_WORDS: Final = 30_000


def trained_tokenizer(seed: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer trained on training prompts alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tasks = generate(TASKS_TO_LEARN_WORDS, split="train", seed=seed)
    tokenizer.train_from_iterator(
        (f"user\n{task.prompt}\nassistant\nsystem\n{task.answer}\n{SYSTEM}" for task in tasks),
        trainer,
    )
    tokenizer.add_tokens(list(ADDED))
    tokenizer.add_special_tokens([token for token in ADDED if token.special])
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token that must be there."""
    found = tokenizer.token_to_id(token)
    assert found is not None, token
    return found


def chat(prompt: str, system: str = "") -> str:
    """Return what the chat template renders for one user message and a generation prompt."""
    head = f"{START}system\n{system}{END}\n" if system else ""
    return f"{head}{START}user\n{prompt}{END}\n{START}assistant\n"


def reply(task: Task, *, thinks: bool) -> str:
    """Return the text to be learnt: the steps, if the model thinks and has any, and the answer."""
    thought = f"<think>\n{task.solution}\n</think>\n" if thinks and task.solution else ""
    return f"{thought}{task.answer}{END}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Right-padded token ids (B, T) and, of the same shape, the next tokens or IGNORED."""

    tokens: Tensor
    targets: Tensor


def batches(recipe: Recipe, tokenizer: Tokenizer, *, seed: int, first: int) -> Iterator[Batch]:
    """Yield batches for ever, fresh tasks each time; `first` skips what was already learnt from.

    Tasks of like length share a batch, so that hardly any computation is spent on padding.
    """
    pools = _pools(recipe, tokenizer, seed)
    yield from islice((batch for pool in pools for batch in pool), first, None)


def _pools(recipe: Recipe, tokenizer: Tokenizer, seed: int) -> Iterator[list[Batch]]:
    rng = Random(seed)  # noqa: S311 - reproducible on purpose, nothing secret
    tasks = (task for task in stream(split="train", seed=seed, weights=recipe.weights))
    fit = (task for task in tasks if task.difficulty <= recipe.hardest.get(task.family, 1.0))
    pad = token_id(tokenizer, PAD)
    while True:
        pool = list(islice(fit, TASKS_PER_POOL))
        examples = sorted(_examples(pool, recipe, tokenizer, rng), key=lambda e: len(e[0]))
        groups = list(_grouped(examples, recipe.batch_tokens // recipe.n_buckets))
        rng.shuffle(groups)
        yield [_padded(group, pad) for group in groups]


Example = tuple[list[int], int]


def _examples(
    tasks: Iterable[Task], recipe: Recipe, tokenizer: Tokenizer, rng: Random
) -> Iterator[Example]:
    """Yield token ids and the length of the prompt among them, which is not learnt."""
    tasks = list(tasks)
    prompts = [
        chat(task.prompt, rng.choice(SYSTEM) if rng.random() < SHARE_WITH_SYSTEM else "")
        for task in tasks
    ]
    asked = tokenizer.encode_batch(prompts)
    answered = tokenizer.encode_batch([reply(task, thinks=recipe.thinks) for task in tasks])
    for prompt, answer in zip(asked, answered, strict=True):
        ids = prompt.ids + answer.ids
        if len(ids) <= MAX_POSITIONS:
            yield ids, len(prompt.ids)


def _grouped(examples: Sequence[Example], batch_tokens: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in examples:
        if group and (len(group) + 1) * len(example[0]) > batch_tokens:
            yield group
            group = []
        group.append(example)
    yield group


def _padded(group: Sequence[Example], pad: int) -> Batch:
    length = max(len(ids) for ids, _ in group)
    tokens = torch.full((len(group), length), pad)
    targets = torch.full((len(group), length), IGNORED)
    for row, (ids, asked) in enumerate(group):
        tokens[row, : len(ids)] = torch.tensor(ids)
        targets[row, asked - 1 : len(ids) - 1] = torch.tensor(ids[asked:])
    return Batch(tokens=tokens, targets=targets)
