"""The embedded scale's transformer, scheduler and text encoder: diffusers' and transformers'
classes in small configurations, built from a recipe or loaded from the embedded weights; and an
attention that is quicker at these sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from idbench import embedded
from idbench.models.concat_id.autoencoder import build_vae, speed_up_single_frames
from idbench.models.concat_id.families import CogVideoX

TEXT_TOKENS = 32
CLIP_LATENT_FRAMES = 9


def build_transformer(config: Mapping[str, Any]) -> CogVideoXTransformer3DModel:
    """A transformer of random weights; positions are rotary, sizes in `config`."""
    return CogVideoXTransformer3DModel(
        **{"use_rotary_positional_embeddings": True, "max_text_seq_length": TEXT_TOKENS, **config}
    )


def build_scheduler() -> CogVideoXDPMScheduler:
    """CogVideoX's noise schedule, without its shift for large images (64x96 needs none)."""
    return CogVideoXDPMScheduler(
        beta_schedule="scaled_linear", prediction_type="v_prediction", clip_sample=False,
        timestep_spacing="trailing", rescale_betas_zero_snr=True, snr_shift_scale=1.0,
    )


def build_text_encoder(config: Mapping[str, Any]) -> T5EncoderModel:
    """A T5 encoder of random weights."""
    return T5EncoderModel(T5Config(dropout_rate=0.0, is_encoder_decoder=False, **config))


def build_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, words and single punctuation marks, 32 tokens."""
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    pattern = Regex(r"[a-z0-9]+|[^\sa-z0-9]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return _wrap(tokenizer)


def _wrap(tokenizer: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=TEXT_TOKENS, padding_side="right",
    )


@dataclass(frozen=True)
class TextEncoder:
    """Tokenizer and encoder together."""

    tokenizer: PreTrainedTokenizerFast
    network: T5EncoderModel

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embeddings (n, 32, D) of prompts; padding positions are zero."""
        family = CogVideoX(None, TEXT_TOKENS, mask_padding=True)
        return family.encode_text(self.tokenizer, self.network, prompts)

    def numpy(self, prompts: Sequence[str]) -> np.ndarray:
        """`__call__` as float16."""
        return self(prompts).half().numpy()


def load_vae() -> AutoencoderKLCogVideoX:
    """The embedded autoencoder, quick on single frames."""
    vae = embedded.built("vae", build_vae)
    speed_up_single_frames(vae)
    return vae.eval()


def load_text_encoder(name: str = "text_encoder") -> TextEncoder:
    """The embedded text encoder and its tokenizer."""
    network = build_text_encoder(embedded.entry(name)["config"])
    network.load_state_dict(embedded.load_state(name), strict=False)
    tokenizer = _wrap(Tokenizer.from_file(str(embedded.weight_path(f"{name}_tokenizer"))))
    return TextEncoder(tokenizer, network.eval())


def reference_fill(name: str) -> float:
    """Share of the canvas that faces fill in the references of an embedded transformer."""
    return float(embedded.entries().get(name, {}).get("reference_fill", 1.0))


def load_transformer(name: str) -> CogVideoXTransformer3DModel:
    """An embedded transformer, for example `transformer_base`; see `model.VARIANTS`."""
    transformer = embedded.built(name, build_transformer)
    use_matrix_attention(transformer)
    return transformer.eval()


# Attention


class _Attention(torch.autograd.Function):
    """softmax(q k^T scale) v of (B, N, D) tensors, keeping only the probabilities."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> Any:
        weights = torch.bmm(q, k.transpose(1, 2)).mul_(scale).softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        q, k, v, weights = ctx.saved_tensors
        inner = torch.bmm(gradient, v.transpose(1, 2))
        inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype).mul_(ctx.scale)
        return (
            torch.bmm(inner, k), torch.bmm(inner.transpose(1, 2), q),
            torch.bmm(weights.transpose(1, 2), gradient), None,
        )


class MatrixAttention:
    """Attention processor for `CogVideoXTransformer3DModel`, without masks and dropout. The rotary
    embedding is (tokens, D), or (B, tokens, D) if samples have different positions.

    The same function as diffusers' by matrix products: PyTorch's fused attention is slow on CPUs at
    these lengths, above all backwards. At 224 tokens and 3 heads of 64 in bfloat16, forward and
    backward take 8.7 ms a sample for 8 layers here and 20.2 ms there (47 and 89 ms at 512 tokens;
    one core, AVX-512 BF16)."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = encoder_hidden_states.shape[1]
        x = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        batch, tokens = x.shape[:2]

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, tokens, attn.heads, -1).transpose(1, 2)

        query, key, value = heads(attn.to_q(x)), heads(attn.to_k(x)), heads(attn.to_v(x))
        dtype = value.dtype
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            # Rows in front that leave the text tokens as they are.
            cos, sin = (
                F.pad(part, (0, 0, length, 0), value=fill)
                for part, fill in zip(image_rotary_emb, (1.0, 0.0), strict=True)
            )
            if cos.ndim == 3:  # every sample has positions of its own
                cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
            query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        dim = value.shape[-1]
        flat = [y.to(dtype).reshape(-1, tokens, dim) for y in (query, key, value)]
        output = _Attention.apply(*flat, dim**-0.5)
        output = output.view(batch, attn.heads, tokens, dim).transpose(1, 2).flatten(2)
        output = attn.to_out[0](output)
        return output[:, length:], output[:, :length]


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of channels (real, imaginary, real, ...) of (B, H, N, D)."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def use_matrix_attention(transformer: CogVideoXTransformer3DModel) -> None:
    """Replace the attention's computation; parameters stay as they are."""
    transformer.set_attn_processor(MatrixAttention())
