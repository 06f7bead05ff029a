"""idbench measures identity-preserving video generation."""

__version__ = "0.1.0"
