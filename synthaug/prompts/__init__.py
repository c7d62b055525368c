"""From words to text states: the WebUI's prompt language, and what text encoders say of it."""

from synthaug.prompts.courses import Course, Part, course_of
from synthaug.prompts.encode import TextStates, read_tokens, text_states_of, token_chunks
from synthaug.prompts.grammar import Run, weighted_runs

__all__ = [
    "Course",
    "Part",
    "Run",
    "TextStates",
    "course_of",
    "read_tokens",
    "text_states_of",
    "token_chunks",
    "weighted_runs",
]
