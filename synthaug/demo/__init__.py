"""The whole road on made-up photos, in one command: ``synthaug demo``."""

from synthaug.demo.run import demo

__all__ = ["demo"]
