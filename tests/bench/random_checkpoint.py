"""Write a random checkpoint of Qwen2.5-0.5B's dimensions: a tokenizer of its size, bfloat16.

    python -m tests.bench.random_checkpoint DIRECTORY

Speed does not depend on what weights say, and nothing has to be fetched.
"""

import argparse
import itertools
import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.model.graph.checkpoint import expected
from tests.unit.services.model import tiny

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
"""What Qwen2.5-0.5B-Instruct's config.json says."""
_PLAIN_TOKENS = 151643
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SPREAD = 0.02


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


def write(folder: Path) -> Path:
    """Write config.json, a tokenizer and random weights; return *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    template = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tiny.TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(template), encoding="utf-8")
    _tokenizer().save(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(7)
    weights = {
        name: (
            rng.standard_normal(size, np.float32) * _SPREAD
            if len(size) > 1 or name.endswith("bias")
            else np.ones(size, np.float32)
        ).astype(ml_dtypes.bfloat16)
        for name, size in expected(tiny.shape(CONFIG)).items()
    }
    save_file(weights, str(folder / "model.safetensors"), {"format": "pt"})
    return folder


def _tokenizer() -> Tokenizer:
    """Return one whose tokens are bytes, pairs of bytes, and pairs with a third."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product(alphabet, alphabet))
    threes = itertools.product(("".join(p) for p in pairs), alphabet)
    room = _PLAIN_TOKENS - len(alphabet) - len(pairs)
    merges = [*pairs, *itertools.islice(threes, room)]
    vocabulary = {t: i for i, t in enumerate([*alphabet, *("".join(m) for m in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in _SPECIAL])
    return tokenizer


if __name__ == "__main__":
    main()
