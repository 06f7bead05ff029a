"""The metrics: faces, protocols, the networks they use, and one file for each metric."""
