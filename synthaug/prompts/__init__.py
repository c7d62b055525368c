"""From words to text states."""

from synthaug.prompts.encode import TextStates, token_chunks

__all__ = ["TextStates", "token_chunks"]
