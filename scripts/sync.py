"""Ship the metrics that wait in the journals to MLflow: `just sync [--experiments DIR]`."""

import argparse
import os
from collections import defaultdict
from pathlib import Path

from redsm5 import files, paths
from redsm5.config import Config
from redsm5.errors import InputError, TrainingError, exit_with_message
from redsm5.tracking.logs import open_logs
from redsm5.tracking.shipper import Shipper, tracking_uri


def main() -> int:
    parser = argparse.ArgumentParser(prog="just sync", description=__doc__)
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    experiments: Path = parser.parse_args().experiments
    files.make_private()
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    log = open_logs(None)
    by_uri: dict[str, list[Path]] = defaultdict(list)
    for folder in paths.trial_dirs(experiments):
        document = files.read_json(folder / paths.CONFIG)
        if document and (folder / paths.TRIAL).exists():
            config = Config.model_validate({**document, "experiments": str(experiments)})
            by_uri[tracking_uri(config)].append(folder)
    left = 0
    for uri, folders in by_uri.items():
        shipper = Shipper(uri, experiments / paths.MLFLOW_ARTIFACTS, log.warning)
        for folder in folders:
            shipper.watch(folder)
        shipper.start()
        left += shipper.close()
    trials = sum(map(len, by_uri.values()))
    if left:
        raise TrainingError(f"{left} rows still wait in the journals", remedy="Start MLflow and run `just sync` again.")
    print(f"{trials} trials: every metric is in MLflow")
    return 0


exit_with_message(main)
