"""The systems to compare with: one file for each."""
