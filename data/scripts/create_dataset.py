"""Download a data set to pick; the same as ``eqcctpro dataset download``."""

import sys

from eqcctpro.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["dataset", "download"]
    main()
