"""The models implemented here."""
