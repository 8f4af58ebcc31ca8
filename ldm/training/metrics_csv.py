"""metrics.csv with one row per step, preserved on resume (Lightning's CSVLogger overwrites the file)."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from ldm.atomic_files import write_text


class MetricsCSV(Logger):
    """Write metrics to a CSV file immediately.

    Metrics of one step share a row; a new metric adds a column. Floats are written with full precision.

    Args:
        path: the file; existing rows are kept.
        last_step: on resume, the step of the checkpoint; later rows, which will be logged again, are dropped.
    """

    def __init__(self, path: Path, last_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = ["step"]
        self._row: dict[str, str] = {}
        self._row_start = 0
        if last_step is not None and path.is_file() and getattr(rank_zero_only, "rank", 0) == 0:
            self._reopen(last_step)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """Empty: a run folder has a single version."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics of a step; metrics of the last step are added to its row."""
        assert step is not None
        if new := [name for name in metrics if name not in self.columns]:
            self._add_columns(new)
        if self._row.get("step") != str(step):
            self._row, self._row_start = (
                {"step": str(step)},
                self.path.stat().st_size if self.path.exists() else 0,
            )
            if self._row_start == 0:
                write_text(self.path, self._line(dict(zip(self.columns, self.columns, strict=True))))
                self._row_start = self.path.stat().st_size
        self._row.update({name: repr(float(value)) for name, value in metrics.items()})
        with open(self.path, "r+b") as file:
            file.seek(self._row_start)
            file.write(
                self._line(self._row).encode()
            )  # a single write, so that a kill cannot truncate the step number
            file.truncate()

    def _line(self, row: Mapping[str, str]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow(row)
        return text.getvalue()

    def _add_columns(self, names: list[str]) -> None:
        """Rewrite the file with more columns."""
        rows = read_rows(self.path) if self.path.exists() else []
        self.columns += names
        self._write(rows)
        if self._row:
            self._row_start = self.path.stat().st_size - len(self._line(self._row).encode())

    def _reopen(self, last_step: int) -> None:
        with open(self.path, newline="") as file:
            self.columns = next(csv.reader(file), ["step"])
        rows = [row for row in read_rows(self.path) if int(row["step"]) <= last_step]
        self._write(rows)
        if rows:
            self._row = {name: value for name, value in rows[-1].items() if value}
            self._row_start = self.path.stat().st_size - len(self._line(self._row).encode())

    def _write(self, rows: list[dict[str, str]]) -> None:
        header = dict(zip(self.columns, self.columns, strict=True))
        write_text(self.path, "".join(self._line(row) for row in [header, *rows]))


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Return the complete rows of a metrics file as text, "" for missing metrics."""
    with open(path, newline="") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]  # a kill may leave an incomplete row
    return [row for row in csv.DictReader(io.StringIO(whole)) if None not in row.values() and None not in row]
