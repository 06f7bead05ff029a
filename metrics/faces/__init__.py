"""Faces: detect them, align them, and match them to references."""
