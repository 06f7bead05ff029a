"""Suites from other people's files: read a layout, check the faces, draw prompts, write a suite."""
