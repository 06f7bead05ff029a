"""The embedded scale's transformer, scheduler and text encoder: diffusers' and transformers'
classes in small configurations, built from a recipe or loaded from the embedded weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from idbench import embedded
from idbench.models.concat_id.attention import use_matrix_attention
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
    vae = build_vae(embedded.entry("vae")["config"])
    vae.load_state_dict(embedded.load_state("vae"))
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
    transformer = build_transformer(embedded.entry(name)["config"])
    transformer.load_state_dict(embedded.load_state(name))
    use_matrix_attention(transformer)
    return transformer.eval()
