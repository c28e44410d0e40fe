"""What redsm5 uses of Optuna's private interface, all of it.

Optuna gives a `Trial`, which samples, reports and prunes, only to the process that asks for it. Of a trial that was
asked for earlier, by a driver that was killed or by another worker, `get_trials` gives a frozen copy, which
`Trial(study, id)` continues; but only the private `_trial_id` tells its id, which is not its number.
"""

import optuna
from optuna.trial import FrozenTrial


def reopen(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> optuna.Trial:
    """This trial of the study as it is in the storage now: what it has drawn and reported is there, and can go on."""
    return optuna.Trial(study, trial._trial_id)
