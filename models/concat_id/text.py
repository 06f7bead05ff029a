"""Training of the text encoder: a T5 encoder learns to say what a prompt names.

Small linear heads read what is to happen (expression, motion and garment of each person by
place, background, light) from the mean of the token embeddings, for what the prompt names.
The heads are dropped afterwards; the encoder is frozen for the diffusion trainings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.models.concat_id.networks import TextEncoder, build_text_encoder, build_tokenizer
from idbench.prompts.avatars import scene as s
from idbench.prompts.language import description, vocabulary
from idbench.prompts.sampling import random_scene
from idbench.training import save
from idbench.training.fit import CHECKPOINT, fit, load_modules
from idbench.training.resumable_loop import Values
from idbench.training.schedule import linear, warmup

MAXIMUM_PEOPLE = 3


def _questions() -> dict[str, tuple[str, ...]]:
    """What the heads answer: name -> possible answers."""
    found: dict[str, tuple[str, ...]] = {"background": s.BACKGROUNDS, "light": s.LIGHTS}
    for i in range(MAXIMUM_PEOPLE):
        found |= {f"{name}:{i}": values for name, values in s.PERSON_VALUES.items()}
    return found


def _example(rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """A prompt and the answers it gives away."""
    people = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    scene = random_scene(rng, people)
    told = description(scene, rng)
    answers = {}
    for name in told.mentioned:
        kind, _, place = name.partition(":")
        if not place:
            answers[kind] = getattr(scene, kind)
            continue
        shown = scene.people[int(place)].attributes
        for part in ("colour", "pattern", "emblem") if kind == "garment" else (kind,):
            answers[f"{part}:{place}"] = shown[part]
    return told.text, answers


def _batch(
    size: int, rng: np.random.Generator, questions: dict[str, tuple[str, ...]]
) -> tuple[list[str], dict[str, torch.Tensor]]:
    rows = [_example(rng) for _ in range(size)]
    targets = {
        name: torch.tensor([known.index(a[name]) if name in a else -100 for _, a in rows])
        for name, known in questions.items()
    }
    return [text for text, _ in rows], targets


def train(
    recipe: dict[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of recipe `text_encoder`. Returns the share of right answers on new prompts."""
    torch.set_num_threads(recipe.get("threads", 1))
    torch.manual_seed(recipe["seed"])
    questions = _questions()
    tokenizer = build_tokenizer(vocabulary())
    config = {**recipe["network"], "vocab_size": len(tokenizer)}
    network = build_text_encoder(config)
    heads = nn.ModuleDict(
        {n.replace(":", "_"): nn.Linear(config["d_model"], len(a)) for n, a in questions.items()}
    )
    encoder, modules = TextEncoder(tokenizer, network), {"network": network, "heads": heads}
    if evaluate:
        load_modules(save.load(Path(state_dir) / CHECKPOINT), modules)
        return _measure(encoder, heads, questions, recipe)
    optimiser = torch.optim.AdamW(
        [*network.parameters(), *heads.parameters()], lr=recipe["learning_rate"],
        weight_decay=0.01,
    )
    total = recipe["steps"]

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([recipe["seed"], step])
        texts, targets = _batch(recipe["batch"], rng, questions)
        losses = [
            F.cross_entropy(logits, targets[name], ignore_index=-100)
            for name, logits in _answers(encoder, heads, texts, questions).items()
            if (targets[name] >= 0).any()
        ]
        return torch.stack(losses).sum(), {}

    def rate(step: int) -> float:
        return recipe["learning_rate"] * min(warmup(step, 100), 0.05 + linear(step, total))

    step = fit(recipe, state_dir, modules, optimiser, loss_of, rate=rate, resume=resume)
    measured = _measure(encoder, heads, questions, recipe)
    # The tied input embedding is stored once.
    weights = {k: v for k, v in network.state_dict().items() if k != "encoder.embed_tokens.weight"}
    about = {"recipe": recipe["name"], "seed": recipe["seed"], "steps": step}
    embedded.save_entry("text_encoder", weights, config=config, measured=measured, **about)
    embedded.save_entry(
        "text_encoder_tokenizer", tokenizer.backend_tokenizer.to_str().encode(), config={},
        measured={}, file="tokenizer.json", **about,
    )
    return measured


def _answers(
    encoder: TextEncoder, heads: nn.ModuleDict, texts: list[str],
    questions: dict[str, tuple[str, ...]],
) -> dict[str, torch.Tensor]:
    """Logits (n, answers) of every question."""
    rows = encoder.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    mask = rows.attention_mask.unsqueeze(-1)
    hidden = encoder.network(
        input_ids=rows.input_ids, attention_mask=rows.attention_mask
    ).last_hidden_state
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return {name: heads[name.replace(":", "_")](pooled) for name in questions}


@torch.no_grad()
def _measure(
    encoder: TextEncoder, heads: nn.ModuleDict, questions: dict[str, tuple[str, ...]],
    recipe: dict[str, Any],
) -> dict[str, float]:
    """Share of right answers for what new prompts name, by kind of question; and tokens."""
    rng = np.random.default_rng([recipe["seed"], 10**6])
    texts, targets = _batch(500, rng, questions)
    right: dict[str, list[torch.Tensor]] = {}
    for name, logits in _answers(encoder, heads, texts, questions).items():
        asked = targets[name] >= 0
        hit = (logits.argmax(1) == targets[name])[asked].float()
        right.setdefault(name.partition(":")[0], []).append(hit)
    lengths = [len(ids) for ids in encoder.tokenizer(texts).input_ids]
    values = {f"accuracy_{k}": round(float(torch.cat(v).mean()), 4) for k, v in right.items()}
    return {**values, "longest_prompt_tokens": max(lengths)}
