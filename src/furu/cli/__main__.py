"""`python -m furu.cli` runs the command `furu`."""

from furu.cli import main

main()
