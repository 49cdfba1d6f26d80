"""How far the training of some probes is: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

QUIET_SECONDS = 60.0  # between two lines where there is no terminal


class Progress:
    """Epochs of probes that are trained side by side; all of it goes to stderr."""

    def __init__(self, title: str, epochs: int, probes: int, bar: tqdm):
        self._title, self._epochs, self._bar = title, epochs, bar
        self._done, self._state, self._said = 0.0, f"{probes} probes", time.monotonic()

    def chunk(self, share: float) -> None:
        """So much of an epoch has been trained."""
        self._done += share
        self._bar.update(share)
        if self._bar.disable and time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            print(f"  {self._title}: epoch {self._done:.1f}/{self._epochs}, {self._state}", file=sys.stderr, flush=True)

    def epoch(self, probes: int, best: float) -> None:
        """An epoch has ended: so many probes go on; the best validation score of all."""
        self._state = f"{probes} probes go on, best {best:.3f}"
        self._bar.set_postfix_str(self._state, refresh=False)


@contextmanager
def shown_progress(title: str, epochs: int, probes: int) -> Iterator[Progress]:
    """A bar ends with its probes, which is mostly before the last epoch, and leaves nothing on the screen."""
    with tqdm(
        total=epochs,
        desc=title,
        leave=False,
        disable=None,
        bar_format="{desc}: epoch {n:.1f}/{total_fmt}|{bar:20}| {elapsed}{postfix}",
    ) as bar:
        yield Progress(title, epochs, probes, bar)
