"""Which code made an artifact: fingerprints of the code of classes, and commits. Nothing is imported."""
