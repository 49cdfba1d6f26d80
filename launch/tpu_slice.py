"""A Cloud TPU slice: created or queued, its state, deleted; and what of it must be paid for."""

import re
import shlex
import time

from commands import Answer, Commands, LaunchError

# https://cloud.google.com/tpu/docs/runtimes; other types take the plain image.
RUNTIMES = {"v5litepod": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5", "v6e": "v2-alpha-tpuv6e"}
OTHER_RUNTIME = "tpu-ubuntu2204-base"

# These count chips in the type's name; the older ones count TensorCores, two of which make a chip.
NAMED_BY_CHIPS = ("v5litepod", "v6e")

READY = ("ACTIVE", "READY")
# Wait, and it will be another state.
PASSING = (
    *("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING", "STARTING", "RESTARTING", "REIMAGING"),
    *("REPAIRING", "SUSPENDING", "STOPPING", "DELETING"),
)
ABSENT = "ABSENT"
UNKNOWN = "UNKNOWN"

# What gcloud says when waiting may help; all else at `create` is for the user to mend.
NO_CAPACITY = re.compile(
    r"no more capacity|insufficient capacity|stockout|resource_exhausted|unavailable|internal error|try again", re.I
)
QUOTA = re.compile(r"quota", re.I)
NOT_FOUND = re.compile(r"not_found|not found", re.I)

DELETE_TRIES = 3


def chips_of(accelerator_type: str) -> int:
    """Chips of a type such as v5litepod-16. Raises LaunchError."""
    match = re.fullmatch(r"(v[0-9][a-z]*)-([0-9]+)", accelerator_type)
    if not match:
        raise LaunchError(f"--type={accelerator_type}: no such thing; types look like v5litepod-16, v6e-16, v5p-32")
    count = int(match[2])
    return count if match[1] in NAMED_BY_CHIPS else max(1, count // 2)


class TpuSlice:
    """One slice by its name. It is gone when it was preempted: then it must be deleted before it is made again."""

    def __init__(self, commands: Commands, flags):
        self.commands = commands
        self.flags = flags
        self.chips = chips_of(flags.type)
        self.may_exist = False
        self.last_error = ""
        self.held_since: float | None = None
        self.held_seconds = 0.0

    @property
    def group(self) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm" if self.flags.direct else "queued-resources"]

    @property
    def where(self) -> list[str]:
        return [f"--zone={self.flags.zone}", *([f"--project={self.flags.project}"] if self.flags.project else [])]

    def state(self, dry: str = "ACTIVE") -> str:
        """As gcloud names it, or ABSENT, or UNKNOWN if gcloud could not be asked."""
        key = "state" if self.flags.direct else "state.state"
        absent = Answer(1, err="NOT_FOUND")
        answer = self.commands.run(
            [*self.group, "describe", self.flags.name, *self.where, f"--format=value({key})"],
            dry=absent if dry == ABSENT else Answer(out=dry),
        )
        if answer.code == 0:
            return answer.out.strip() or UNKNOWN
        self.last_error = answer.complaint
        return ABSENT if NOT_FOUND.search(answer.err) else UNKNOWN

    def create_line(self) -> list[str]:
        flags = self.flags
        runtime = flags.runtime or RUNTIMES.get(flags.type.split("-")[0], OTHER_RUNTIME)
        line = [*self.group, "create", flags.name, *self.where, f"--accelerator-type={flags.type}"]
        if flags.direct:
            line.append(f"--version={runtime}")
        else:
            line += [f"--node-id={flags.name}", f"--runtime-version={runtime}"]
        if flags.valid_until_duration:
            line.append(f"--valid-until-duration={flags.valid_until_duration}")
        line += ["--spot"] * flags.spot + ["--reserved"] * flags.reserved
        return [*line, *flags.create_flag, "--quiet"]

    def make_ready(self) -> bool:
        """Creates it, unless it is there, and waits until it is ready. True if it was there. Raises LaunchError."""
        state = self.state(dry=ABSENT)
        if state == UNKNOWN:
            raise LaunchError(f"gcloud: {self.last_error}")
        found = state in READY
        self.may_exist = state != ABSENT
        wait = self.flags.wait_seconds
        tries = 0
        while state not in READY:
            if state in PASSING or state == UNKNOWN:
                time.sleep(self.flags.poll_seconds)
            else:
                tries = self._next_try(tries, state)
                if tries > 1:
                    self.commands.say(f"{self.flags.name}: next try in {wait:g} s")
                    time.sleep(wait)
                    wait = min(2 * wait, self.flags.longest_wait_seconds)
                self.create(state)
            state = self._said(self.state(), state)
        self._hold()
        return found

    def _said(self, state: str, before: str) -> str:
        if state != before:
            self.commands.say(f"{self.flags.name}: {state}" + (f" ({self.last_error})" if state == UNKNOWN else ""))
        return state

    def _next_try(self, tries: int, state: str) -> int:
        """Counts the attempts to have it. Raises LaunchError where another is of no use."""
        if tries and state == "FAILED" and self.flags.valid_until_duration:
            raise LaunchError(f"{self.flags.name}: not granted within {self.flags.valid_until_duration}", 1)
        if tries >= self.flags.create_tries:
            raise LaunchError(f"{self.flags.name}: no capacity in {self.flags.zone}, tried {tries} times", 1)
        return tries + 1

    def create(self, state: str) -> None:
        """One attempt, after what is left of an earlier one was deleted. Raises LaunchError."""
        if state != ABSENT:
            self.delete()
        self.may_exist = True
        answer = self.commands.run(self.create_line())
        if answer.code == 0:
            return
        if QUOTA.search(answer.err) or not NO_CAPACITY.search(answer.err):
            raise LaunchError(f"gcloud: {answer.complaint}")
        self.commands.say(f"{self.flags.name}: {answer.complaint}")

    def _hold(self) -> None:
        if self.held_since is None:
            self.held_since = time.monotonic()
            self.commands.say(
                f"{self.flags.name}: {self.chips} chips are held; chip-hours x price: cloud.google.com/tpu/pricing"
            )

    def delete(self) -> None:
        """Deletes it, if it is there. Raises LaunchError if it may still be there, and go on to cost."""
        force = [] if self.flags.direct else ["--force"]
        line = [*self.group, "delete", self.flags.name, *self.where, *force, "--quiet"]
        for number in range(DELETE_TRIES):
            answer = self.commands.run(line)
            if answer.code == 0 or NOT_FOUND.search(answer.err):
                self._let_go()
                return
            if number + 1 < DELETE_TRIES:
                time.sleep(self.flags.wait_seconds)
        raise LaunchError(
            f"{self.flags.name} could not be deleted ({answer.complaint}) and goes on to cost: {shlex.join(line)}", 1
        )

    def _let_go(self) -> None:
        self.may_exist = False
        if self.held_since is not None:
            self.held_seconds += time.monotonic() - self.held_since
            self.held_since = None
        if self.held_seconds:
            hours = self.held_seconds / 3600
            used = f"held {hours:.2f} h x {self.chips} chips = {hours * self.chips:.2f} chip-hours"
            self.commands.say(f"{self.flags.name}: deleted; {used}")
