"""metrics.csv with one row per step, preserved on resume (Lightning's CSVLogger overwrites the file)."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from ldm.atomic_files import write_text
from ldm.training.lightning_internals import is_first_process


class MetricsCSV(Logger):
    """Write metrics to a CSV file immediately.

    Metrics of one step share a row; a new metric adds a column. Floats are written with full precision.

    Args:
        path: the file; existing rows are kept.
        last_step: on resume, the step of the checkpoint; later rows, which will be logged again, are dropped.
    """

    name = "metrics"
    version = ""  # a run folder has a single one

    def __init__(self, path: Path, last_step: int | None = None) -> None:
        super().__init__()
        self.path, self.columns = path, ["step"]
        self._row: dict[str, str] = {}  # the last one, which starts at this byte of the file
        self._start = 0
        if last_step is not None and path.is_file() and is_first_process():
            with open(path, newline="") as file:
                self.columns = next(csv.reader(file), self.columns)
            self._rewrite([row for row in read_rows(path) if int(row["step"]) <= last_step])

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics of a step; metrics of the last step are added to its row."""
        exists = self.path.exists()
        if self._row.get("step") != str(step):
            self._row, self._start = {"step": str(step)}, self.path.stat().st_size if exists else 0
        self._row |= {name: repr(float(value)) for name, value in metrics.items()}
        new = [name for name in self._row if name not in self.columns]
        if new or not exists:
            self.columns += new
            others = [row for row in read_rows(self.path) if row["step"] != str(step)] if exists else []
            self._rewrite([*others, self._row])
            return
        with open(self.path, "r+b") as file:
            file.seek(self._start)
            file.write(self._line(self._row).encode())  # a single write: a kill cannot cut the step number
            file.truncate()

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        header = dict(zip(self.columns, self.columns, strict=True))
        lines = [self._line(row) for row in (header, *rows)]
        write_text(self.path, "".join(lines))
        self._row = {name: value for name, value in rows[-1].items() if value} if rows else {}
        self._start = len("".join(lines[:-1]).encode())

    def _line(self, row: Mapping[str, str]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow(row)
        return text.getvalue()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Return the complete rows of a metrics file as text, "" for missing metrics."""
    with open(path, newline="") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]  # a kill may leave an incomplete row
    return [row for row in csv.DictReader(io.StringIO(whole)) if None not in row.values() and None not in row]
