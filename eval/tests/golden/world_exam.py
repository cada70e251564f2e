"""Records what transformers thinks of 40 questions of the playground's exam about its world.

    python3 world_exam.py

Reads `world_exam/val/*.csv` beside it (the first eight questions of each subject of the exam that
`kindling quickstart` leaves), draws a small Llama and trains a small byte-level tokenizer from that
text, and writes both into `world_exam/model/` with the log-probabilities of letters and option
texts in `world_exam/expected.json`. PyTorch 2.15, transformers 5.23, f32 on the CPU.
"""

import csv
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent / "world_exam"
torch.manual_seed(7)
torch.set_num_threads(1)


def rows():
    for path in sorted((HERE / "val").glob("*.csv")):
        subject = path.stem.removesuffix("_val")
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield subject, row


def question_text(subject, row, shows_options):
    title = subject.replace("_", " ")
    text = f"The following are multiple choice questions (with answers) about {title}.\n\n"
    text += row["question"].strip() + "\n"
    if shows_options:
        text += "".join(f"{letter}. {row[letter]}\n" for letter in "ABCD")
    return text + "Answer:"


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([question_text(s, row, True) for s, row in rows()], trainer)
    return tokenizer


def logp(model, tokenizer, text, continuation):
    """As lm-eval encodes a pair: together, cut where the text alone would end."""
    prompt = tokenizer.encode(text).ids
    ids = prompt + tokenizer.encode(text + continuation).ids[len(prompt) :]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    logps = torch.log_softmax(logits.float(), dim=-1)
    return sum(logps[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))


tokenizer = make_tokenizer()
config = LlamaConfig(
    vocab_size=tokenizer.get_vocab_size(),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    tie_word_embeddings=True,
    initializer_range=0.3,
    bos_token_id=1,
    eos_token_id=2,
)
model = LlamaForCausalLM(config).eval()
folder = HERE / "model"
model.save_pretrained(folder)
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}\n')
expected = []
for subject, row in rows():
    shown, asked = (question_text(subject, row, shows) for shows in (True, False))
    expected.append(
        {
            "subject": subject,
            "id": row["id"],
            "letters": [logp(model, tokenizer, shown, f" {letter}") for letter in "ABCD"],
            "options": [logp(model, tokenizer, asked, f" {row[letter]}") for letter in "ABCD"],
        }
    )
(HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
print(len(expected), "questions,", config.vocab_size, "tokens")
