"""`python -m centre` is the `centre` command."""

from centre.cli import main

main()
