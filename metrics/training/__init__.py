"""Training of the embedded networks that metrics use, on rendered avatars."""
