"""The out-of-memory message of every program."""

MESSAGES = ("out of memory", "can't allocate memory", "cannot allocate memory")  # of CUDA, MPS, CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch, on any device, says that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in MESSAGES)


def out_of_memory(what: str, advice: str) -> str:
    """Return the message; `what` needed the memory, `advice` says what to change."""
    return f"out of memory {what}; {advice}"
