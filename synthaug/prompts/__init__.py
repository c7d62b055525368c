"""From words to text states: the WebUI's prompt language, and what text encoders say of it."""

from synthaug.prompts.courses import Course, Part, course_of
from synthaug.prompts.encode import TextStates, read_tokens, text_states_of, token_chunks
from synthaug.prompts.grammar import Run, weighted_runs
from synthaug.prompts.tags import LoraTag, tags_of, take_tags

__all__ = [
    "Course",
    "LoraTag",
    "Part",
    "Run",
    "TextStates",
    "course_of",
    "read_tokens",
    "tags_of",
    "take_tags",
    "text_states_of",
    "token_chunks",
    "weighted_runs",
]
