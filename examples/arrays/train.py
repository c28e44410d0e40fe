"""A classifier that is no neural network: a linear model of scikit-learn, trained by stochastic gradient descent.

It shows what the engine needs of a model: `state_dict` and `load_state_dict` with arrays and values that JSON can hold.

just hpo study.script=examples/arrays/train.py study.space=examples/arrays/space.yaml study.trials=20
"""

from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from redsm5.engine.session import Session, run

CLASSES = np.arange(4)


class Model:
    """The classifier, and its state as arrays and plain values."""

    def __init__(self, alpha: float, eta0: float, seed: int) -> None:
        self.classifier = SGDClassifier(
            loss="log_loss", alpha=alpha, eta0=eta0, learning_rate="invscaling", shuffle=False, random_state=seed
        )

    def state_dict(self) -> dict[str, Any]:
        fitted = self.classifier
        if not hasattr(fitted, "coef_"):  # before the first batch
            return {"steps": 0.0}
        return {"coef": fitted.coef_, "intercept": fitted.intercept_, "steps": float(fitted.t_)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "coef" in state:
            self.classifier.partial_fit(np.zeros_like(state["coef"]), CLASSES)  # makes room for four classes
            self.classifier.coef_, self.classifier.intercept_ = state["coef"], state["intercept"]
            self.classifier.t_ = state["steps"]


def main(session: Session) -> None:
    p, seed = session.parameters, session.config.train.seed
    points, labels = make_classification(4000, 40, n_informative=10, n_classes=len(CLASSES), random_state=0)
    train, validation, train_labels, validation_labels = train_test_split(points, labels, random_state=0)
    model = Model(p["alpha"], p["eta0"], seed)

    session.track(model)
    for epoch in session.epochs():
        order = np.random.default_rng([seed, epoch]).permutation(len(train))  # the same ones after a resume
        for batch in session.batches(np.array_split(order, len(order) // p["batch_size"])):
            model.classifier.partial_fit(train[batch], train_labels[batch], CLASSES)
            session.step(log_loss(train_labels[batch], model.classifier.predict_proba(train[batch]), labels=CLASSES))
        probabilities = model.classifier.predict_proba(validation)
        session.report(
            {
                "val_loss": log_loss(validation_labels, probabilities, labels=CLASSES),
                "val_accuracy": float((probabilities.argmax(1) == validation_labels).mean()),
            }
        )
    session.finish()


if __name__ == "__main__":
    run(main)
