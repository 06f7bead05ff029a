"""The avatars: a procedural world of synthetic people."""
