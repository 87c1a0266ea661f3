"""`python -m furu.cli` is `furu`."""

from furu.cli import main

main()
