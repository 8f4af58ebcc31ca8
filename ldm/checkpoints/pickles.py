"""Read pickles as plain data: a name in them stays a name; nothing is imported, nothing foreign is called.

torch's own `weights_only` reader refuses Lightning 1.4 files (they hold classes as dictionary keys), and its
other reader runs whatever the file says. Here the pickle machine has lost every opcode that reaches foreign
code.
"""

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, NoReturn, Protocol

from ldm.checkpoints.errors import CheckpointError, UnsafePickle
from ldm.checkpoints.pickle_records import (
    BUILDERS,
    DTYPES,
    STORAGES,
    ArrayRecord,
    DtypeRecord,
    Reference,
    StorageRecord,
    StorageType,
    is_count,
)

# The standard library's Python version of the pickle machine, because only there can opcodes be taken away:
# the C version looks up extension codes and builds states without asking anyone. Its stubs are incomplete.
_Machine: Any = pickle._Unpickler


class Readable(Protocol):
    """Source of a pickle."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""

    def readline(self) -> bytes:
        """Return up to and with the next newline."""


class RestrictedUnpickler(_Machine):
    """Unpickler that builds numbers, strings, containers and records, and refuses the rest.

    Attributes:
        storages: every storage the pickle refers to, by key.
    """

    def __init__(self, file: Readable, source: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.source = source
        self.storages: dict[str, StorageRecord] = {}

    def load(self) -> Any:
        """Read one pickle.

        Raises:
            UnsafePickle: it would call a function; the message names it.
            CheckpointError: it is damaged.
        """
        try:
            return super().load()
        except CheckpointError:
            raise
        except Exception as error:  # a broken byte may lead to any: KeyError, EOFError, ...
            raise CheckpointError(
                f"{self.source}: the pickle in it is damaged or of an unknown kind "
                f"({type(error).__name__}: {error}); download or save the file again"
            ) from error

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global; never imports."""
        if self.proto < 3:  # these protocols write Python 2's names
            renamed = IMPORT_MAPPING.get(module, module), name
            module, name = NAME_MAPPING.get((module, name), renamed)
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return StorageType(f"{module}.{name}", dtype=STORAGES[name])
        build = BUILDERS.get(f"{module.replace('numpy.core', 'numpy._core')}.{name}")  # NumPy 2 renamed it
        return Reference(f"{module}.{name}", build)

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that torch's ("storage", type, key, location, numel[, view]) refers to."""
        if not isinstance(pid, tuple) or not pid:
            raise pickle.UnpicklingError(f"reference {pid!r} to an outside object")
        if pid[0] == "module" and len(pid) > 1:  # a whole model: its class will be refused
            return pid[1]
        _, storage_type, key, _, numel, *rest = pid
        if pid[0] != "storage" or not isinstance(storage_type, StorageType) or not is_count(numel):
            raise pickle.UnpicklingError(f"reference to an unknown {pid[0]!r}")
        view = rest[0] if rest else None  # (key of the view, first element, length): before torch 0.4
        start = view[1] if view else 0
        record = StorageRecord(str(key), storage_type.dtype, numel, start)
        self.storages[record.key] = record
        return record

    def refuse(self, target: Any, args: Any = ()) -> NoReturn:
        """Raise UnsafePickle naming the function that the pickle would call."""
        name = target.name if isinstance(target, Reference) else f"a method of {type(target).__name__}"
        given = ", ".join(arg.name for arg in _items(args) if isinstance(arg, Reference))
        call = f"{name}({given})"[:200] if given else name[:200]
        raise UnsafePickle(
            f"{self.source}: this file would call {call} while it is read. Weights need no such call; "
            "nothing was run or loaded. If it is a whole model or holds settings objects, "
            "ask its author for a file with only the weights (torch.save(model.state_dict()) or safetensors); "
            "otherwise delete it"
        )

    def _reduce(self) -> None:
        args = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Reference) or target.build is None:
            self.refuse(target, args)
        self.stack[-1] = target.build(*args)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, DtypeRecord | ArrayRecord):
            target.set_state(state)
        elif type(target) is not dict:  # the version numbers of a state dict are dropped
            self.refuse(target)

    def _refuse_new(self) -> None:
        args = self.stack.pop()
        self.refuse(self.stack.pop(), args)

    def _refuse_new_with_keywords(self) -> None:
        self.stack.pop()
        self._refuse_new()

    def _refuse_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        self.refuse(self.find_class(module, name), self.pop_mark())

    def _refuse_obj(self) -> None:
        target, *args = self.pop_mark()
        self.refuse(target, args)

    def _refuse_extension(self) -> None:
        self.refuse(Reference("a name from Python's registry of pickle extensions"))

    def _refuse_buffer(self) -> None:  # BYTEARRAY8 allocates whatever size the file claims
        raise pickle.UnpicklingError("a buffer, which no weight file has")

    dispatch = {  # noqa: RUF012 (the name and form are pickle's)
        **_Machine.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
        pickle.NEWOBJ[0]: _refuse_new,
        pickle.NEWOBJ_EX[0]: _refuse_new_with_keywords,
        pickle.INST[0]: _refuse_inst,
        pickle.OBJ[0]: _refuse_obj,
        pickle.EXT1[0]: _refuse_extension,
        pickle.EXT2[0]: _refuse_extension,
        pickle.EXT4[0]: _refuse_extension,
        pickle.BYTEARRAY8[0]: _refuse_buffer,
        pickle.NEXT_BUFFER[0]: _refuse_buffer,
        pickle.READONLY_BUFFER[0]: _refuse_buffer,
    }


def _items(args: Any) -> tuple[Any, ...]:
    """Return what the pickle gave as arguments, whatever it gave."""
    return tuple(args) if isinstance(args, tuple | list) else ()
