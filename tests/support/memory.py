"""How much memory a piece of work takes."""

from collections.abc import Callable

from torch.profiler import profile


def peak(work: Callable[[], object]) -> int:
    """Bytes of tensors on the CPU above what was there before, at the highest."""
    with profile(profile_memory=True) as profiled:
        work()
    levels, found = [], list(profiled.profiler.kineto_results.experimental_event_tree())
    while found:
        event = found.pop()
        found += event.children
        if event.name == "[memory]":
            levels.append((event.start_time_ns, event.extra_fields.total_allocated, event.extra_fields.alloc_size))
    levels.sort()
    _, level, size = levels[0]
    return max(total for _, total, _ in levels) - (level - size)
