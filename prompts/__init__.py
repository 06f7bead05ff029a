"""Suites as data, the prompt language of the avatars, and the builders of both."""
