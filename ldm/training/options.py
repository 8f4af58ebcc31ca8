"""Options of main.py's command line."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """One call of main.py.

    Args:
        action: "train", "validate", "test" or "dry-run".
        base: YAML files, merged left to right.
        overrides: `dotted.key=value`, merged last.
        resume: a run folder, or a checkpoint in one.
        name: name of the run folder, after the timestamp; None for the first YAML's.
        seed: seed of the run; None for the config's.
        logdir: parent of the run folders.
        scale_lr: scale the base learning rate by the global batch size.
        allow_targets: packages outside this project whose classes may be built from a config that may be
            untrusted. The user's own config, given with `base` for training, may name any class.
        program: the command that the user ran, for messages: "main.py" or "sca-dm train".
        resume_command: the command that continues the run after an interruption, for messages; None for
            --resume of `program`.
    """

    action: str
    base: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    resume: Path | None = None
    name: str | None = None
    seed: int | None = None
    logdir: Path = field(default=Path("runs"))
    scale_lr: bool = True
    allow_targets: tuple[str, ...] = ()
    program: str = "main.py"
    resume_command: str | None = None

    @property
    def trusted(self) -> bool:
        """Whether the config is the user's own."""
        return self.action == "train" and self.resume is None
