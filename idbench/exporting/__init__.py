"""Runs in the layouts of other tools: Hugging Face datasets and TensorBoard.

Each module writes one run; what they share is in `summary` and `pictures`. A library that only an
export needs is imported when that export is asked for.
"""
