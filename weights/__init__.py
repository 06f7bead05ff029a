"""The embedded weights and their manifest (`manifest.json`)."""
