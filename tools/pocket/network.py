"""The decoder itself, Qwen3 as Hugging Face names and computes it.

Letters: B sequences, T new tokens, H heads, D head dimension, E hidden size, V vocabulary.
"""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.pocket.recipes import VOCABULARY, Shape

ROPE_THETA = 10_000.0
RMS_EPS = 1e-6
INIT_STD = 0.02

# keys and values (B, H, past, D) of one layer
Past: TypeAlias = tuple[Tensor, Tensor]
# cosine and sine (T, D) of each position
Angles: TypeAlias = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries = shape.num_attention_heads * shape.head_dim
        keys = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps=RMS_EPS)
        self.k_norm = nn.RMSNorm(shape.head_dim, eps=RMS_EPS)

    def forward(self, x: Tensor, angles: Angles, past: Past | None) -> tuple[Tensor, Past]:
        """Attend from T new tokens (B, T, E) to the past and to themselves."""
        rows, length, _ = x.shape
        heads = (rows, length, -1, self.shape.head_dim)
        q = rotated(self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2), angles)
        k = rotated(self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2), angles)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        shared = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k_shared, v_shared = (x.repeat_interleave(shared, dim=1).float() for x in (k, v))
        with torch.autocast("cpu", enabled=False):  # in bfloat16 its gradient takes 40 % of a step
            mixed = functional.scaled_dot_product_attention(
                q.float(), k_shared, v_shared, is_causal=past is None
            )
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1)), (k, v)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map each token by itself (B, T, E)."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each on a normalised input and added to it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=RMS_EPS)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=RMS_EPS)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, angles: Angles, past: Past | None) -> tuple[Tensor, Past]:
        """Return the changed tokens (B, T, E) and the layer's keys and values."""
        mixed, past = self.self_attn(self.input_layernorm(x), angles, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), past


class Body(nn.Module):
    """All but the output projection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.embed_tokens = nn.Embedding(VOCABULARY, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=RMS_EPS)

    def forward(self, tokens: Tensor, past: list[Past] | None = None) -> tuple[Tensor, list[Past]]:
        """Return the last hidden states (B, T, E) and the past including these tokens."""
        start = past[0][0].shape[2] if past else 0
        angles = rotary_angles(start, tokens.shape[1], self.head_dim)
        x, kept = self.embed_tokens(tokens), []
        for i, layer in enumerate(self.layers):
            x, layer_past = layer(x, angles, past[i] if past else None)
            kept.append(layer_past)
        return self.norm(x), kept


class Decoder(nn.Module):
    """A decoder whose parameters carry the names of a Qwen3 checkpoint; embeddings are tied."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.model = Body(shape)
        residual_std = INIT_STD / (2 * shape.num_hidden_layers) ** 0.5
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=INIT_STD)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=residual_std)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (…, V) of hidden states (…, E)."""
        return functional.linear(hidden, self.model.embed_tokens.weight)


def rotary_angles(start: int, length: int, head_dim: int) -> Angles:
    """Return cosine and sine (T, D) for positions from `start` on, both halves alike."""
    rates = ROPE_THETA ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(start, start + length).float(), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, angles: Angles) -> Tensor:
    """Rotate each pair (i, i + D/2) of queries or keys (B, H, T, D) by its position's angle."""
    cosine, sine = angles
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine
