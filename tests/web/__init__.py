"""The web extra."""
