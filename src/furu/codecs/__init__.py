"""How results are stored: as typed JSON, or as pickles for classes that opt in."""
