"""From words to text states."""

from synthaug.prompts.encode import TextStates, read_tokens, text_states_of, token_chunks

__all__ = ["TextStates", "read_tokens", "text_states_of", "token_chunks"]
