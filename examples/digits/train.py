"""Handwritten digits, 8 by 8 pixels: a small convolutional network, as a plain Accelerate script.

just hpo study.script=examples/digits/train.py study.space=examples/digits/space.yaml study.trials=20
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from redsm5.engine.session import Session, run


def data() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """The same split for every trial: training, validation and test images with their digits."""
    images, digits = load_digits(return_X_y=True)
    rest, test, rest_digits, test_digits = train_test_split(images, digits, test_size=0.2, random_state=0)
    train, validation, *labels = train_test_split(rest, rest_digits, test_size=0.2, random_state=0)

    def dataset(x: object, y: object) -> TensorDataset:
        return TensorDataset(torch.tensor(x).float().view(-1, 1, 8, 8) / 16, torch.tensor(y))

    return dataset(train, labels[0]), dataset(validation, labels[1]), dataset(test, test_digits)


def network(channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(2 * channels * 16, 10),
    )  # fmt: skip


def main(session: Session) -> None:
    p = session.parameters
    accelerator = Accelerator()
    train, validation, test = data()
    model = network(p["channels"], p["dropout"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=p["learning_rate"], weight_decay=p["weight_decay"])
    loader = DataLoader(train, batch_size=p["batch_size"], shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    @torch.no_grad()
    def evaluate(dataset: TensorDataset) -> tuple[float, float]:
        model.eval()
        images, digits = (t.to(accelerator.device) for t in dataset.tensors)
        scores: Tensor = model(images)
        return nn.functional.cross_entropy(scores, digits).item(), (scores.argmax(1) == digits).float().mean().item()

    session.track(model, optimizer)
    for _ in session.epochs():
        model.train()
        for images, digits in session.batches(loader):
            loss = nn.functional.cross_entropy(model(images), digits)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            session.step(loss)
        loss, accuracy = evaluate(validation)
        session.report({"val_loss": loss, "val_accuracy": accuracy})

    def report() -> dict[str, float]:
        session.load_best()
        return {"test_accuracy": evaluate(test)[1]}

    session.finish(report)


if __name__ == "__main__":
    run(main)
