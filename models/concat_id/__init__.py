"""Concat-ID: references concatenated with the video latents along the sequence."""
