"""``python -m synthaug``."""

from synthaug.cli import main

if __name__ == "__main__":
    main()
