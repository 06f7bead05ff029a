"""Runs in the layouts of other tools: Hugging Face datasets and TensorBoard.

A library that only an export needs is imported when that export is asked for.
"""
