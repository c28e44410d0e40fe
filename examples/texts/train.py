"""Texts in two classes, invented here, and a BERT of Hugging Face's transformers in a plain loop.

just hpo study.script=examples/texts/train.py study.space=examples/texts/space.yaml study.trials=20
"""

import random

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from redsm5.engine.session import Session, run

WORDS = {
    0: ["rain", "storm", "cloud", "wind", "cold", "snow", "fog", "frost"],
    1: ["sun", "warm", "beach", "summer", "bright", "heat", "clear", "sky"],
}
FILLERS = ["the", "a", "today", "was", "very", "it", "felt", "in", "town", "and", "we", "again", "some", "day"]
VOCABULARY = ["[PAD]", "[CLS]", *FILLERS, *WORDS[0], *WORDS[1]]
Text = tuple[list[int], int]


def texts(count: int, seed: int) -> list[Text]:
    """Sentences on bad or good weather, as token ids: mostly fillers, and a few telling words, one of them wrong."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        label = draw.randrange(2)
        words = draw.choices(FILLERS, k=draw.randint(6, 14)) + draw.choices(WORDS[label], k=2)
        words += draw.choices(WORDS[1 - label], k=1)
        draw.shuffle(words)
        made.append(([1, *map(VOCABULARY.index, words)], label))
    return made


def collate(batch: list[Text]) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([label for _, label in batch])}


def bert(layers: int, dropout: float) -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(VOCABULARY), hidden_size=64, num_hidden_layers=layers, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=32, hidden_dropout_prob=dropout, num_labels=2,
        )
    )  # fmt: skip


def main(session: Session) -> None:
    p = session.parameters
    accelerator = Accelerator()
    model = bert(p["layers"], p["dropout"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=p["learning_rate"])
    loader = DataLoader(texts(480, seed=0), batch_size=p["batch_size"], shuffle=True, collate_fn=collate)
    validation = DataLoader(texts(160, seed=1), batch_size=80, collate_fn=collate)
    model, optimizer, loader, validation = accelerator.prepare(model, optimizer, loader, validation)
    steps = len(loader) * session.config.train.epochs
    schedule = get_linear_schedule_with_warmup(optimizer.optimizer, int(p["warmup"] * steps), steps)

    session.track(model, optimizer, schedule)
    for _ in session.epochs():
        model.train()
        for batch in session.batches(loader):
            loss = model(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            session.step(loss)
        model.eval()
        with torch.no_grad():
            outputs = [(model(**batch), batch["labels"]) for batch in validation]
        right = sum(int((output.logits.argmax(1) == labels).sum()) for output, labels in outputs)
        losses = [output.loss.item() for output, _ in outputs]
        session.report({"val_loss": sum(losses) / len(losses), "val_accuracy": right / 160})
    session.finish()


if __name__ == "__main__":
    run(main)
