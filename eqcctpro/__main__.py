"""``python -m eqcctpro``."""

from eqcctpro.cli import main

if __name__ == "__main__":
    main()
