"""metrics.csv has each step once, whatever happens to the process that writes it."""

from pathlib import Path

from ldm.training.metrics_csv import MetricsCSV, read_rows


def test_metrics_of_one_step_share_a_row_and_new_ones_add_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsCSV(path)
    logger.log_metrics({"train/loss": 0.1}, 0)
    logger.log_metrics({"train/loss": 1 / 3}, 1)
    logger.log_metrics({"val/loss": 5.0}, 1)
    logger.log_metrics({"train/loss": 2e-30}, 2)
    rows = read_rows(path)
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [row["val/loss"] for row in rows] == ["", "5.0", ""]
    assert [float(row["train/loss"]) for row in rows] == [0.1, 1 / 3, 2e-30]


def test_a_metric_that_comes_again_for_the_last_step_replaces_its_value(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsCSV(path)
    logger.log_metrics({"a": 1.0}, 0)
    for value in (12345.678, 2.0):
        logger.log_metrics({"a": value}, 1)
    logger.log_metrics({"a": 3.0}, 2)
    assert [row["a"] for row in read_rows(path)] == ["1.0", "2.0", "3.0"]


def test_a_resume_drops_the_rows_beyond_the_checkpoint_and_half_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsCSV(path)
    for step in range(5):
        logger.log_metrics({"a": float(step), "b": 0.5}, step)
    with open(path, "a") as file:
        file.write("5,5.")
    resumed = MetricsCSV(path, last_step=2)
    assert [row["step"] for row in read_rows(path)] == ["0", "1", "2"]
    resumed.log_metrics({"val": 7.0}, 2)
    resumed.log_metrics({"a": 30.0, "b": 0.5}, 3)
    rows = read_rows(path)
    assert [(row["step"], row["a"], row["val"]) for row in rows] == [
        ("0", "0.0", ""),
        ("1", "1.0", ""),
        ("2", "2.0", "7.0"),
        ("3", "30.0", ""),
    ]


def test_a_resume_before_the_first_row_starts_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsCSV(path).log_metrics({"a": 1.0}, 9)
    resumed = MetricsCSV(path, last_step=5)
    assert read_rows(path) == []
    resumed.log_metrics({"a": 2.0}, 6)
    assert [(row["step"], row["a"]) for row in read_rows(path)] == [("6", "2.0")]
