"""The whole road on made-up photos, in one command: ``synthaug demo``.

Nothing is imported here, so that the processes that render photos start at once.
"""

__all__: list[str] = []
