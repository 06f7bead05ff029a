"""A tiny SegFormer face parser in transformers' layout."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)


def make_parser(folder: Path, label: int, classes: int = 19) -> Path:
    """A tiny SegFormer in transformers' layout that sees one class everywhere."""
    torch.manual_seed(0)
    parser = SegformerForSemanticSegmentation(SegformerConfig(
        num_labels=classes, hidden_sizes=[4, 4, 4, 4], num_attention_heads=[1, 1, 1, 1],
        depths=[1, 1, 1, 1], decoder_hidden_size=4,
    ))
    torch.nn.init.zeros_(parser.decode_head.classifier.weight)
    torch.nn.init.zeros_(parser.decode_head.classifier.bias)
    parser.decode_head.classifier.bias.data[label] = 1.0
    parser.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
