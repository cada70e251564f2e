"""Writes the little hub of the tests: files of the data sets' real layouts and columns, whose
texts were made up for them.

    python3 make.py        # pyarrow 26.0.1

Columns as on the data sets' pages at huggingface.co. The JSON lines of m-a-p/COIG-CQIA are written
by hand and are not made here.
"""

import gzip
import json
import pathlib

import pyarrow
import pyarrow.parquet

HERE = pathlib.Path(__file__).parent


def parquet(path, rows, schema):
    path = HERE / path
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(schema))
    pyarrow.parquet.write_table(table, path)


def json_lines(path, rows):
    path = HERE / path
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def dialogue(*turns):
    speakers = ["Human", "Assistant"] * len(turns)
    return "".join(f"\n\n{speaker}: {turn}" for speaker, turn in zip(speakers, turns))


string = pyarrow.string()

parquet(
    "simplescaling/s1K/data/train-00000-of-00001.parquet",
    [
        {"solution": "5", "question": "What is 2 plus 3?", "cot_type": "math",
         "source_type": "sums", "metadata": "{}", "cot": None,
         "thinking_trajectories": ["Two and three make five."], "attempt": "It is 5."},
        {"solution": "So it is \\boxed{42}.", "question": "What is 6 times 7?",
         "cot_type": "math", "source_type": "products", "metadata": "{}", "cot": None,
         "thinking_trajectories": ["Six sevens.", "They are 42."], "attempt": "\\boxed{41}"},
    ],
    [("solution", string), ("question", string), ("cot_type", string), ("source_type", string),
     ("metadata", string), ("cot", pyarrow.null()),
     ("thinking_trajectories", pyarrow.list_(string)), ("attempt", string)],
)

S1K_1_1 = ["solution", "question", "cot_type", "source_type", "metadata",
           "gemini_thinking_trajectory", "gemini_attempt", "deepseek_thinking_trajectory",
           "deepseek_attempt", "gemini_grade", "gemini_grade_reason", "deepseek_grade",
           "deepseek_grade_reason"]
parquet(
    "simplescaling/s1K-1.1/data/train-00000-of-00001.parquet",
    [
        dict(zip(S1K_1_1, ["A sum of two even numbers is even, as 2a + 2b = 2(a + b).",
                           "Is 4 plus 8 even?", "math", "sums", "{}", "Gemini thinks.",
                           "Yes.", "Both are even.", "So \\boxed{\\text{yes}}.",
                           "Yes", "right", "Yes", "right"])),
        dict(zip(S1K_1_1, ["9", "What is 3 squared?", "math", "squares", "{}", "Gemini thinks.",
                           "9", "Three threes.", "It is \\boxed{6}.",
                           "Yes", "right", "No", "wrong"])),
        dict(zip(S1K_1_1, ["7", "What is 10 minus 3?", "math", "sums", "{}", "Gemini thinks.",
                           "7", None, "\\boxed{7}", "Yes", "right", "Yes", "right"])),
    ],
    [(name, string) for name in S1K_1_1],
)

parquet(
    "argilla/ultrafeedback-binarized-preferences/data/train-00000-of-00001-1a2b3c.parquet",
    [
        {"source": "evol_instruct", "instruction": "Name a colour.",
         "chosen_response": "Blue is a colour.", "rejected_response": "Seven.",
         "chosen_avg_rating": 5.0, "rejected_avg_rating": 1.25, "chosen_model": "tiny"},
        {"source": "sharegpt", "instruction": "Name a tree.", "chosen_response": "An oak.",
         "rejected_response": "An oak.", "chosen_avg_rating": 4.0, "rejected_avg_rating": 4.0,
         "chosen_model": "tiny"},
        {"source": "flan", "instruction": "Name a river.", "chosen_response": "The Rhine.",
         "rejected_response": "A spoon.", "chosen_avg_rating": 4.5, "rejected_avg_rating": 1.0,
         "chosen_model": "tiny"},
    ],
    [("source", string), ("instruction", string), ("chosen_response", string),
     ("rejected_response", string), ("chosen_avg_rating", pyarrow.float64()),
     ("rejected_avg_rating", pyarrow.float64()), ("chosen_model", string)],
)

turns = pyarrow.list_(pyarrow.struct([("content", string), ("role", string)]))
parquet(
    "argilla/ultrafeedback-binarized-preferences-cleaned/data/train-00000-of-00001.parquet",
    [
        {"source": "evol_instruct", "prompt": "Name a colour.",
         "chosen": [{"content": "Name a colour.", "role": "user"},
                    {"content": "Blue.", "role": "assistant"}],
         "chosen-rating": 4.5, "chosen-model": "tiny",
         "rejected": [{"content": "Name a colour.", "role": "user"},
                      {"content": "Seven.", "role": "assistant"}],
         "rejected-rating": 1.0, "rejected-model": "tiny"},
    ],
    [("source", string), ("prompt", string), ("chosen", turns),
     ("chosen-rating", pyarrow.float64()), ("chosen-model", string), ("rejected", turns),
     ("rejected-rating", pyarrow.float64()), ("rejected-model", string)],
)

json_lines("Anthropic/hh-rlhf/harmless-base/train.jsonl.gz", [
    {"chosen": dialogue("Hi", "Hello!", "Why is the sky blue?", "Air scatters blue light."),
     "rejected": dialogue("Hi", "Hello!", "Why is the sky blue?", "It is painted.")},
    {"chosen": dialogue("What is a cow?", "An animal."),
     "rejected": dialogue("What is a horse?", "A plant.")},
])
json_lines("Anthropic/hh-rlhf/helpful-base/train.jsonl.gz", [
    {"chosen": dialogue("What is bread made of?", "Flour, water, salt and yeast."),
     "rejected": dialogue("What is bread made of?", "No.")},
    {"chosen": dialogue("Which way is north?", "To the left of east."),
     "rejected": dialogue("Which way is north?", "Up.")},
])
json_lines("Anthropic/hh-rlhf/helpful-base/test.jsonl.gz", [
    {"chosen": dialogue("Count to three.", "One, two, three."),
     "rejected": dialogue("Count to three.", "Three.")},
])
json_lines("Anthropic/hh-rlhf/red-team-attempts/red_team_attempts.jsonl.gz", [
    {"transcript": dialogue("Hello", "Hello!"), "rating": 0.0, "tags": None},
])
