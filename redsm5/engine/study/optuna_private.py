"""What redsm5 uses of Optuna's private interface, all of it.

Optuna gives a `Trial`, which samples, reports and prunes, only to the process that asks for it. Of a trial that was
asked for earlier, by a driver that was killed or by another worker, `get_trials` gives a frozen copy, which
`Trial(study, id)` continues; but only the private `_trial_id` tells its id, which is not its number.

`QMCSampler` counts its points in the study's storage. A point that was counted and then lost by a kill would be
skipped, and two samplers could take the same one; a trial's number is a better count.
"""

from typing import Any

import optuna
from optuna.samplers import QMCSampler
from optuna.trial import FrozenTrial


def reopen(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> optuna.Trial:
    """This trial of the study as it is in the storage now: what it has drawn and reported is there, and can go on."""
    return optuna.Trial(study, trial._trial_id)


class NumberedQMCSampler(QMCSampler):
    """Gives each trial the point of the sequence that has the trial's number."""

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        self._number = trial.number
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, Any]) -> int:
        return self._number
