"""The networks that metrics read videos with, in their published layouts and any size."""
