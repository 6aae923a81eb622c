"""Deployment: SavedModel and TF Lite files, how they are verified, measured and described."""
