"""What the metrics are worth: measured on avatars, where the truth is known."""
